# SPDX-License-Identifier: Apache-2.0
"""qemu-nbd's command line: what it takes, in which order complaints come, and their words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs

from blockyard.pattern import Pattern
from blockyard_tools.error import ProgramError, report
from blockyard_tools.opening import CACHE_MODES
from blockyard_tools.options import Given, Line, spec
from blockyard_tools.options import parse as parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DEFAULT_PORT", "PROGRAM", "Question", "Settings", "SnapshotChoice", "parse"]

PROGRAM = "qemu-nbd"
DEFAULT_PORT = "10809"
_HINT = f"Try `{PROGRAM} --help' for more information."

_SPEC = spec(
    "help|h", "version|V", "port|p=", "bind|b=", "socket|k=", "shared|e=", "persistent|t",
    "verbose|v", "export-name|x=", "description|D=", "handshake-limit=", "offset|o=",
    "allocation-depth|A", "bitmap|B=", "list|L", "object=", "tls-creds=", "tls-hostname=",
    "tls-authz=", "trace|T=", "fork", "pid-file=", "selinux-label=", "connect|c=",
    "disconnect|d", "format|f=", "read-only|r", "snapshot|s", "load-snapshot|l=", "nocache|n",
    "cache=", "aio=", "discard=", "detect-zeroes=", "image-opts",
)  # fmt: skip

_AIO = ("native", "io_uring", "threads")
_DISCARD = {"ignore": False, "off": False, "unmap": True, "on": True}
_DETECT = ("off", "on", "unmap")
_INT_MAX = (1 << 31) - 1
_UINT64 = 1 << 64
#: What strtol takes: space, a sign, and a number whose beginning tells its base.
_NUMBER = Pattern(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")


class Question(Exception):  # noqa: N818
    """Raised when an option asks for a text and nothing else; ``name`` is the option's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@attrs.frozen
class SnapshotChoice:
    """Which internal snapshot is meant: by id and name, or by either that ``either`` is."""

    either: str | None = None
    id: str | None = None
    name: str | None = None


@attrs.define(kw_only=True)
class Settings:
    """What the command line says."""

    #: The word that is no option: the image, or the device of ``-d``.
    image: str = ""
    port: str | None = None
    bind: str | None = None
    socket: str | None = None
    #: Clients at a time, 0 for any number.
    shared: int = 1
    persistent: bool = False
    verbose: bool = False
    export_name: str | None = None
    description: str | None = None
    #: Seconds; 0 is no limit.
    handshake_limit: int = 10
    #: Bytes of the image that are not shown.
    offset: int = 0
    allocation_depth: bool = False
    bitmaps: list[str] = attrs.field(factory=list)
    listing: bool = False
    objects: list[str] = attrs.field(factory=list)
    tls_creds: str | None = None
    tls_authz: str | None = None
    tls_hostname: str | None = None
    traces: list[str] = attrs.field(factory=list)
    fork: bool = False
    pid_file: str | None = None
    selinux_label: str | None = None
    #: The device of ``-c``.
    device: str | None = None
    disconnect: bool = False
    format: str | None = None
    read_only: bool = False
    snapshot: bool = False
    load_snapshot: SnapshotChoice | None = None
    cache: str | None = None
    aio: str | None = None
    discard: bool | None = None
    detect_zeroes: str = "off"
    image_opts: bool = False


def parse(words: Sequence[str]) -> Settings:
    """The settings that ``words`` make.

    :raises ProgramError: for the first word that is wrong, in qemu-nbd's words.
    :raises Question: for ``--help`` and ``--version``, unless something before is wrong.
    """
    line = _line(words)
    settings = Settings()
    for option in line:
        _apply(settings, option)
    _check_together(settings, line)
    settings.image = line.words[0] if line.words else ""
    return settings


def _line(words: Sequence[str]) -> Line:
    """Split; a question before a mistake is still a question."""
    try:
        return parse_line(words, _SPEC, PROGRAM, f"{PROGRAM}: {_HINT}")
    except ProgramError as error:
        for count in range(len(words)):
            try:
                line = parse_line(words[:count], _SPEC, PROGRAM)
            except ProgramError:
                break
            if asked := next((o.name for o in line if o.name in ("help", "version")), None):
                raise Question(asked) from None
        raise error


def _apply(settings: Settings, option: Given) -> None:
    name, text = option.name, option.argument or ""
    if name in ("help", "version"):
        raise Question(name)
    if name == "object" and ("help" in text or "?" in text):
        _object_question(text)
    if name in _FLAGS:
        setattr(settings, _FLAGS[name], True)
    elif name in _TEXTS:
        setattr(settings, _TEXTS[name], text)
    elif name in _LISTS:
        getattr(settings, _LISTS[name]).append(text)
    else:
        _SETTERS[name](settings, text)


def _object_question(text: str) -> None:
    from blockyard.errors import BlockyardError
    from blockyard_tools.objects import answer_question

    try:
        if answer_question(text):
            raise Question("object")
    except BlockyardError as error:
        raise ProgramError(PROGRAM, str(error)) from error


_FLAGS = {
    "persistent": "persistent", "verbose": "verbose", "allocation-depth": "allocation_depth",
    "list": "listing", "fork": "fork", "disconnect": "disconnect", "read-only": "read_only",
    "snapshot": "snapshot", "image-opts": "image_opts",
}  # fmt: skip
_TEXTS = {
    "port": "port", "bind": "bind", "export-name": "export_name", "description": "description",
    "tls-creds": "tls_creds", "tls-authz": "tls_authz", "tls-hostname": "tls_hostname",
    "pid-file": "pid_file", "selinux-label": "selinux_label", "connect": "device",
    "format": "format",
}  # fmt: skip
_LISTS = {"bitmap": "bitmaps", "object": "objects", "trace": "traces"}


# -- options that are checked where they stand


def _socket(settings: Settings, text: str) -> None:
    if not text.startswith("/"):
        raise ProgramError(PROGRAM, "socket path must be absolute")
    settings.socket = text


def _shared(settings: Settings, text: str) -> None:
    settings.shared = _small_number(text, "shared device number")


def _handshake_limit(settings: Settings, text: str) -> None:
    settings.handshake_limit = _small_number(text, "handshake limit")


def _small_number(text: str, what: str) -> int:
    found = _number(text)
    if found is None or not 0 <= found <= _INT_MAX:
        raise ProgramError(PROGRAM, f"Invalid {what} '{text}'")
    return found


def _offset(settings: Settings, text: str) -> None:
    found = _number(text)
    if found is None or not -_UINT64 < found < _UINT64:
        raise ProgramError(PROGRAM, f"Invalid offset '{text}'")
    # 64 bits, which the raw driver takes for a number with a sign.
    wrapped = found % _UINT64
    settings.offset = wrapped - _UINT64 if wrapped >> 63 else wrapped


def _number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    base = 16 if hexadecimal else 8 if octal else 10
    found = int(hexadecimal or octal or decimal, base)
    return -found if sign == "-" else found


def _cache(settings: Settings, text: str) -> None:
    if settings.cache is not None:
        raise ProgramError(PROGRAM, "-n and --cache can only be specified once")
    if text not in CACHE_MODES:
        raise ProgramError(PROGRAM, f"Invalid cache mode `{text}'")
    settings.cache = text


def _aio(settings: Settings, text: str) -> None:
    if settings.aio is not None:
        raise ProgramError(PROGRAM, "--aio can only be specified once")
    if text not in _AIO:
        raise ProgramError(PROGRAM, f"Invalid aio mode '{text}'")
    settings.aio = text


def _discard(settings: Settings, text: str) -> None:
    if settings.discard is not None:
        raise ProgramError(PROGRAM, "--discard can only be specified once")
    if text not in _DISCARD:
        raise ProgramError(PROGRAM, f"Invalid discard mode `{text}'")
    settings.discard = _DISCARD[text]


def _detect_zeroes(settings: Settings, text: str) -> None:
    if text not in _DETECT:
        raise ProgramError(
            PROGRAM, f"Failed to parse detect_zeroes mode: invalid parameter value: {text}"
        )
    if text == "unmap" and not settings.discard:
        raise ProgramError(
            PROGRAM,
            "setting detect-zeroes to unmap is not allowed without setting discard operation "
            "to unmap",
        )
    settings.detect_zeroes = text


def _load_snapshot(settings: Settings, text: str) -> None:
    if not text.startswith("snapshot."):
        settings.load_snapshot = SnapshotChoice(either=text)
        return
    from blockyard.schema.legacy import parse_legacy

    known = ("snapshot.id", "snapshot.name")
    values = parse_legacy(text, program=PROGRAM)
    for key, _ in values:
        if key not in known:
            sys.stdout.flush()
            report(PROGRAM, f"Invalid parameter '{key}'")
            raise ProgramError(PROGRAM, f"Failed in parsing snapshot param `{text}'")
    given = dict(values)
    settings.load_snapshot = SnapshotChoice(
        id=given.get("snapshot.id"), name=given.get("snapshot.name")
    )


_SETTERS: dict[str, Callable[[Settings, str], None]] = {
    "socket": _socket, "shared": _shared, "handshake-limit": _handshake_limit,
    "offset": _offset, "cache": _cache, "nocache": lambda settings, _: _cache(settings, "none"),
    "aio": _aio, "discard": _discard, "detect-zeroes": _detect_zeroes,
    "load-snapshot": _load_snapshot,
}  # fmt: skip


# -- what must fit together


def _check_together(settings: Settings, line: Line) -> None:
    if settings.listing:
        _check_list(settings, line)
    elif len(line.words) != 1:
        raise ProgramError(PROGRAM, f"Invalid number of arguments\n{_HINT}")


def _check_list(settings: Settings, line: Line) -> None:
    if line.words:
        raise ProgramError(PROGRAM, "List mode is incompatible with a file name")
    device = (
        settings.export_name, settings.description, settings.device, settings.format,
        settings.cache, settings.aio, settings.discard, settings.load_snapshot,
    )  # fmt: skip
    flags = (settings.disconnect, settings.allocation_depth, settings.bitmaps)
    if any(each is not None for each in device) or any(flags):
        raise ProgramError(PROGRAM, "List mode is incompatible with per-device settings")
    if settings.fork:
        raise ProgramError(PROGRAM, "List mode is incompatible with forking")
