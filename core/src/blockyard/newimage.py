# SPDX-License-Identifier: Apache-2.0
"""New images, from the options by which people make them (:mod:`blockyard.creation`).

::

    new = NewImage.find(yard.registry, "disk.qcow2", "qcow2")
    new.take("cluster_size=128k,compat=1.1")
    new.set("size", "10G")
    await make_image(yard, new)
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import anyio
import attrs

from blockyard.changes.options import nested
from blockyard.entrypoints import implementation, load_object
from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, UnknownPlugin, Unsupported
from blockyard.imagename import image_options, protocol_of
from blockyard.imagework import ImageWork
from blockyard.permission import ALL, Perm
from blockyard.schema.legacy import parse_legacy

if TYPE_CHECKING:
    from blockyard.creation import CreateOption, Creation
    from blockyard.declaration import DriverType
    from blockyard.image import Image
    from blockyard.imagework import Measure
    from blockyard.node import Node
    from blockyard.plugins import Registry
    from blockyard.yard import Yard

__all__ = ["NewImage", "creation_of", "driver_named", "make_image", "measure_image"]

_SECTOR = 512
_EFBIG = 27


def creation_of(declaration: DriverType) -> Creation | None:
    """How images of the driver are made; None if they are not."""
    found = declaration.creation
    return load_object(found) if isinstance(found, str) else found  # type: ignore[return-value]


@attrs.define(kw_only=True)
class NewImage:
    """An image that is to be made, and what is known of it so far."""

    filename: str
    driver: DriverType
    #: What it will lie in; ``driver`` itself if that is a protocol.
    protocol: DriverType
    #: What was said, as texts that were checked.
    values: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    async def find(cls, registry: Registry, filename: str, fmt: str) -> NewImage:
        """A new image called ``filename`` in this format.

        :raises UnknownPlugin: if there is no such format.
        :raises Unsupported: if format or protocol cannot make images.
        """
        driver = driver_named(registry, fmt)
        protocol = await protocol_of(registry, filename)
        if driver.creation is None:
            raise Unsupported(f"Format driver '{driver.name}' does not support image creation")
        if protocol.creation is None:
            raise Unsupported(f"Protocol driver '{protocol.name}' does not support image creation")
        return cls(filename=filename, driver=driver, protocol=protocol)

    @classmethod
    def of_format(cls, registry: Registry, fmt: str) -> NewImage:
        """One that nobody is going to make: for its options, and for :func:`measure_image`.

        :raises UnknownPlugin: if there is no such format.
        :raises Unsupported: if it cannot make images.
        """
        driver = driver_named(registry, fmt)
        if driver.creation is None:
            raise Unsupported(f"Format driver '{driver.name}' does not support image creation")
        return cls(filename="", driver=driver, protocol=registry.driver("file"))

    @property
    def options(self) -> list[CreateOption]:
        """All that can be said, in order: the format's, then the protocol's own."""
        found: dict[str, CreateOption] = {}
        for declaration in (self.driver, self.protocol):
            creation = creation_of(declaration)
            for option in creation.options if creation else ():
                found.setdefault(option.name, option)
        return list(found.values())

    def take(self, text: str) -> None:
        """Take options as a command line has them.

        :raises InvalidOption: with QEMU's text.
        """
        for name, value in parse_legacy(text):
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Say one option; the last word counts.

        :raises InvalidOption: with QEMU's text.
        """
        option = next((each for each in self.options if each.name == name), None)
        if option is None:
            raise InvalidOption(f"Invalid parameter '{name}'")
        option.check(value)
        self.values[name] = value

    def has(self, name: str) -> bool:
        """Whether there is such an option."""
        return any(each.name == name for each in self.options)

    @property
    def size(self) -> int | None:
        """Bytes of the disk, if they were said."""
        from blockyard.schema.keyvalvisitor import parse_size

        return parse_size(self.values["size"]) if "size" in self.values else None

    def told(self) -> str:
        """``cluster_size=65536 size=1048576...``: what holds, with what nobody said."""
        words = []
        for option in self.options:
            if option.name in self.values:
                words.append(f"{option.name}={option.shown(self.values[option.name])}")
            elif option.default is not None:
                words.append(f"{option.name}={option.default}")
        return " ".join(words)


def driver_named(registry: Registry, fmt: str) -> DriverType:
    """The driver of a format, as one that images are made of.

    :raises UnknownPlugin: if there is none.
    """
    try:
        return registry.driver(fmt)  # type: ignore[no-any-return]
    except UnknownPlugin as error:
        text = str(error)
        if text.startswith(f"Unknown driver '{fmt}'"):
            hint = text.removeprefix(f"Unknown driver '{fmt}'")
            raise UnknownPlugin(f"Unknown file format '{fmt}'{hint}") from None
        raise


async def make_image(yard: Yard, new: NewImage) -> None:
    """Make the image.  What has been made of it is taken away again if that fails.

    :raises BlockyardError: with QEMU's text.
    """
    creation = creation_of(new.driver)
    assert creation is not None
    try:
        if new.driver.kind == "protocol":
            await _make_file(yard, new.filename, new.driver, new.values)
        elif creation.transparent:
            await _make_file(yard, new.filename, new.protocol, new.values)
        else:
            await _make_formatted(yard, new, creation)
    except ImageIOError as error:
        if error.errno == _EFBIG:
            hint = " (try using a larger cluster size)" if new.has("cluster_size") else ""
            raise ImageIOError(
                f"The image size is too large for file format '{new.driver.name}'{hint}", _EFBIG
            ) from error
        raise


async def measure_image(yard: Yard, new: NewImage, source: Node | None) -> Measure:
    """How large the image would be with what is in ``source``, which decides the size.

    :raises BlockyardError: with QEMU's text.
    """
    from blockyard.schema.keyvalvisitor import check_keyval

    driver = implementation(new.driver)
    creation = creation_of(new.driver)
    if creation is None or driver.measure.__func__ is ImageWork.measure.__func__:  # type: ignore[attr-defined]
        name = new.driver.name
        raise Unsupported(f"Block driver '{name}' does not support size measurement")
    own = {k: v for k, v in new.values.items() if creation.named(k)}
    members = creation.translated(own)
    if "size" in members:
        members["size"] = _whole_sectors(members["size"])
    file = {"file": "-"} if new.driver.kind == "format" else {"filename": "-"}
    flat = nested({"size": "0", **members, **file})
    checked = check_keyval(new.driver.create_options, flat)
    kept = {name: value for name, value in checked.items() if name not in file}
    return await driver.measure(kept, source)  # type: ignore[no-any-return]


# -- what images lie in


async def _make_file(
    yard: Yard, filename: str, protocol: DriverType, values: dict[str, str]
) -> None:
    creation = creation_of(protocol)
    if creation is None:
        raise Unsupported(f"Protocol driver '{protocol.name}' does not support image creation")
    if creation.existing:
        await _use_existing(yard, filename, protocol, values)
        return
    from blockyard.schema import visit_keyval
    from blockyard.schema.block import BlockdevCreateOptions

    named = await image_options(yard.registry, filename, protocol.name)
    known = {k: v for k, v in values.items() if creation.named(k)}
    members = {"size": "0", **creation.translated(known)}
    members["size"] = _whole_sectors(members["size"])
    options = visit_keyval(BlockdevCreateOptions, nested({**named, **members}))
    await implementation(protocol).create(options.u, yard)


def _whole_sectors(size: str) -> str:
    from blockyard.schema.keyvalvisitor import parse_size

    found = parse_size(size)
    return size if found is None else str(-(-found // _SECTOR) * _SECTOR)


async def _use_existing(
    yard: Yard, filename: str, protocol: DriverType, values: dict[str, str]
) -> None:
    """Give an image that exists its size, as far as it can be, and forget its old format."""
    if values.get("preallocation", "off") != "off":
        raise Unsupported(f"Unsupported preallocation mode '{values['preallocation']}'")
    size = int(_whole_sectors(values.get("size", "0")))
    try:
        image = await _open_file(yard, filename, protocol)
    except BlockyardError as error:
        raise Unsupported(
            f"Protocol driver '{protocol.name}' does not support creating new images, so an "
            "existing image must be selected as the target; however, opening the given target "
            f"as an existing image failed: {error}"
        ) from error
    async with image:
        await _give_size(image, size)
        # Whatever was there must not be found again by probing.
        await image.write_zeroes(0, min(_SECTOR, image.length))


async def _give_size(image: Image, size: int) -> None:
    try:
        await image.node.driver.check_resize(size)
        await image.truncate(size, exact=False)
    except BlockyardError as error:
        cannot = isinstance(error, Unsupported) or getattr(error, "errno", None) == 95
        if not cannot or size > image.length:
            if isinstance(error, ImageIOError):
                raise image.node.driver.truncate_error(size, "off", error) from error
            raise


async def _open_file(yard: Yard, filename: str, protocol: DriverType) -> Image:
    return await yard.open_named(
        filename,
        protocol.name,
        perm=Perm.CONSISTENT_READ | Perm.WRITE | Perm.RESIZE,
        shared=ALL,
    )


# -- formats


async def _make_formatted(yard: Yard, new: NewImage, creation: Creation) -> None:
    from blockyard.schema import visit_keyval
    from blockyard.schema.block import BlockdevCreateOptions

    own = {k: v for k, v in new.values.items() if creation.named(k)}
    rest = {k: v for k, v in new.values.items() if k not in own}
    members = creation.translated(own)
    members["size"] = _whole_sectors(members.get("size", "0"))
    await _make_file(yard, new.filename, new.protocol, rest)
    try:
        async with AsyncExitStack() as stack:
            file = await stack.enter_async_context(
                await _open_file(yard, new.filename, new.protocol)
            )
            members |= {"driver": new.driver.name, "file": file.node.name}
            if "data-file" in members:
                data = await _data_file(stack, yard, members["data-file"])
                members["data-file"] = data.node.name
            options = visit_keyval(BlockdevCreateOptions, nested(members))
            await implementation(new.driver).create(options.u, yard)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _take_away(yard, new)
        raise


async def _data_file(stack: AsyncExitStack, yard: Yard, name: str) -> Image:
    protocol = await protocol_of(yard.registry, name)
    await _make_file(yard, name, protocol, {})
    return await stack.enter_async_context(await _open_file(yard, name, protocol))


async def _take_away(yard: Yard, new: NewImage) -> None:
    """Remove the file of an image that could not be made."""
    with suppress(BlockyardError):
        named = await image_options(yard.registry, new.filename, new.protocol.name)
        await implementation(new.protocol).remove(named)
