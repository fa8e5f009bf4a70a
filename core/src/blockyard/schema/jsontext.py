# SPDX-License-Identifier: Apache-2.0
r"""QMP's JSON, in and out.

The parser is fed bytes as they arrive and answers with the values that became
complete, errors among them in place.  It takes QEMU's dialect: strings in single
quotes, ``\'``, and modified UTF-8 (docs/interop/qmp-spec, "General definitions";
RFC 8259).  A line that stands alone and is plain goes through the standard
library; everything else through :mod:`blockyard.schema.jsonlexer`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from blockyard.errors import BlockyardError
from blockyard.schema.jsonvalue import JsonError, convert_integer

__all__ = ["JsonError", "JsonParser", "dumps", "parse"]

#: Longest line that the standard library may see: its tokens cannot exceed the limits.
_SHORT = 1 << 20
_LINE = re.compile(rb"[^\n]*\n?")
_LOWER_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.)")


class JsonParser:
    """Cuts a stream of bytes into JSON values.

    Limits are QEMU's: 64 MiB and 2 Mi tokens to a value, 1024 levels.  After an error the
    rest of the damaged text is skipped up to the next structural character or line end.
    """

    def __init__(self) -> None:
        self._lexer: Any = None
        # Where the last byte was, while there is no lexer that counts.
        self.line = 1
        self.column = 0

    def feed(self, data: bytes) -> list[Any]:
        """The values that ``data`` completes; an error is a :class:`JsonError` among them."""
        if self._lexer is not None and not self._lexer.idle:
            return self._slow(data)
        found: list[Any] = []
        position = 0
        while position < len(data):
            line = _LINE.match(data, position)
            assert line is not None
            values = _plain(line[0])
            if values is None:
                found += self._slow(line[0])
                if not self._lexer.idle:
                    return found + self._slow(data[line.end() :])
            else:
                found += values
                self._skip(line[0])
            position = line.end()
        return found

    def finish(self) -> list[Any]:
        """What the end of the input completes: a number or word, or an error."""
        return self._lexer.finish() if self._lexer is not None else []

    def _skip(self, line: bytes) -> None:
        """Count a line that the lexer does not see."""
        counts = self if self._lexer is None else self._lexer
        if line.endswith(b"\n"):
            counts.line, counts.column = counts.line + 1, 0
        else:
            counts.column += len(line)

    def _slow(self, data: bytes) -> list[Any]:
        if self._lexer is None:
            from blockyard.schema.jsonlexer import JsonLexer

            self._lexer = JsonLexer()
            self._lexer.line, self._lexer.column = self.line, self.column
        found: list[Any] = self._lexer.feed(data)
        return found


class _NotPlainError(ValueError):
    """Raised when the standard library would read a line otherwise than QEMU."""


def _plain(line: bytes) -> list[Any] | None:
    """The one object in a line, none if it is blank; None if it is for the slow way."""
    text = line.strip(b" \t\r\n")
    if not text:
        return []
    if text[:1] != b"{" or len(text) > _SHORT or b"\\u" in text or not text.isascii():
        return None
    try:
        return [_decoder.decode(text.decode("ascii"))]
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotPlainError
    return found


def _real(text: str) -> float:
    # QEMU's lexer ends a number after a leading zero unless a dot follows.
    if text.lstrip("-")[:2] in ("0e", "0E"):
        raise _NotPlainError
    return float(text)


def _refuse(_: str) -> Any:
    raise _NotPlainError


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_real, parse_int=convert_integer, parse_constant=_refuse
)


def parse(data: bytes) -> Any:
    """The one JSON value in ``data``, for options given as JSON.

    :raises JsonError: if there is not exactly one, or it is not well-formed.
    """
    parser = JsonParser()
    values = parser.feed(data) + parser.finish()
    if not values:
        raise JsonError("Expecting a JSON value")
    if isinstance(values[0], BlockyardError):
        raise values[0]
    if len(values) > 1:
        raise JsonError("Expecting at most one JSON value")
    return values[0]


def dumps(value: Any, *, pretty: bool = False) -> str:
    """JSON in ASCII as QEMU writes it: one line, or four spaces a level when ``pretty``."""
    if not pretty:
        try:
            text = _encoder.encode(value)
        except (RecursionError, ValueError):
            pass
        else:
            # The standard library writes the shortest digits that read the same.
            if not _REAL.search(text):
                return _LOWER_ESCAPE.sub(_upper, text) if "\\u" in text else text
    from blockyard.schema.jsonvalue import write

    return write(value, pretty=pretty)


def _upper(match: re.Match[str]) -> str:
    text = match[0]
    return f"\\u{text[2:].upper()}" if len(text) > 2 else text


#: A number that is no integer, or a piece of a string that looks like one.
_REAL = re.compile(r"(?:^|[ \[])-?[0-9]+(?:\.|e[-+])[0-9]")
_encoder = json.JSONEncoder(allow_nan=False, check_circular=False)
