# SPDX-License-Identifier: Apache-2.0
"""Changing an image in place as people ask for it: version, features, refcounts, size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs

from blockyard.creation import boolean
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.schema.keyvalvisitor import parse_size
from blockyard_formats_qcow2 import extension
from blockyard_formats_qcow2.header import (
    LENGTH_V2,
    LENGTH_WRITTEN,
    Autoclear,
    Compatible,
    Crypt,
    Incompatible,
)
from blockyard_formats_qcow2.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blockyard_formats_qcow2.image import OpenImage
    from blockyard_formats_qcow2.work import Qcow2Work

__all__ = ["remodel"]

_VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_USE_V3 = "(use compat=1.1 or greater)"
_POLL = 0.05
#: Refcounts of the older version have 16 bits.
_ORDER_V2 = 4


@attrs.frozen(kw_only=True)
class _Wishes:
    """What is asked for; None: it stays as it is."""

    version: int | None = None
    size: int | None = None
    lazy: bool | None = None
    refcount_order: int | None = None
    data_file: str | None = None
    data_file_raw: bool | None = None
    encrypt: Mapping[str, str]


async def remodel(
    driver: Qcow2Work,
    values: Mapping[str, str],
    *,
    force: bool,
    tell: Callable[[int, int], None] | None,
) -> None:
    """Change what ``values`` name, as ``qemu-img amend`` does.  No requests are under way.

    ``tell`` hears how far it is: done, total.

    :raises BlockyardError: with QEMU's text; what had been changed before stays so.
    """
    image = driver.image
    wishes = _understood(image, values)
    version = wishes.version or image.header.version
    if version > image.header.version:
        await _become(image, version, tell)
    if wishes.encrypt:
        await _encryption(driver, wishes.encrypt, force=force)
    if wishes.refcount_order is not None:
        await _refcounts(image, version, wishes.refcount_order, tell)
    await _data_file(image, wishes)
    if wishes.lazy is not None:
        await _lazy(image, version, on=wishes.lazy)
    if wishes.size is not None:
        await driver.node.graph.resize(driver.node, wishes.size)
    if version < image.header.version:
        await _become(image, version, tell)


def _understood(image: OpenImage, values: Mapping[str, str]) -> _Wishes:
    backing = values.get("backing_file"), values.get("backing_fmt")
    present = image.extensions.backing_file, image.extensions.backing_format
    if backing not in ((None, None), present):
        raise InvalidOption("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.")
    encrypt = {k.partition(".")[2]: v for k, v in values.items() if k.startswith("encrypt.")}
    if encrypt and image.header.crypt_method == Crypt.NONE:
        raise InvalidOption("Can't amend encryption options - encryption not present")
    if encrypt and image.header.crypt_method != Crypt.LUKS:
        raise InvalidOption("Only LUKS encryption options can be amended for qcow2 with qemu-img")
    raw = values.get("data_file_raw")
    if raw is not None and boolean("data_file_raw", raw) and not image.header.data_file_raw:
        raise InvalidOption("data-file-raw cannot be set on existing images")
    if "data_file" in values and not image.header.has_data_file:
        raise InvalidOption("data-file can only be set for images that use an external data file")
    lazy = values.get("lazy_refcounts")
    return _Wishes(
        version=_version(values.get("compat")),
        size=parse_size(values["size"]) if "size" in values else None,
        lazy=None if lazy is None else boolean("lazy_refcounts", lazy),
        refcount_order=_order(values.get("refcount_bits")),
        data_file=values.get("data_file"),
        data_file_raw=None if raw is None else boolean("data_file_raw", raw),
        encrypt=encrypt,
    )


def _version(text: str | None) -> int | None:
    if text is not None and text not in _VERSIONS:
        raise InvalidOption(f"Unknown compatibility level {text}")
    return None if text is None else _VERSIONS[text]


def _order(text: str | None) -> int | None:
    if text is None:
        return None
    bits = int(text, 0)
    if not 0 < bits <= 64 or bits & (bits - 1):
        raise InvalidOption("Refcount width must be a power of two and may not exceed 64 bits")
    return bits.bit_length() - 1


# -- one thing each


async def _become(image: OpenImage, version: int, tell: Callable[[int, int], None] | None) -> None:
    present = image.present_header()
    if version > 2:
        header = attrs.evolve(present, version=version, length=LENGTH_WRITTEN, incompatible=0)
    else:
        header = attrs.evolve(
            present, version=2, length=LENGTH_V2, incompatible=0, compatible=0, autoclear=0,
            compression=0,
        )  # fmt: skip
    data = extension.build(header, image.extensions)
    await _long(
        tell,
        lambda progress: image.explained(lib.by_qcow2_change_version, data, len(data), progress),
    )
    image.header = header


async def _refcounts(
    image: OpenImage, version: int, order: int, tell: Callable[[int, int], None] | None
) -> None:
    if order == image.header.refcount_order:
        return
    if version < 3 and order != _ORDER_V2:
        raise InvalidOption(
            f"Refcount widths other than 16 bits require compatibility level 1.1 or above {_USE_V3}"
        )
    await _long(
        tell,
        lambda progress: image.explained(lib.by_qcow2_change_refcounts, order, progress),
    )
    image.header = attrs.evolve(image.header, refcount_order=order)


async def _data_file(image: OpenImage, wishes: _Wishes) -> None:
    header, extensions = image.present_header(), image.extensions
    autoclear = header.autoclear
    if wishes.data_file_raw is False:
        autoclear &= ~Autoclear.DATA_FILE_RAW
    if wishes.data_file is not None:
        extensions = attrs.evolve(extensions, data_file=wishes.data_file or None)
    if autoclear != header.autoclear or extensions != image.extensions:
        await image.rewrite(extensions=extensions, autoclear=autoclear)


async def _lazy(image: OpenImage, version: int, *, on: bool) -> None:
    present = bool(image.present_header().compatible & Compatible.LAZY_REFCOUNTS)
    if on == present:
        return
    if on and version < 3:
        raise InvalidOption(
            f"Lazy refcounts only supported with compatibility level 1.1 and above {_USE_V3}"
        )
    if not on:
        # Refcounts have to be right before nobody is told that they may not be.
        await image.call(lib.by_qcow2_mark_clean)
    header = image.present_header()
    features = header.compatible & ~Compatible.LAZY_REFCOUNTS
    features |= Compatible.LAZY_REFCOUNTS if on else 0
    incompatible = header.incompatible if on else header.incompatible & ~Incompatible.DIRTY
    await image.rewrite(compatible=int(features), incompatible=int(incompatible))


async def _encryption(driver: Qcow2Work, values: Mapping[str, str], *, force: bool) -> None:
    from blockyard.schema import visit_keyval
    from blockyard_formats_qcow2.amend import amend
    from blockyard_formats_qcow2.schema import BlockdevAmendOptionsQcow2

    encrypt = {"format": "luks", **values}
    await amend(driver, visit_keyval(BlockdevAmendOptionsQcow2, {"encrypt": encrypt}), force=force)


async def _long(tell: Callable[[int, int], None] | None, work: Callable[[Any], Any]) -> None:
    """Native work with something to tell how far it is."""
    progress = ffi.new("struct by_qcow2_progress *")
    if tell is None:
        await work(progress)
        return
    done = anyio.Event()

    async def watch() -> None:
        while not done.is_set():
            with anyio.move_on_after(_POLL):
                await done.wait()
            if progress.total:
                tell(progress.done, progress.total)

    # Its error comes out as it is, not in a group.
    failure: BlockyardError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            with anyio.CancelScope(shield=True):
                await work(progress)
        except BlockyardError as error:
            failure = error
        done.set()
    if failure is not None:
        raise failure
