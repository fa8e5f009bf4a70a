# SPDX-License-Identifier: Apache-2.0
"""Quorums in names and in options that somebody typed, next to qemu-img's."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.errors import BlockyardError
from blockyard.naming import node_filename

if TYPE_CHECKING:
    from pathlib import Path

IMG = os.environ.get("BLOCKYARD_QEMU_IMG", "qemu-img")


def theirs(options: str) -> str:
    """The name that qemu-img shows, or why it does not open."""
    command = [IMG, "info", "--output=json", "--image-opts", options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return done.stderr.strip().removeprefix(f"{IMG}: Could not open '{options}': ")
    return str(json.loads(done.stdout)["filename"])


def mine(ours: Any, options: str) -> str:
    """The same of ours."""
    flat = dict(word.split("=", 1) for word in options.split(","))

    async def run() -> str:
        async with await ours.yard.open_named(None, None, {**flat, "read-only": True}) as disk:
            return node_filename(disk.node)

    try:
        return str(ours.call(run))
    except BlockyardError as error:
        return str(error)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A raw and two qcow2 images."""
    for name in ("a", "b"):
        path = str(tmp_path / f"{name}.qcow2")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", path, "64k"], check=True)
    (tmp_path / "raw.img").write_bytes(bytes(65536))
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        "children.0.file.filename={}/a.qcow2,children.1.file.filename={}/b.qcow2",
        "children.0.driver=qcow2,children.0.file.filename={}/a.qcow2",
        "children.0.file.filename={}/raw.img,children.1.driver=file,children.1.filename={}/raw.img",
        "children.0.file.driver=file,children.0.file.filename={}/raw.img",
        "children.0.file.filename={}/nothing",
        "children.0.filename={}/a.qcow2",
        "children.0.file=nobody",
        "children.0=nobody",
        "children=nobody",
        "read-pattern=fifo",
        "children.0.driver=null-co,read-pattern=x",
        "children.0.driver=null-co,children.0.size=65536,read-pattern=fifo",
        "children.0.driver=null-co,children.0.size=65536,blkverify=maybe",
        "children.0.driver=null-co,children.0.size=65536,foo=bar",
    ],
)
def test_options_that_were_typed(ours: Any, folder: Path, options: str) -> None:
    typed = "driver=quorum,vote-threshold=1," + options.replace("{}", str(folder))

    # Numbers are numbers in our names, where QEMU keeps the text.
    assert mine(ours, typed) == theirs(typed).replace('"1"', "1").replace('"65536"', "65536")


@pytest.mark.parametrize("threshold", ["x", "-", "0", "2", "", "\N{SUPERSCRIPT TWO}", None])
def test_thresholds_that_were_typed(ours: Any, threshold: str | None) -> None:
    options = "driver=quorum,children.0.driver=null-co,children.0.size=65536"
    if threshold is not None:
        options += f",vote-threshold={threshold}"

    assert mine(ours, options) == theirs(options)


def test_odd_values_in_a_name(ours: Any) -> None:
    """Whatever a name says is refused in words."""
    null = {"driver": "null-co", "size": 65536}
    for value in ({"a": 1}, None, True, 1.5, [1], "9" * 30, 9**30):
        for name in ("children", "vote-threshold", "read-pattern", "blkverify"):
            options = {"driver": "quorum", "children": [null], "vote-threshold": 1, name: value}

            async def run(options: dict[str, Any] = options) -> None:
                await (await ours.yard.open_named("json:" + json.dumps(options))).close()

            if (name, value) not in (("blkverify", True), ("vote-threshold", [1])):
                with pytest.raises(BlockyardError):
                    ours.call(run)
    assert not ours.yard.graph.nodes
