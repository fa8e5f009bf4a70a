# SPDX-License-Identifier: Apache-2.0
"""Options of the handshake: from a client's bytes to the replies' bytes.

Nothing here waits or knows a socket.  A refusal is an :class:`OptionError`; the
connection lives on.  Texts are QEMU's where it has one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

import attrs

from blockyard_exports_nbd.wire import (
    MAX_STRING,
    Context,
    Info,
    Mode,
    Option,
    Reply,
    TransmissionFlag,
    info_reply,
    option_name,
    option_reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "MAX_PAYLOAD",
    "ExportView",
    "OptionError",
    "Session",
    "describe",
    "export_flags",
    "list_exports",
    "meta_contexts",
    "parse_info",
    "set_mode",
    "starttls",
]

#: Bytes of the largest READ or WRITE; QEMU's limit and the protocol's recommendation.
MAX_PAYLOAD = 32 * 1024 * 1024
_NAMESPACES = ("base:", "qemu:", "qemu:dirty-bitmap:")


class ExportView(Protocol):
    """What the handshake must know of an export."""

    @property
    def name(self) -> str:
        """What clients ask for."""
        ...

    @property
    def description(self) -> str | None:
        """Text for people."""
        ...

    @property
    def size(self) -> int:
        """Bytes, now."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        ...

    @property
    def multi_conn(self) -> bool:
        """Whether several connections see the same data."""
        ...

    @property
    def minimum_block(self) -> int:
        """The smallest request without read-modify-write, a power of two."""
        ...

    @property
    def allocation_depth(self) -> bool:
        """Whether ``qemu:allocation-depth`` is shown."""
        ...

    @property
    def bitmap_names(self) -> Sequence[str]:
        """The dirty bitmaps that are shown, in the order of their contexts."""
        ...


class OptionError(Exception):
    """Raised when an option is answered with an error; ``reply`` is its type."""

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


@attrs.define(eq=False, repr=False)
class Session:
    """What one client has negotiated so far."""

    #: The exports it may choose, by name.
    exports: Mapping[str, ExportView]
    mode: Mode = Mode.SIMPLE
    #: The export that ``contexts`` were chosen for.
    meta_export: ExportView | None = None
    #: Ids; see :class:`Context`.
    contexts: frozenset[int] = frozenset()

    def find(self, name: str) -> ExportView:
        """The export of that name.

        :raises OptionError: if there is none.
        """
        if (export := self.exports.get(name)) is None:
            shown = name if len(name) < 80 else f"{name[:80]}..."
            raise OptionError(Reply.ERR_UNKNOWN, f"export '{shown}' not present")
        return export

    def choose(self, export: ExportView) -> None:
        """Transmission is about to begin; contexts of another export do not count."""
        if export is not self.meta_export:
            self.contexts = frozenset()


class _Data:
    """An option's data, read from the front."""

    def __init__(self, option: int, data: bytes) -> None:
        self.option = option
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise OptionError(
                Reply.ERR_INVALID, f"Inconsistent lengths in option {option_name(self.option)}"
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def text(self, length: int) -> str:
        raw = self.take(length)
        if b"\0" in raw:
            raise OptionError(
                Reply.ERR_INVALID, f"Unexpected embedded NUL in option {option_name(self.option)}"
            )
        return raw.decode("utf-8", "surrogateescape")

    def name(self) -> str:
        length = self.number(">I")
        if length > MAX_STRING:
            raise OptionError(Reply.ERR_INVALID, f"Invalid name length: {length}")
        return self.text(length)

    def end(self) -> None:
        if self._at < len(self._data):
            raise _unexpected_length(self.option)


def _unexpected_length(option: int) -> OptionError:
    return OptionError(Reply.ERR_INVALID, f"option '{option_name(option)}' has unexpected length")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def export_flags(
    export: ExportView, mode: Mode, contexts: Iterable[int] = (), *, ask: bool = False
) -> TransmissionFlag:
    """The transmission flags of ``export`` for such a client; ``ask``: it only inquires."""
    flag = TransmissionFlag
    flags = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.SEND_CACHE
    if export.read_only:
        flags |= flag.READ_ONLY
    else:
        flags |= flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO
    if export.multi_conn:
        flags |= flag.CAN_MULTI_CONN
    if mode >= Mode.STRUCTURED:
        flags |= flag.SEND_DF
    if mode >= Mode.EXTENDED and (ask or any(True for _ in contexts)):
        flags |= flag.BLOCK_STATUS_PAYLOAD
    return flags


def set_mode(session: Session, option: Option, data: bytes) -> bytes:
    """STRUCTURED_REPLY and EXTENDED_HEADERS.

    :raises OptionError: if it was negotiated already, or has data.
    """
    wanted = Mode.EXTENDED if option == Option.EXTENDED_HEADERS else Mode.STRUCTURED
    if data:
        raise _unexpected_length(option)
    if session.mode >= wanted:
        extended = session.mode == Mode.EXTENDED
        kind = Reply.ERR_EXT_HEADER_REQD if extended > (wanted == Mode.EXTENDED) else None
        what = "extended headers" if extended else "structured reply"
        raise OptionError(kind or Reply.ERR_INVALID, f"{what} already negotiated")
    session.mode = wanted
    return option_reply(option, Reply.ACK)


def starttls(data: bytes) -> bytes:
    """STARTTLS on a server without TLS credentials ("NOTLS mode").

    :raises OptionError: always.
    """
    if data:
        raise _unexpected_length(Option.STARTTLS)
    raise OptionError(Reply.ERR_POLICY, "TLS not configured")


def list_exports(session: Session, data: bytes) -> bytes:
    """LIST: a reply for each export, and the last.

    :raises OptionError: if it has data.
    """
    if data:
        raise _unexpected_length(Option.LIST)
    replies = []
    for export in session.exports.values():
        name = _raw(export.name)
        text = struct.pack(">I", len(name)) + name + _raw(export.description or "")
        replies.append(option_reply(Option.LIST, Reply.SERVER, text))
    replies.append(option_reply(Option.LIST, Reply.ACK))
    return b"".join(replies)


@attrs.frozen(eq=False, repr=False)
class InfoRequest:
    """The data of INFO or GO."""

    name: str
    wants_name: bool
    wants_block_size: bool


def parse_info(option: int, data: bytes) -> InfoRequest:
    """What INFO or GO asks for.

    :raises OptionError: if the lengths in it do not fit.
    """
    reader = _Data(option, data)
    name = reader.name()
    wanted = {reader.number(">H") for _ in range(reader.number(">H"))}
    reader.end()
    return InfoRequest(name, Info.NAME in wanted, Info.BLOCK_SIZE in wanted)


def describe(
    session: Session, option: int, request: InfoRequest, export: ExportView, size: int
) -> bytes:
    """The NBD_REP_INFO replies to INFO or GO; ``size`` is what the client is promised."""
    ask = option == Option.INFO
    replies = []
    if request.wants_name:
        replies.append(info_reply(option, Info.NAME, _raw(request.name)))
    if export.description is not None:
        replies.append(info_reply(option, Info.DESCRIPTION, _raw(export.description)))
    # A client that did not ask is not held to the real minimum.
    minimum = export.minimum_block if ask or request.wants_block_size else 1
    sizes = struct.pack(">III", minimum, max(4096, minimum), MAX_PAYLOAD)
    replies.append(info_reply(option, Info.BLOCK_SIZE, sizes))
    flags = export_flags(export, session.mode, session.contexts, ask=ask)
    replies.append(info_reply(option, Info.EXPORT, struct.pack(">QH", size, flags)))
    return b"".join(replies)


# -- metadata contexts


def meta_contexts(session: Session, option: Option, data: bytes) -> bytes:
    """LIST_META_CONTEXT and SET_META_CONTEXT ("Metadata querying").

    A SET that fails has cleared what was set before.

    :raises OptionError: if it is malformed, comes too early or names no export.
    """
    listing = option == Option.LIST_META_CONTEXT
    if not listing:
        session.contexts, session.meta_export = frozenset(), None
        if session.mode < Mode.STRUCTURED:
            raise OptionError(
                Reply.ERR_INVALID,
                f"request option '{option_name(option)}' when structured reply is not negotiated",
            )
    reader = _Data(option, data)
    export = session.find(reader.name())
    found = _matching(export, _queries(reader), listing)
    if not listing:
        session.contexts, session.meta_export = frozenset(found), export
    return _context_replies(option, found, listing)


def _queries(reader: _Data) -> list[str]:
    queries = []
    for _ in range(reader.number(">I")):
        length = reader.number(">I")
        if length > MAX_STRING:
            reader.take(length)  # no context has so long a name
        else:
            queries.append(reader.text(length))
    reader.end()
    return queries


def _available(export: ExportView) -> dict[int, str]:
    """The contexts of an export: full names by id."""
    found = {int(Context.ALLOCATION): "base:allocation"}
    if export.allocation_depth:
        found[Context.DEPTH] = "qemu:allocation-depth"
    for context, name in enumerate(export.bitmap_names, Context.BITMAP):
        found[context] = f"qemu:dirty-bitmap:{name}"
    return found


def _matching(export: ExportView, queries: list[str], listing: bool) -> dict[int, str]:
    available = _available(export)
    if listing and not queries:
        return available
    # Of bitmaps of one name (they are different nodes') the first is meant.
    wanted = {name: context for context, name in reversed(available.items())}
    found = {wanted[query] for query in queries if query in wanted}
    if listing:
        # A namespace alone is a wildcard, but only to look around.
        spaces = tuple(query for query in queries if query in _NAMESPACES)
        found |= {c for c, name in available.items() if spaces and name.startswith(spaces)}
    return {context: available[context] for context in sorted(found)}


def _context_replies(option: int, found: Mapping[int, str], listing: bool) -> bytes:
    replies = [
        option_reply(
            option,
            Reply.META_CONTEXT,
            struct.pack(">I", 0 if listing else context) + _raw(name),
        )
        for context, name in found.items()
    ]
    return b"".join([*replies, option_reply(option, Reply.ACK)])
