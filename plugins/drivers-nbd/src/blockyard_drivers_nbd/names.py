# SPDX-License-Identifier: Apache-2.0
"""Names of NBD disks: what they open, and what an opened disk is called.

``nbd:host:port[:exportname=NAME]`` and ``nbd:unix:PATH[:exportname=NAME]`` are QEMU's
older names; URIs are those of NetworkBlockDevice/nbd ``doc/uri.md``, ``nbd://``,
``nbd+tcp://`` and ``nbd+unix://``.  The errors are QEMU's.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from blockyard.errors import InvalidOption

__all__ = ["DEFAULT_PORT", "adapt_options", "exact_filename", "parse_filename"]

DEFAULT_PORT = 10809
_MAX_PORT = 65535
_EXPORT = ":exportname="
#: The longest name that is shown.
_LIMIT = 4095
_URI = re.compile(
    r"""nbd(?:\+(?P<kind>tcp|unix))?://
        (?:[^/?#@]*@)?
        (?P<host>\[[^]/?#]*\]|[^:/?#]*)
        (?::(?P<port>[0-9]*))?
        (?P<path>/[^?#]*)?
        (?:\?(?P<query>[^#]*))?
        (?:\#.*)?""",
    re.VERBOSE | re.DOTALL,
)
_BAD_ESCAPE = re.compile(r"%(?:00|(?![0-9A-Fa-f]{2}))")


def parse_filename(name: str) -> dict[str, Any]:
    """What blockdev-add takes for a disk of this name, without ``driver``.

    :raises InvalidOption: if it is none.
    """
    if "://" in name:
        return _from_uri(name)
    if not name.startswith("nbd:"):
        raise InvalidOption("File name string for NBD must start with 'nbd:'")
    address, marker, export = name.removeprefix("nbd:").partition(_EXPORT)
    if not address or (marker and not export):
        raise InvalidOption("NBD server address missing")
    options = {"server": _legacy_address(address)}
    return options | ({"export": export} if marker else {})


# -- older names


def _legacy_address(text: str) -> dict[str, Any]:
    if text.startswith("unix:"):
        return {"type": "unix", "path": text.removeprefix("unix:")}
    host, port = _host_and_port(text)
    return _inet(host, port)


def _host_and_port(text: str) -> tuple[str, str]:
    """What follows a comma is for listening, and of no meaning here."""
    if text.startswith(":"):
        pattern, what = r"()?:([^,]+)", "port in address"
    elif text.startswith("["):
        pattern, what = r"\[([^]]+)\]:([^,]+)", "IPv6 address"
    else:
        pattern, what = r"([^:]+):([^,]+)", "address"
    if not (found := re.match(pattern, text, re.DOTALL)):
        raise InvalidOption(f"error parsing {what} '{text}'")
    return found[1] or "", found[2]


def _inet(host: str, port: str) -> dict[str, Any]:
    return {"type": "inet", "host": host, "port": port}


# -- URIs


def _from_uri(name: str) -> dict[str, Any]:
    found = _URI.fullmatch(name)
    if not found or _BAD_ESCAPE.search(name.partition("#")[0]):
        raise InvalidOption("No valid URL specified")
    server = _unix_server(found) if found["kind"] == "unix" else _inet_server(found)
    export = unquote((found["path"] or "")[1:], errors="surrogateescape")
    return {"server": server, **({"export": export} if export else {})}


def _unix_server(found: re.Match[str]) -> dict[str, Any]:
    if found["host"] or found["port"]:
        raise InvalidOption("No valid URL specified")
    pairs = [pair.partition("=") for pair in (found["query"] or "").split("&") if pair]
    names = {unquote(key) for key, _, _ in pairs}
    if names != {"socket"} or not all(mark for _, mark, _ in pairs):
        raise InvalidOption("No valid URL specified")
    return {"type": "unix", "path": unquote(pairs[-1][2], errors="surrogateescape")}


def _inet_server(found: re.Match[str]) -> dict[str, Any]:
    host = unquote(found["host"], errors="surrogateescape")
    port = int(found["port"] or 0)
    if not host or found["query"] or port > _MAX_PORT:
        raise InvalidOption("No valid URL specified")
    if host.startswith("["):
        host = host[1:-1]
    return _inet(host, str(port or DEFAULT_PORT))


# -- options that only names and the command lines of programs may have


def adapt_options(options: dict[str, Any]) -> dict[str, Any]:
    """``host`` and ``port``, or ``path``, as ``server``; ``filename`` means nothing here.

    :raises InvalidOption: if they contradict each other, or there is no server.
    """
    rest = {key: value for key, value in options.items() if key != "filename"}
    old = {key: rest.pop(key) for key in ("path", "host", "port") if key in rest}
    if "server" in rest:
        if old:
            raise InvalidOption("Cannot use 'server' and path/host/port at the same time")
        return rest
    if "path" in old and "host" in old:
        raise InvalidOption("path and host may not be used at the same time")
    if "path" in old and "port" in old:
        raise InvalidOption("port may not be used without host")
    if "path" in old:
        return rest | {"server": {"type": "unix", "path": old["path"]}}
    if "host" not in old:
        raise InvalidOption("NBD server address missing")
    return rest | {"server": _inet(str(old["host"]), str(old.get("port", DEFAULT_PORT)))}


# -- what a disk is called


def exact_filename(server: dict[str, Any], export: str | None) -> str | None:
    """The URI of an export of a server, as QEMU shows it: nothing is escaped.

    ``server`` is a SocketAddress as the schema dumps it.  None if no URI says it all.
    """
    path = "" if export is None else f"/{export}"
    if server["type"] == "unix":
        name = f"nbd+unix://{path}?socket={server['path']}"
    elif server["type"] == "inet" and not server.keys() & {"to", "ipv4", "ipv6", "numeric"}:
        name = f"nbd://{server['host']}:{server['port']}{path}"
    else:
        return None
    return name if len(name.encode(errors="surrogateescape")) <= _LIMIT else None
