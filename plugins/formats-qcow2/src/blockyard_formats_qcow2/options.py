# SPDX-License-Identifier: Apache-2.0
"""What the options of an image that is opened or reopened come to.

The arithmetic and the refusals are QEMU's (docs/qcow2-cache.txt).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.changes.options import reported
from blockyard.errors import InvalidOption
from blockyard_formats_qcow2.header import Compatible, Crypt

if TYPE_CHECKING:
    from blockyard_formats_qcow2.header import Header

__all__ = ["Settings", "cache_sizes", "check_encryption", "overlap_bits", "resolve"]

_KIB = 1024
_MIB = 1024 * _KIB
_DEFAULT_L2_CACHE = 32 * _MIB
_DEFAULT_ENTRY = 64 * _KIB
_MIN_L2_ENTRIES = 2
_MIN_REFCOUNT_BLOCKS = 4
_MIN_ENTRY = 512
_DEFAULT_CLEAN_INTERVAL = 600
_SIZES = ("cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size")
_INT_MAX = (1 << 31) - 1
_UINT_MAX = (1 << 32) - 1

#: The checks in the order of their bits (``enum by_qcow2_overlap``).
OVERLAP_CHECKS = (
    "main_header",
    "active_l1",
    "active_l2",
    "refcount_table",
    "refcount_block",
    "snapshot_table",
    "inactive_l1",
    "inactive_l2",
    "bitmap_directory",
)
_CONSTANT = 0x01 | 0x02 | 0x08 | 0x20 | 0x100
_CACHED = _CONSTANT | 0x04 | 0x10 | 0x40
_TEMPLATES = {"none": 0, "constant": _CONSTANT, "cached": _CACHED, "all": _CACHED | 0x80}

_ALWAYS, _REQUEST, _SNAPSHOT, _OTHER = 1, 2, 3, 4
_CRYPT_WORDS = {Crypt.AES: "aes", Crypt.LUKS: "luks"}


@attrs.frozen(kw_only=True)
class Settings:
    """What the native half is told; bytes, and bits of its enums."""

    l2_slice_bytes: int
    l2_cache_bytes: int
    refcount_cache_bytes: int
    overlap: int
    pass_discard: int
    discard_no_unref: bool
    lazy_refcounts: bool
    #: Seconds; 0 for never.
    clean_interval: int


def resolve(options: Any, header: Header, *, unmap: bool) -> Settings:
    """The settings for ``options`` (BlockdevOptionsQcow2) of an image.

    ``unmap``: the node passes discards on.

    :raises InvalidOption: with QEMU's text.
    """
    l2, refcount, entry = cache_sizes(options, header)
    interval = options.cache_clean_interval
    if interval is None:
        interval = _DEFAULT_CLEAN_INTERVAL
    if not 0 <= interval <= _UINT_MAX:
        raise InvalidOption("Cache clean interval too big")
    lazy = options.lazy_refcounts
    if lazy is None:
        lazy = bool(header.compatible & Compatible.LAZY_REFCOUNTS)
    if lazy and header.version < 3:
        raise InvalidOption(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"
        )
    no_unref = bool(options.discard_no_unref)
    if no_unref and header.version < 3:
        raise InvalidOption("discard-no-unref is only supported since qcow2 version 3")
    return Settings(
        l2_slice_bytes=entry,
        l2_cache_bytes=l2,
        refcount_cache_bytes=refcount,
        overlap=overlap_bits(options.overlap_check),
        pass_discard=_discards(options, unmap),
        discard_no_unref=no_unref,
        lazy_refcounts=lazy,
        clean_interval=interval,
    )


# -- caches


def cache_sizes(options: Any, header: Header) -> tuple[int, int, int]:
    """Bytes of the caches of L2 tables and of refcount blocks, and of an entry of the first.

    :raises InvalidOption: with QEMU's text.
    """
    _check_negative(options)
    cluster = header.cluster_size
    entry = options.l2_cache_entry_size
    if entry is None:
        entry = min(_DEFAULT_ENTRY, cluster)
    l2, refcount = _divide(options, header)
    if not _MIN_ENTRY <= entry <= cluster or entry & (entry - 1):
        raise InvalidOption(
            "L2 cache entry size must be a power of two between "
            f"{_MIN_ENTRY} and the cluster size ({cluster})"
        )
    entries = max(l2 // entry, _MIN_L2_ENTRIES)
    if entries > _INT_MAX:
        raise InvalidOption("L2 cache size too big")
    blocks = max(refcount // cluster, _MIN_REFCOUNT_BLOCKS)
    if blocks > _INT_MAX:
        raise InvalidOption("Refcount cache size too big")
    return entries * entry, blocks * cluster, entry


def _divide(options: Any, header: Header) -> tuple[int, int]:
    """The sizes as the three options give them, before rounding."""
    cluster = header.cluster_size
    both, l2_limit = options.cache_size, options.l2_cache_size
    refcount = options.refcount_cache_size
    clusters = -(-header.size // cluster)
    wanted = -(-clusters * header.l2_entry_bytes // cluster) * cluster
    l2 = min(wanted, _DEFAULT_L2_CACHE if l2_limit is None else l2_limit)
    if both is None:
        return l2, refcount or 0
    _check_together(both, l2_limit, refcount)
    if l2_limit is not None:
        return l2, both - l2
    if refcount is not None:
        return both - refcount, refcount
    least = _MIN_REFCOUNT_BLOCKS * cluster
    if both >= wanted + least:
        return wanted, both - wanted
    refcount = min(both, least)
    return both - refcount, refcount


def _check_together(both: int, l2: int | None, refcount: int | None) -> None:
    if l2 is not None and refcount is not None:
        raise InvalidOption(
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        )
    if l2 is not None and l2 > both:
        raise InvalidOption("l2-cache-size may not exceed cache-size")
    if refcount is not None and refcount > both:
        raise InvalidOption("refcount-cache-size may not exceed cache-size")


def _check_negative(options: Any) -> None:
    for name in reported(_SIZES):
        value = getattr(options, name.replace("-", "_"))
        if value is not None and value < 0:
            raise InvalidOption(f"Value '{value}' is out of range for parameter '{name}'")


# -- the others


def overlap_bits(option: Any) -> int:
    """The checks that the option ``overlap-check`` asks for, as bits."""
    if option is None:
        return _CACHED
    if isinstance(option, str):
        return _TEMPLATES[str(option)]
    bits = _TEMPLATES[str(option.template or "cached")]
    for place, name in enumerate(OVERLAP_CHECKS):
        wanted = getattr(option, name)
        if wanted is not None:
            bits = bits & ~(1 << place) | (wanted << place)
    return bits


def _discards(options: Any, unmap: bool) -> int:
    wanted = {
        _REQUEST: unmap if options.pass_discard_request is None else options.pass_discard_request,
        _SNAPSHOT: options.pass_discard_snapshot is not False,
        _OTHER: bool(options.pass_discard_other),
    }
    return sum(1 << why for why, on in wanted.items() if on) | 1 << _ALWAYS


def check_encryption(encrypt: Any, header: Header) -> None:
    """Refuse an option ``encrypt`` that does not suit the image, or an unknown method.

    :raises InvalidOption: with QEMU's text.
    """
    said = None if encrypt is None or encrypt.format is None else str(encrypt.format)
    method = header.crypt_method
    if method not in tuple(Crypt):
        signed = method - (1 << 32) if method >> 31 else method
        raise InvalidOption(f"Unsupported encryption method {signed}")
    if method == Crypt.NONE:
        if said is not None:
            raise InvalidOption(
                f"No encryption in image header, but options specified format '{said}'"
            )
        return
    word = _CRYPT_WORDS[Crypt(method)]
    if said not in (None, word):
        raise InvalidOption(
            f"Header reported '{word}' encryption format but options specify '{said}'"
        )
