# SPDX-License-Identifier: Apache-2.0
"""Opening an image by its name, or by options that leave its format to be found out.

What has no driver is opened first as what it lies in, and looked at, as the backing
file of an image is (``backing.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.changes.backing import file_plan, looked_at, probed
from blockyard.changes.opening import open_plan
from blockyard.changes.options import flatten
from blockyard.changes.planning import Plan, plan_tree
from blockyard.errors import InvalidOption
from blockyard.imagename import (
    check_children,
    completed,
    image_options,
    nested_options,
    visited,
    with_protocol,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockyard.graph import Graph
    from blockyard.node import Node

__all__ = ["open_named"]


async def open_named(
    graph: Graph,
    name: str | None,
    fmt: str | None,
    options: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    backing: bool = True,
    contents: bool = True,
    checking: bool = False,
) -> Node:
    """Open an image; the arguments are those of :meth:`blockyard.yard.Yard.open_named`.

    ``defaults`` are options that hold unless the name or ``options`` say otherwise.
    The caller has the writer.

    :raises BlockyardError: with QEMU's text; nothing is left open then.
    """
    known = await image_options(graph.registry, name, fmt or "") if name is not None else {}
    if name is None and fmt:
        known["driver"] = fmt
    if name is not None and not name.startswith("json:"):
        known = _handed_down(graph, known, nested_options(flatten(dict(options))))
    flat = {**flatten(dict(defaults)), **flatten(known), **flatten(dict(options))}
    merged = await with_protocol(nested_options(flat))
    if "driver" not in merged and "file" not in merged:
        raise InvalidOption("Must specify either driver or file")
    file: Node | None = None
    try:
        if guessed := "driver" not in merged:
            if isinstance(merged.get("file"), dict):
                file = await open_plan(graph, file_plan(graph, None, merged))
                merged["file"] = file.name
            merged["driver"] = await probed(graph, looked_at(graph, merged), name or "")
        merged, below = _backing_apart(graph, merged)
        merged = await completed(graph.registry, merged)
        check_children(graph.registry, merged)
        top = plan_tree(graph, visited(merged, graph.registry))
        top.node.driver.guarded = guessed
        top.node.without_contents = not contents
        top.node.checking = checking
        top.backing = backing
        top.backing_options = below
        if file is not None:
            file.inherits_from = top.node
        return await _opened(graph, top)
    except BaseException:
        if file is not None:
            await graph.release(file)
        raise


def _handed_down(graph: Graph, known: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What the name names, moved below the formats and filters that the options put over it.

    With ``driver=copy-on-read,file.driver=qcow2`` the name is that of ``file.file``, and
    with ``driver=blkdebug,image.driver=qcow2`` that in ``blkdebug::name`` of ``image.file``.
    """
    path: list[str] = []
    node: Any = {**said, "driver": said.get("driver", known.get("driver"))}
    while isinstance(node, dict) and isinstance(node.get("driver"), str):
        declaration = graph.registry.driver(node["driver"])
        if declaration.kind == "protocol":
            break
        below = {spec.name for spec in declaration.children} & {"image", "file"}
        path.append("image" if "image" in below else "file")
        node = node.get(path[-1])
    named = "file" if "file" in known else path[0] if path else ""
    if named not in known or "file" in known[named] or (len(path) < 2 and path != ["image"]):
        return known
    found: dict[str, Any] = known[named]
    for child in reversed(path):
        found = {child: found}
    return {key: value for key, value in known.items() if key != named} | found


def _backing_apart(graph: Graph, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the backing file that the image records, flat, apart from the rest."""
    said = options.get("backing")
    if not graph.registry.driver(str(options["driver"])).supports_backing:
        return options, {}
    if not isinstance(said, dict) or {"driver", "file"} <= said.keys():
        return options, {}
    if "driver" in said and graph.registry.driver(str(said["driver"])).kind != "format":
        return options, {}
    return {key: value for key, value in options.items() if key != "backing"}, flatten(said)


async def _opened(graph: Graph, top: Plan) -> Node:
    node = await open_plan(graph, top)
    if not top.backing:
        # That it has none is no change of the image, so that it goes by its plain name.
        node.auto_backing_file = ""
    return node
