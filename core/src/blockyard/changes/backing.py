# SPDX-License-Identifier: Apache-2.0
"""Opening the backing file that an image names.

Its format is what the image records; if it records none, the file is opened first and
looked at.  A format that is guessed may be raw, and then the guest must not be able
to make it another one: see :attr:`blockyard.driver.Driver.guarded`.
"""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING, Any, TypeAlias

from blockyard.changes.options import flatten
from blockyard.changes.planning import Plan, plan_tree
from blockyard.errors import BlockyardError, ImageIOError, InvalidOption, from_errno
from blockyard.imagename import (
    absolute,
    check_children,
    completed,
    image_options,
    nested_options,
    visited,
)
from blockyard.naming import names_of
from blockyard.probe import PROBED, guess_format

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["Steps", "failure", "file_plan", "looked_at", "probed", "steps"]

#: The steps of opening a node.  A yield asks for another node, or for other steps, to be
#: done first; what they raise is raised there.
Steps: TypeAlias = "AsyncGenerator[Plan | Steps, None]"

#: Options of a node without a driver that its file inherits.
_INHERITED = ("read-only", "auto-read-only", "cache", "force-share", "active")

#: How long an image's word on how to open its backing file may keep us, in the options' units:
#: seconds of trying to connect, and nanoseconds for each request.
_PATIENCE = {"open-timeout": 10, "latency-ns": 1_000_000_000}


async def steps(graph: Graph, plan: Plan) -> Steps:
    """Open the backing file of ``plan.node``; ``plan.children`` gets it.

    :raises BlockyardError: with QEMU's text.
    """
    node = plan.node
    name = absolute(node, node.backing_file)
    _check_loop(plan, name)
    file: Plan | None = None
    try:
        options = await image_options(graph.registry, name, node.backing_format)
        if plan.backing_options:
            flat = {**flatten(options), **plan.backing_options}
            options = await completed(graph.registry, nested_options(flat))
        guessed = "driver" not in options
        if guessed:
            if isinstance(options.get("file"), dict):
                file = file_plan(graph, plan, options)
                yield file
                options["file"] = file.node.name
            options["driver"] = await probed(graph, looked_at(graph, options), name)
        check_children(graph.registry, options)
        below = plan_tree(graph, _named_in_image(graph, options), plan, "backing")
        below.node.driver.guarded = guessed
        if file is not None:
            file.node.inherits_from = below.node
        yield below
    except BlockyardError as error:
        if file is not None:
            await graph.release(file.node)
        raise failure(error) from error
    plan.children["backing"] = below
    if node.auto_backing_file == node.backing_file:
        node.auto_backing_file = names_of(below.node, plan.names).filename


def _named_in_image(graph: Graph, options: dict[str, Any]) -> Any:
    """The BlockdevOptions that an image names, so that they make nobody wait for long.

    Where nobody answers, whoever opens the image is kept no longer than by a server that
    is silent; a monitor waits with them.
    """
    found = visited(options, graph.registry)
    if not any(name.endswith(tuple(_PATIENCE)) for name in flatten(options)):
        return found
    from blockyard.schema import dump, visit
    from blockyard.schema.block import BlockdevOptions

    waiting: list[Any] = [plain := dump(found)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            each.update({n: min(each[n], most) for n, most in _PATIENCE.items() if n in each})
        if isinstance(each, dict | list):
            waiting += each.values() if isinstance(each, dict) else each
    return visit(BlockdevOptions, plain)


def failure(error: BlockyardError) -> BlockyardError:
    """``error`` as the one who opens the image above is told of it."""
    text = f"Could not open backing file: {error}"
    if isinstance(error, ImageIOError) and error.errno:
        return ImageIOError(text, error.errno)
    return BlockyardError(text)


def _check_loop(plan: Plan, name: str) -> None:
    """Refuse a file that is the file of an image above; the depth bounds what is missed."""
    wanted = os.path.normpath(name)
    above: Plan | None = plan
    while above is not None:
        file = above.node.children.get("file")
        present = file.node.driver.exact_filename() if file else None
        if present is not None and os.path.normpath(present) == wanted:
            raise InvalidOption(f"Backing file '{name}' creates an infinite loop.")
        above = above.parent


def file_plan(graph: Graph, plan: Plan | None, options: dict[str, Any]) -> Plan:
    """The file that is opened to look at, with what it will inherit.

    ``plan`` is of the image whose backing file it is; None for an image that a user names.
    """
    known = {key: value for key, value in options.items() if key in _INHERITED}
    known |= {"driver": "raw", "file": options["file"]}
    wanted = visited(known, graph.registry) if plan is None else _named_in_image(graph, known)
    outside = plan_tree(graph, wanted, plan, "backing")
    file = outside.children["file"]
    assert isinstance(file, Plan)
    return file


def looked_at(graph: Graph, options: dict[str, Any]) -> Node:
    """The node that is looked at.

    :raises InvalidOption: if the options name none.
    """
    if not isinstance(options.get("file"), str):
        raise InvalidOption("Must specify either driver or file")
    return graph.lookup_child(options["file"])


async def probed(graph: Graph, file: Node, name: str) -> str:
    """The format of what is in ``file``.

    :raises BlockyardError: if it cannot be read.
    """
    if not file.length:
        return "raw"
    try:
        async with graph.carrier.inside(file) as access:
            head = await access.read(0, min(PROBED, file.length))
    except ImageIOError as error:
        text = "Could not read image for determining its format"
        raise from_errno(error.errno or 5, text) from error
    return guess_format(graph.registry, head.ljust(PROBED, b"\0"), name)
