# SPDX-License-Identifier: Apache-2.0
"""From JSON tokens to values and from values to text, without recursion.

QEMU allows 1024 levels, which is more than Python's own stack is sure to have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["JsonError", "ValueBuilder", "convert_integer", "printable", "write"]

#: What a builder expects next.
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _SEPARATOR = range(6)

_WORDS: dict[bytes, bool | None] = {b"true": True, b"false": False, b"null": None}
_ESCAPES = {
    ord('"'): '"',
    ord("'"): "'",
    ord("\\"): "\\",
    ord("/"): "/",
    ord("b"): "\b",
    ord("f"): "\f",
    ord("n"): "\n",
    ord("r"): "\r",
    ord("t"): "\t",
}
_HEX = re.compile(rb"[0-9A-Fa-f]{4}")
_PLAIN = re.compile(rb"[^\\]*")
_SEQUENCE = re.compile(
    rb"[\xc0-\xdf][\x80-\xbf]{0,1}|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xff]|[\x00-\x7f]+"
)
_TO_ESCAPE = re.compile(r'["\\]|[^ -~]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class JsonError(BlockyardError, ValueError):
    """Raised when text is not JSON, or exceeds a limit."""


class ValueBuilder:
    """Makes one value of tokens, as they come."""

    def __init__(self) -> None:
        #: Unclosed containers, each with the key that waits for its value.
        self._open: list[tuple[Any, list[str]]] = []
        self._expect = _VALUE
        self.complete = False
        self.value: Any = None

    @property
    def begun(self) -> bool:
        """Whether there was a token."""
        return self.complete or bool(self._open)

    def push(self, kind: str, text: bytes) -> None:
        """Take the next token: a structural character, or ``string``, ``integer``...

        :raises JsonError: with what was expected; the builder is of no use then.
        """
        expect = self._expect
        if expect in (_VALUE, _VALUE_OR_END):
            self._push_value(kind, text)
        elif expect in (_KEY, _KEY_OR_END):
            self._push_key(kind, text)
        elif expect == _COLON:
            if kind != ":":
                raise JsonError("expecting ':'")
            self._expect = _VALUE
        else:
            self._push_separator(kind)

    def _push_value(self, kind: str, text: bytes) -> None:
        if kind == "{":
            self._open.append(({}, []))
            self._expect = _KEY_OR_END
        elif kind == "[":
            self._open.append(([], []))
            self._expect = _VALUE_OR_END
        elif kind == "]" and self._expect == _VALUE_OR_END:
            self._close()
        elif kind in _SCALARS:
            self._store(_SCALARS[kind](text))
        else:
            raise JsonError("expecting value")

    def _push_key(self, kind: str, text: bytes) -> None:
        if kind == "}" and self._expect == _KEY_OR_END:
            self._close()
        elif kind == "string":
            self._open[-1][1].append(_string(text))
            self._expect = _COLON
        else:
            raise JsonError("expecting key")

    def _push_separator(self, kind: str) -> None:
        is_object = isinstance(self._open[-1][0], dict)
        if kind == ",":
            self._expect = _KEY if is_object else _VALUE
        elif kind == ("}" if is_object else "]"):
            self._close()
        else:
            raise JsonError(f"expected ',' or '{'}' if is_object else ']'}'")

    def _close(self) -> None:
        self._store(self._open.pop()[0])

    def _store(self, value: Any) -> None:
        if not self._open:
            self.complete, self.value = True, value
            return
        container, key = self._open[-1]
        if isinstance(container, list):
            container.append(value)
        elif key[0] in container:
            raise JsonError("duplicate key")
        else:
            container[key.pop()] = value
        self._expect = _SEPARATOR


def convert_integer(text: str | bytes) -> int | float:
    """A number without fraction: an int if 64 bits hold it, signed or unsigned, else a float."""
    if len(text) > 20:
        return float(text)
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else float(number)


def _word(text: bytes) -> bool | None:
    if text not in _WORDS:
        raise JsonError(f"invalid keyword '{text.decode('ascii')}'")
    return _WORDS[text]


def _string(text: bytes) -> str:
    if b"\\" not in text and text.isascii():
        return text[1:-1].decode("ascii")
    return "".join(_pieces(text))


def _pieces(text: bytes) -> Iterator[str]:
    """The parts of a string's token, unescaped, between its quotes."""
    position, end = 1, len(text) - 1
    while position < end:
        if text[position] != ord("\\"):
            plain = _PLAIN.match(text, position, end)
            assert plain is not None
            yield from _decoded(plain[0])
            position = plain.end()
        elif text[position + 1] == ord("u"):
            character, position = _unicode_escape(text, position)
            yield character
        else:
            short = _ESCAPES.get(text[position + 1])
            if short is None:
                raise JsonError("invalid escape sequence in string")
            yield short
            position += 2


def _unicode_escape(text: bytes, start: int) -> tuple[str, int]:
    r"""The character of the ``\u`` escape, or pair of them, at ``start``, and where it ends."""
    code, end = _hex(text, start + 2), start + 6
    if 0xD800 <= code <= 0xDBFF and text[end : end + 2] == b"\\u":
        trailing = _hex(text, end + 2)
        if 0xDC00 <= trailing <= 0xDFFF:
            code, end = 0x10000 + ((code & 0x3FF) << 10 | trailing & 0x3FF), end + 6
        else:
            code = -1
    if not _is_character(code):
        raise JsonError(f"{printable(text[start:end])} is not a valid Unicode character")
    return chr(code), end


def _hex(text: bytes, start: int) -> int:
    match = _HEX.match(text, start)
    return int(match[0], 16) if match else -1


def _is_character(code: int) -> bool:
    """Whether Unicode has the code point, and has it for a character."""
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return False
    return not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE)


def _decoded(data: bytes) -> Iterator[str]:
    for sequence in _SEQUENCE.findall(data):
        character = _decode_sequence(sequence)
        if character is None:
            raise JsonError("invalid UTF-8 sequence in string")
        yield character


def _decode_sequence(sequence: bytes) -> str | None:
    """ASCII, or one character in modified UTF-8, whose U+0000 has two bytes."""
    if sequence == b"\xc0\x80":
        return "\0"
    try:
        text = sequence.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if sequence.isascii() or _is_character(ord(text)) else None


def printable(data: bytes | bytearray) -> str:
    """Bytes as QEMU prints them in an error: to the first NUL, U+FFFD for what is not UTF-8."""
    text = bytes(data).partition(b"\0")[0]
    return "".join(_decode_sequence(part) or "\ufffd" for part in _SEQUENCE.findall(text))


_SCALARS: dict[str, Callable[[bytes], Any]] = {
    "string": _string,
    "integer": convert_integer,
    "real": float,
    "word": _word,
}


def write(value: Any, *, pretty: bool = False) -> str:
    """JSON in ASCII; with ``pretty`` every member on a line of its own."""
    out: list[str] = []
    # What is still to be written: text, or (value, depth).
    todo: list[Any] = [(value, 0)]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item[0], dict | list | tuple):
            container, depth = item
            todo.extend(reversed(list(_spread(container, depth, pretty))))
        else:
            out.append(_write_scalar(item[0]))
    return "".join(out)


def _spread(value: Any, depth: int, pretty: bool) -> Iterator[Any]:
    """The pieces of a container, in order."""
    is_object = isinstance(value, dict)
    indent = "\n" + " " * 4 * (depth + 1) if pretty else ""
    yield "{" if is_object else "["
    for index, item in enumerate(value):
        if index:
            yield "," + (indent or " ")
        elif pretty:
            yield indent
        if is_object:
            yield _quoted(item) + ": "
        yield (value[item] if is_object else item, depth + 1)
    if pretty:
        yield "\n" + " " * 4 * depth
    yield "}" if is_object else "]"


def _write_scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return '"' + _TO_ESCAPE.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"
    return f"\\u{0xFFFD if 0xD800 <= code <= 0xDFFF else code:04X}"
