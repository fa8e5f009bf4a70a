# SPDX-License-Identifier: Apache-2.0
"""The careful way into JSON: a lexer that can stop after any byte.

It is an automaton over bytes, as QEMU documents its own: a token ends where the
next byte cannot continue it, a byte that nothing allows makes an error of the
token so far, and after an error bytes are skipped until one that can be the
start of something good (docs/interop/qmp-spec, "Compatibility considerations").
"""

from __future__ import annotations

import re
from typing import Any

from blockyard.schema.jsonvalue import JsonError, ValueBuilder, printable

__all__ = ["MAX_NESTING", "MAX_TOKENS", "MAX_TOKEN_SIZE", "JsonLexer"]

#: Bytes of all tokens of one value.
MAX_TOKEN_SIZE = 64 << 20
#: Tokens of one value.
MAX_TOKENS = 2 << 20
#: Open braces and brackets.
MAX_NESTING = 1024

_STRUCTURE = b"{}[]:,"
_DIGITS = b"0123456789"
_SPACE = b" \t\r\n"

#: In each state, the bytes that lead to another: (bytes, next state).
_RULES: dict[str, tuple[tuple[bytes, str], ...]] = {
    "start": (
        (_SPACE, "start"),
        (_STRUCTURE, "token"),
        (b'"', "double"),
        (b"'", "single"),
        (b"-", "sign"),
        (b"0", "zero"),
        (b"123456789", "digits"),
        (bytes(range(ord("a"), ord("z") + 1)), "word"),
    ),
    "double": ((b'"', "token"), (b"\\", "double-escape")),
    "double-escape": ((bytes(range(0x20, 0xFE)), "double"),),
    "single": ((b"'", "token"), (b"\\", "single-escape")),
    "single-escape": ((bytes(range(0x20, 0xFE)), "single"),),
    "sign": ((b"0", "zero"), (b"123456789", "digits")),
    "zero": ((b".", "point"), (_DIGITS, "error")),
    "digits": ((b".", "point"), (b"eE", "exponent")),
    "point": ((_DIGITS, "fraction"),),
    "fraction": ((b"eE", "exponent"),),
    "exponent": ((b"+-", "exponent-sign"), (_DIGITS, "exponent-digits")),
    "exponent-sign": ((_DIGITS, "exponent-digits"),),
    "exponent-digits": (),
    "word": (),
    "skip": (),
}
_NEXT = {
    state: {byte: after for some, after in rules for byte in some}
    for state, rules in _RULES.items()
}

#: In each state, what keeps it.
_RUN = {
    "double": re.compile(rb'[^\x00-\x1f"\\\xfe\xff]*'),
    "single": re.compile(rb"[^\x00-\x1f'\\\xfe\xff]*"),
    "digits": re.compile(rb"[0-9]*"),
    "fraction": re.compile(rb"[0-9]*"),
    "exponent-digits": re.compile(rb"[0-9]*"),
    "word": re.compile(rb"[a-z]*"),
    # Damaged text ends at a structural byte, a line end, or a byte that UTF-8 never has.
    "skip": re.compile(rb"[^\x00-\x08\x0a-\x1f{}\[\]:,\xfe\xff]*"),
    "start": re.compile(rb"[ \t\r\n]*"),
}

#: States whose token is complete when a byte comes that does not continue it.
_ENDS = {"zero": "integer", "digits": "integer", "fraction": "real", "exponent-digits": "real"}
_ENDS["word"] = "word"


#: Bytes of a sentence that QEMU keeps.
_LONGEST_SENTENCE = 1023


class JsonLexer:
    """Cuts bytes into tokens, and has a builder make values of them."""

    def __init__(self) -> None:
        self._state = "start"
        self._text = bytearray()
        #: Where the last byte was: lines from 1, columns in bytes from 1.
        self.line = 1
        self.column = 0
        self._start = (1, 1)
        #: Whether the next byte has ended a token already, which moves it in QEMU's count.
        self._seen = False
        self._reset()

    def _reset(self) -> None:
        self._builder = ValueBuilder()
        #: Whether an error was told; then nothing more is until the brackets are closed.
        self._damaged = False
        self._tokens = 0
        self._size = 0
        self._braces = 0
        self._brackets = 0

    @property
    def idle(self) -> bool:
        """Whether no value has begun."""
        return self._state == "start" and not self._damaged and not self._builder.begun

    def feed(self, data: bytes) -> list[Any]:
        """The values, and errors as :class:`JsonError`, that ``data`` completes."""
        found: list[Any] = []
        position = 0
        while position < len(data):
            position = self._run(data, position, found)
            if position < len(data):
                position = self._step(data, position, found)
        return found

    def finish(self) -> list[Any]:
        """What the end of the input completes."""
        found: list[Any] = []
        ends = _ENDS.get(self._state)
        if ends is not None:
            self._token(ends, found)
            self._seen = True
        elif self._state not in ("start", "skip"):
            self._stray(found)
        if not self.idle and not self._damaged and self._builder.begun:
            self._start = (self.line, self.column + 1 + self._seen)
            self._wrong("premature end of input", found)
        self._state = "start"
        self._reset()
        return found

    def _run(self, data: bytes, position: int, found: list[Any]) -> int:
        """Take the bytes that keep the state; the result is where they end."""
        pattern = _RUN.get(self._state)
        if pattern is None or self._seen:
            return position
        room = MAX_TOKEN_SIZE + 1 - len(self._text)
        end = pattern.match(data, position, position + room).end()  # type: ignore[union-attr]
        self._advance(data, position, end)
        if self._state not in ("start", "skip"):
            self._text += data[position:end]
            self._check_length(found)
        return end

    def _advance(self, data: bytes, position: int, end: int) -> None:
        lines = data.count(b"\n", position, end)
        if lines:
            self.line += lines
            self.column = end - 1 - data.rindex(b"\n", position, end)
        else:
            self.column += end - position

    def _step(self, data: bytes, position: int, found: list[Any]) -> int:
        """Take one byte that changes the state, or none when it only ends a token."""
        byte = data[position]
        if self._state == "skip":
            self._state, self._seen = "start", True
            return position
        after = _NEXT[self._state].get(byte)
        if after is None and self._state in _ENDS:
            self._token(_ENDS[self._state], found)
            self._seen = True
            return position
        if self._state == "start":
            self._start = (self.line, self.column + 1 + self._seen)
        self._seen = False
        self._advance(data, position, position + 1)
        if after != "start":
            self._text.append(byte)
            self._enter(after, byte, found)
        return position + 1

    def _enter(self, after: str | None, byte: int, found: list[Any]) -> None:
        if after == "token":
            self._token(chr(byte) if byte in _STRUCTURE else "string", found)
        elif after is None or after == "error":
            self._stray(found)
            self._state = "skip"
        else:
            self._state = after
            self._check_length(found)

    def _check_length(self, found: list[Any]) -> None:
        if len(self._text) > MAX_TOKEN_SIZE:
            self._token("part", found)

    def _token(self, kind: str, found: list[Any]) -> None:
        text = bytes(self._text)
        self._text.clear()
        self._state = "start"
        self._braces += (kind == "{") - (kind == "}")
        self._brackets += (kind == "[") - (kind == "]")
        if not self._damaged:
            self._push(kind, text, found)
        if self._builder.complete:
            found.append(self._builder.value)
            self._reset()
        elif self._closed():
            self._reset()

    def _closed(self) -> bool:
        if self._braces < 0 or self._brackets < 0:
            return True
        return not self._braces and not self._brackets

    def _push(self, kind: str, text: bytes, found: list[Any]) -> None:
        refusal = self._over_limit(len(text))
        if refusal:
            self._damaged = True
            found.append(JsonError(refusal))
            return
        self._size += len(text)
        self._tokens += 1
        try:
            self._builder.push(kind, text)
        except JsonError as error:
            self._wrong(str(error), found)

    def _over_limit(self, size: int) -> str | None:
        if self._size + size + 1 > MAX_TOKEN_SIZE:
            return "JSON token size limit exceeded"
        if self._tokens + 1 > MAX_TOKENS:
            return "JSON token count limit exceeded"
        if self._braces + self._brackets > MAX_NESTING:
            return "JSON nesting depth limit exceeded"
        return None

    def _stray(self, found: list[Any]) -> None:
        text = printable(self._text)
        self._text.clear()
        if not self._damaged:
            self._wrong(f"stray '{text}'", found)
        self._reset()

    def _wrong(self, text: str, found: list[Any]) -> None:
        kept = text.encode("utf-8", "replace")[:_LONGEST_SENTENCE]
        line, column = self._start
        sentence = kept.decode("utf-8", "replace")
        found.append(JsonError(f"{line}:{column}: JSON parse error, {sentence}"))
        self._damaged = True
