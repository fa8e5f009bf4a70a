# SPDX-License-Identifier: Apache-2.0
"""``--chardev``: the older form of options, which is not QAPI's keyval.

``socket,id=m,path=/run/qmp.sock,server=on,wait=off``: a flat list of known keys; a bool may
stand alone (``server``) or negated (``nowait``); a comma in a value is doubled.
"""

from __future__ import annotations

import re
from typing import Any

from blockyard.entrypoints import load_object
from blockyard.errors import InvalidOption
from blockyard.identifier import identifier_ok
from blockyard.schema.chardevkinds import (
    ChardevCommon,
    ChardevFile,
    ChardevHostdev,
    ChardevPty,
    ChardevRingbuf,
    ChardevSocket,
    ChardevStdio,
)
from blockyard.schema.keyvalvisitor import parse_size
from blockyard.schema.structure import visit

__all__ = [
    "ChardevLine",
    "parse_file",
    "parse_line",
    "parse_null",
    "parse_pipe",
    "parse_pty",
    "parse_ringbuf",
    "parse_socket",
    "parse_stdio",
]

_BOOLS = frozenset({
    "abstract", "append", "clipboard", "delay", "ipv4", "ipv6", "logappend", "logtimestamp",
    "mouse", "mux", "nodelay", "server", "signal", "telnet", "tight", "tn3270", "wait",
    "websocket",
})  # fmt: skip
_NUMBERS = frozenset({
    "cols", "debug", "height", "reconnect-ms", "rows", "to", "width",
})  # fmt: skip
_STRINGS = frozenset({
    "backend", "chardev", "chardevs.0", "chardevs.1", "chardevs.2", "chardevs.3", "encoding",
    "fd", "host", "id", "input-path", "localaddr", "localport", "logfile", "name", "path",
    "port", "tls-authz", "tls-creds",
})  # fmt: skip
_ITEM = re.compile(r"(?P<key>[^=,]*)(?:=(?P<value>(?:[^,]|,,)*))?(?:,|\Z)", re.DOTALL)
_WORDS = {"on": True, "yes": True, "true": True, "y": True}
_NO_WORDS = {"off": False, "no": False, "false": False, "n": False}
_UINT64 = 1 << 64


class ChardevLine:
    """A chardev as the command line says it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        #: The label; None if it was left out.
        self.label: str | None = values.get("id")
        #: The kind; None if it was left out.
        self.kind: str | None = values.get("backend")

    def options(self, parse: str) -> Any:
        """The ``data`` of its kind, made by the function that the declaration names.

        :raises InvalidOption: with QEMU's text.
        """
        return load_object(parse)(self)  # type: ignore[operator]

    def need(self, key: str, what: str) -> str:
        """The value of a string option that must be there.

        :raises InvalidOption: with ``what`` if it is not.
        """
        if key not in self.values:
            raise InvalidOption(what)
        return str(self.values[key])

    def common(self) -> dict[str, Any]:
        """What every chardev has, as QMP's data."""
        return self.pick("logfile", "logappend", "logtimestamp")

    def pick(self, *keys: str) -> dict[str, Any]:
        """Those of the options that are there."""
        return {key: self.values[key] for key in keys if key in self.values}


def parse_line(text: str) -> ChardevLine:
    """Take ``--chardev``'s argument apart and check each value.

    :raises InvalidOption: with QEMU's text.
    """
    values: dict[str, Any] = {}
    position = 0
    while position < len(text):
        item = _ITEM.match(text, position)
        assert item is not None
        key, value = item["key"], item["value"]
        if value is None and position == 0:
            key, value = "backend", key
        if value is None:
            key, value = _flag(key)
        # Of a key that is given more than once the last value holds.
        values[key] = value.replace(",,", ",")
        position = item.end()
    label = values.get("id")
    if label is not None and not identifier_ok(label):
        raise InvalidOption(
            "Parameter 'id' expects an identifier\n"
            "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
        )
    return ChardevLine({key: _typed(key, value) for key, value in values.items()})


def _flag(key: str) -> tuple[str, str]:
    if key.startswith("no") and key[2:] in _BOOLS:
        return key[2:], "off"
    return key, "on"


def _typed(key: str, value: str) -> Any:
    if key in _BOOLS:
        return _bool(key, value)
    if key in _NUMBERS:
        return _number(key, value)
    if key == "size":
        return _size(value)
    if key in _STRINGS:
        return value
    raise InvalidOption(f"Invalid parameter '{key}'")


def _bool(key: str, value: str) -> bool:
    known = {**_WORDS, **_NO_WORDS}
    if value not in known:
        raise InvalidOption(f"Parameter '{key}' expects 'on' or 'off'")
    return known[value]


def _number(key: str, value: str) -> int:
    try:
        number = int(value, 0) if not re.fullmatch(r"0[0-7]+", value) else int(value, 8)
    except ValueError:
        number = -1
    if not 0 <= number < _UINT64:
        raise InvalidOption(f"Parameter '{key}' expects a number")
    return number


def _size(value: str) -> int:
    number = parse_size(value)
    if number is None:
        raise InvalidOption(
            "Parameter 'size' expects a non-negative number below 2^64\n"
            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
            "and exabytes, respectively."
        )
    return number


# -- a function for each kind


def parse_null(line: ChardevLine) -> ChardevCommon:
    """``null``."""
    return visit(ChardevCommon, line.common())


def parse_file(line: ChardevLine) -> ChardevFile:
    """``file,path=[,input-path=][,append=]``."""
    data = {"out": line.need("path", "chardev: file: no filename given"), **line.common()}
    if "input-path" in line.values:
        data["in"] = line.values["input-path"]
    return visit(ChardevFile, {**data, **line.pick("append")})


def parse_pipe(line: ChardevLine) -> ChardevHostdev:
    """``pipe,path=``."""
    device = line.need("path", "chardev: pipe: no device path given")
    return visit(ChardevHostdev, {"device": device, **line.common()})


def parse_pty(line: ChardevLine) -> ChardevPty:
    """``pty[,path=]``."""
    return visit(ChardevPty, {**line.pick("path"), **line.common()})


def parse_stdio(line: ChardevLine) -> ChardevStdio:
    """``stdio[,signal=]``."""
    return visit(ChardevStdio, {**line.pick("signal"), **line.common()})


def parse_ringbuf(line: ChardevLine) -> ChardevRingbuf:
    """``ringbuf[,size=]``."""
    size = {"size": line.values["size"]} if line.values.get("size") else {}
    return visit(ChardevRingbuf, {**size, **line.common()})


def parse_socket(line: ChardevLine) -> ChardevSocket:
    """``socket,path=|host=,port=|fd=[,server=][,wait=][,reconnect-ms=]...``."""
    if len(line.pick("path", "fd", "host")) > 1:
        raise InvalidOption("None or one of 'path', 'fd' or 'host' option required.")
    if "host" in line.values and "port" not in line.values:
        raise InvalidOption("chardev: socket: no port given")
    if "delay" in line.values and "nodelay" in line.values:
        raise InvalidOption("'delay' and 'nodelay' are mutually exclusive")
    server = bool(line.values.get("server"))
    data = {
        **line.common(),
        **line.pick("telnet", "tn3270", "websocket", "tls-creds", "tls-authz", "nodelay", "wait"),
        **line.pick("reconnect-ms"),
        "server": server,
        "addr": _address(line),
    }
    if server:
        # Here a server waits unless told not to; QMP's default is the other one.
        data.setdefault("wait", True)
    if "delay" in line.values:
        data["nodelay"] = not line.values["delay"]
    return visit(ChardevSocket, data)


def _address(line: ChardevLine) -> dict[str, Any]:
    """The address as QMP's data."""
    values = line.values
    if "path" in values:
        data = {"path": values["path"], **line.pick("abstract", "tight")}
        return {"type": "unix", "data": data}
    if "host" in values:
        data = {"host": values["host"], "port": values["port"], **line.pick("to", "ipv4", "ipv6")}
        return {"type": "inet", "data": data}
    return {"type": "fd", "data": {"str": values.get("fd", "")}}
