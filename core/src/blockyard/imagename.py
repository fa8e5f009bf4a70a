# SPDX-License-Identifier: Apache-2.0
"""What the name of an image opens.

Such names come out of images (backing files) as well as from people.  Nothing of a
name is run or expanded: it is a path, ``protocol:...``, or ``json:{...}`` with the
options of blockdev-add (QEMU, "Device URL syntax" and bdrv_open).
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from blockyard.changes.options import flatten, nested
from blockyard.changes.topology import MAX_DEPTH
from blockyard.declaration import NamedImage
from blockyard.errors import BlockyardError, InvalidOption
from blockyard.filename import has_protocol, is_absolute
from blockyard.permission import Role
from blockyard.probe import PROBED, guess_format

if TYPE_CHECKING:
    from blockyard.declaration import DriverType
    from blockyard.node import Node

__all__ = [
    "absolute",
    "check_children",
    "completed",
    "directory",
    "image_options",
    "nested_options",
    "protocol_of",
    "visited",
    "with_protocol",
]

#: A protocol's name is looked at no further.
_PROTOCOL_LIMIT = 127
#: In a name of names: each of them is looked at inside the one before.
_MAX_COLONS = 128
#: Parts of an option's name: a chain as deep as may be, and what its last node takes.
_MAX_PARTS = MAX_DEPTH + 8


# -- relative to a node


def directory(node: Node) -> str:
    """What a relative name in the image of ``node`` is appended to.

    :raises InvalidOption: if there is no such place.
    """
    while True:
        found = node.driver.directory()
        primary = next((c for c in node.children.values() if c.role & Role.PRIMARY), None)
        if found is not None:
            return found
        if primary is None:
            raise InvalidOption(f"Cannot generate a base directory for {node.type.name} nodes")
        node = primary.node


def absolute(node: Node, name: str) -> str:
    """The name that stands in the image of ``node``, as seen from here.

    :raises InvalidOption: if it is relative, and there is nothing that it is relative to.
    """
    if not name or has_protocol(name) or is_absolute(name):
        return name
    return directory(node) + name


# -- what a name opens


async def image_options(registry: Any, name: str, fmt: str = "") -> dict[str, Any]:
    """The options by which blockdev-add opens the image ``name``.

    ``fmt`` is the recorded format, and comes before what ``json:`` says.  Where neither
    tells, ``driver`` is absent: the node under ``file`` has to be looked at.

    :raises BlockyardError: with QEMU's text, for names that mean nothing.
    """
    if name.startswith("json:"):
        return await with_protocol(_parsed(name), fmt)
    if fmt and _takes_names(registry.driver(fmt), name):
        options = _protocol_options(registry.driver(fmt), name)
        return {"driver": fmt, **await _with_children(registry, options)}
    device = await _device(name)
    if device is None and has_protocol(name):
        declaration = _find_protocol(registry, name.partition(":")[0])
        options = await _with_children(registry, _protocol_options(declaration, name))
        file = {"driver": declaration.name, **options}
    else:
        file = {"driver": device or "file", "filename": name}
    return {"driver": fmt, "file": file} if fmt else {"file": file}


def _takes_names(declaration: DriverType, name: str) -> bool:
    """Whether the name is the driver's own to read: a protocol's, or one with its prefix."""
    return declaration.kind == "protocol" or name.partition(":")[0] in declaration.prefixes


async def protocol_of(registry: Any, name: str) -> DriverType:
    """The driver of what the name alone names, no format looked at: ``file`` for a path.

    :raises InvalidOption: if the name's protocol is not known.
    """
    device = await _device(name)
    if device is None and has_protocol(name):
        return _find_protocol(registry, name.partition(":")[0])
    return registry.driver(device or "file")  # type: ignore[no-any-return]


def visited(options: dict[str, Any], registry: Any = None) -> Any:
    """The BlockdevOptions object; texts are also taken for numbers and booleans.

    With a ``registry``, drivers are asked about older options of theirs, and an option that
    a driver does not know is told in its kind's words.

    :raises BlockyardError: if the options do not suit the driver.
    """
    from blockyard.schema import visit, visit_keyval
    from blockyard.schema.block import BlockdevOptions

    if registry is not None:
        options = _adapted(registry, options)
    try:
        return visit(BlockdevOptions, options, older=True)
    except BlockyardError:
        flat = {name: _text(value) for name, value in flatten(options).items()}
        if None in flat.values():
            raise
        texts = nested({name: str(text) for name, text in flat.items()})
    try:
        return visit_keyval(BlockdevOptions, texts, suffixes=True)
    except InvalidOption as error:
        raise _unknown_option(registry, options, error) from error


def _adapted(registry: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Older options of all drivers in the tree as those of blockdev-add; iterative."""
    top = {"": options}
    waiting: list[tuple[Any, Any]] = [(top, "")]
    while waiting:
        parent, name = waiting.pop()
        node = parent[name] = parent[name].copy()
        if isinstance(node, list):
            waiting += [(node, i) for i, value in enumerate(node) if isinstance(value, dict)]
            continue
        if isinstance(driver := node.get("driver"), str):
            adapt = registry.driver(driver).adapt_options
            node = parent[name] = adapt(node) if adapt is not None else node
        waiting += [(node, key) for key, value in node.items() if isinstance(value, dict | list)]
    return top[""]


def _unknown_option(registry: Any, options: dict[str, Any], error: InvalidOption) -> InvalidOption:
    found = re.fullmatch(r"Parameter '(.+)' is unexpected", str(error))
    if not found or registry is None:
        return error
    option = found[1]
    while "." in option:
        name, _, rest = option.partition(".")
        below = options.get(name)
        if not isinstance(below, dict) or "driver" not in below:
            break
        options, option = below, rest
    driver = registry.driver(str(options["driver"]))
    if driver.kind == "protocol":
        return InvalidOption(
            f"Block protocol '{driver.name}' doesn't support the option '{option}'"
        )
    return InvalidOption(f"Block format '{driver.name}' does not support the option '{option}'")


def _text(value: Any) -> str | None:
    """A value as a command line has it; None where it has none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, str | int) else None


def check_children(registry: Any, options: dict[str, Any]) -> None:
    """Refuse options that leave out a child that the driver needs.

    :raises BlockyardError: with QEMU's text; also if there is no such driver.
    """
    declaration: DriverType = registry.driver(str(options["driver"]))
    for spec in declaration.children:
        if not spec.optional and not spec.many and spec.name not in options:
            raise InvalidOption(f'A block device must be specified for "{spec.name}"')


def _parsed(name: str) -> dict[str, Any]:
    """The object after ``json:``, nested."""
    from blockyard.schema.jsontext import parse

    try:
        value = parse(name.removeprefix("json:").encode(errors="surrogateescape"))
    except BlockyardError as error:
        raise InvalidOption(f"Could not parse the JSON options: {error}") from error
    if not isinstance(value, dict):
        raise InvalidOption("Invalid JSON object given")
    return nested_options(flatten(value))


def nested_options(flat: dict[str, Any]) -> dict[str, Any]:
    """:func:`nested`, for keys that anybody may have written.

    :raises InvalidOption: if they contradict each other, or go too deep.
    """
    keys = set(flat)
    for key in flat:
        parts = key.split(".")
        if len(parts) > _MAX_PARTS:
            raise InvalidOption(f"Block nodes are nested deeper than {MAX_DEPTH}")
        clash = next((k for k in itertools.accumulate(parts[:-1], "{}.{}".format) if k in keys), "")
        if clash:
            raise InvalidOption(f"Option '{clash}' is both a value and a group of options")
    return nested(flat)


async def with_protocol(options: dict[str, Any], fmt: str = "") -> dict[str, Any]:
    """``options`` with the format, and a driver for a file that is given by its name alone.

    :raises InvalidOption: if the file has neither.
    """
    file = options.get("file")
    if isinstance(file, dict) and "driver" not in file:
        if not isinstance(file.get("filename"), str):
            raise InvalidOption("Must specify either driver or file")
        # A name inside options has no protocol.
        file["driver"] = await _device(file["filename"]) or "file"
    return options | ({"driver": fmt} if fmt else {})


async def completed(registry: Any, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` with a driver for every child that is given by its file's name alone.

    What is under a format is a file; what is under a filter that is none itself may be
    an image of any format, and is looked at.

    :raises BlockyardError: if there is no such driver.
    """
    top = {"": options}
    waiting: list[tuple[Any, Any, bool]] = [(top, "", False)]
    while waiting:
        parent, key, is_file = waiting.pop()
        node = parent[key] = dict(parent[key])
        if isinstance(parent, list) and "driver" not in node:
            node = parent[key] = await _recognised(registry, node)
        if "driver" not in node and isinstance(node.get("filename"), str):
            node["driver"] = await _device(node["filename"]) or "file"
            if not is_file:
                guess = await _guessed(registry, node, node["filename"])
                node = parent[key] = {"driver": guess, "file": node}
        if not isinstance(node.get("driver"), str):
            continue
        declaration: DriverType = registry.driver(node["driver"])
        for spec in declaration.children:
            if spec.many and isinstance(node.get(spec.name), list):
                below = node[spec.name] = list(node[spec.name])
                waiting += [
                    (below, index, is_file or declaration.kind == "format")
                    for index, child in enumerate(below)
                    if isinstance(child, dict)
                ]
            elif isinstance(node.get(spec.name), dict) and not spec.role & Role.COW:
                waiting.append((node, spec.name, is_file or declaration.kind == "format"))
            elif isinstance(node.get(spec.name), dict) and "driver" in node[spec.name]:
                waiting.append((node, spec.name, False))
    return top[""]


async def _recognised(registry: Any, node: dict[str, Any]) -> dict[str, Any]:
    """A child in a list, with the driver for what its file holds.

    :raises InvalidOption: if there is no file either.
    """
    file = node.get("file")
    if isinstance(file, str):  # a node: nobody looks into it
        return node | {"driver": "raw"}
    if not isinstance(file, dict):
        raise InvalidOption("Must specify either driver or file")
    found = await with_protocol({**node, "file": dict(file)})
    name = str(found["file"].get("filename", ""))
    return found | {"driver": await _guessed(registry, found["file"], name)}


async def _device(name: str) -> str | None:
    """``host_device`` for the name of a device node: it may have colons, and comes first."""
    try:
        found = await anyio.to_thread.run_sync(os.stat, name)
    except (OSError, ValueError):
        return None
    device = stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)
    return "host_device" if device else None


def _find_protocol(registry: Any, prefix: str) -> DriverType:
    """The driver whose prefix it is.

    :raises InvalidOption: if none that is installed has it.
    """
    for kind in ("drivers", "filters"):
        for name, _ in registry.every(kind):
            declaration: DriverType = registry.driver(name)
            if prefix in declaration.prefixes:
                return declaration
    raise InvalidOption(f"Unknown protocol '{prefix[:_PROTOCOL_LIMIT]}'")


async def _with_children(registry: Any, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` with what the names of children in it open.

    :raises BlockyardError: if one of them means nothing, or there are too many.
    """
    found = dict(options)
    for key, value in options.items():
        if isinstance(value, NamedImage):
            if value.name.count(":") > _MAX_COLONS:
                raise InvalidOption(f"Block nodes are nested deeper than {MAX_DEPTH}")
            below = await image_options(registry, value.name)
            if "driver" not in below and value.probe:
                below["driver"] = await _guessed(registry, below["file"], value.name)
            found[key] = below if "driver" in below else below["file"]
    return found


async def _guessed(registry: Any, file: dict[str, Any], name: str) -> str:
    """The format of a local file; what comes from elsewhere is raw."""
    if file.get("driver") != "file":
        return "raw"
    head = await anyio.to_thread.run_sync(_head, str(file["filename"]))
    return guess_format(registry, head.ljust(PROBED, b"\0"), name) if head else "raw"


def _head(path: str) -> bytes:
    """The file's first bytes; none if it is no file, which opening it will tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.pread(fd, PROBED, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def _protocol_options(declaration: DriverType, name: str) -> dict[str, Any]:
    """What the driver takes for the name."""
    prefix, colon, rest = name.partition(":")
    own = bool(colon) and prefix in declaration.prefixes
    if own and declaration.parse_filename is not None:
        return declaration.parse_filename(name)
    if own and has_protocol(rest):
        # What is behind the prefix is a path, whatever it looks like.
        rest = f"./{rest}"
    return {"filename": rest if own else name}
