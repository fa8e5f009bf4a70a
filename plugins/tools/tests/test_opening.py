# SPDX-License-Identifier: Apache-2.0
"""Opening the images that a command line names."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from blockyard.errors import BlockyardError
from blockyard.yard import Yard
from blockyard_tools.error import ProgramError
from blockyard_tools.io.main import main
from blockyard_tools.opening import How, open_image, parse_cache
from blockyard_tools.running import run


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with a qcow2 image ``top`` on it."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", tmp_path / "top"]
    subprocess.run(make, check=True)
    return path


async def _described(yard: Yard, name: str, how: How) -> tuple[str, int, bool, list[str]]:
    async with await open_image(yard, name, how) as image:
        node = image.node
        return node.type.name, image.length, image.read_only, list(node.children)


def test_the_format_is_found_out(disk: Path) -> None:
    top = str(disk.with_name("top"))

    assert run(_described, top, How()) == ("qcow2", 1 << 20, True, ["file", "backing"])
    assert run(_described, top, How(backing=False)) == ("qcow2", 1 << 20, True, ["file"])
    assert run(_described, top, How(format="raw"))[0] == "raw"


def test_names_have_several_forms(disk: Path) -> None:
    for name in (f"file:{disk}", f'json:{{"driver":"raw","file":{{"filename":"{disk}"}}}}'):
        assert run(_described, name, How())[0] == "raw"
    text = f"driver=raw,file.filename={disk},size=512"
    assert run(_described, text, How(image_opts=True))[1] == 512
    assert run(_described, str(disk), How(format="file"))[0] == "file"


def test_a_guessed_raw_image_is_warned_of_when_it_is_written(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(_described, str(disk), How())
    run(_described, str(disk), How(writable=True, format="raw"))
    assert capsys.readouterr().err == ""
    run(_described, str(disk), How(writable=True))
    assert capsys.readouterr().err == (
        f"WARNING: Image format was not specified for '{disk}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, write "
        "operations on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.\n"
    )


@pytest.mark.parametrize(
    ("name", "how", "text"),
    [
        ("/nowhere", {}, "Could not open '/nowhere': No such file or directory"),
        ("nope:x", {}, "Unknown protocol 'nope'"),
        ("json:{}", {}, "Must specify either driver or file"),
        (
            "json:[",
            {},
            "Could not parse the JSON options: 1:2: JSON parse error, premature end of input",
        ),
        ("read-only=on", {"image_opts": True}, "Must specify either driver or file"),
        ("a.img", {"image_opts": True}, "Cannot find device='a.img' nor node-name='a.img'"),
        (
            "driver=raw,file.filename=/dev/null,foo=1",
            {"image_opts": True},
            "Block format 'raw' does not support the option 'foo'",
        ),
        (
            "driver=raw,file.filename=/dev/null,file.foo=1",
            {"image_opts": True},
            "Block protocol 'host_device' doesn't support the option 'foo'",
        ),
        (
            "/dev/null",
            {"force_share": True, "writable": True},
            "force-share=on can only be used with read-only images",
        ),
    ],
)
def test_errors_are_qemus(name: str, how: dict[str, Any], text: str) -> None:
    with pytest.raises(BlockyardError) as caught:
        run(_described, name, How(**how))

    assert str(caught.value) == text


def test_a_cache_mode_is_one_of_few() -> None:
    assert parse_cache("qemu-img", "none") == "none"
    with pytest.raises(ProgramError, match="^Invalid cache option: warm$"):
        parse_cache("qemu-img", "warm")


def test_nothing_is_left_of_an_image_that_cannot_be_opened(disk: Path) -> None:
    async def nodes(yard: Yard) -> list[str]:
        for text in (f"file.filename={disk},foo=1", f"driver=qcow2,file.filename={disk}"):
            with pytest.raises(BlockyardError):
                await open_image(yard, text, How(image_opts=True))
        return list(yard.graph.nodes)

    assert run(nodes) == []


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    """Images that are encrypted in both ways, and one that is not: aes, luks, plain."""
    for name, options in (
        ("aes", "encrypt.format=aes,encrypt.key-secret=s"),
        ("luks", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
        ("plain", "compat=1.1"),
    ):
        key = ["--object", "secret,id=s,data=chicken"]
        where = [tmp_path / f"{name}.q", "1M"]
        make = ["qemu-img", "create", "-q", "-f", "qcow2", *key, "-o", options, *where]
        subprocess.run(make, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["aes", "luks", "plain"])
@pytest.mark.parametrize("extra", ["", "encrypt.format=aes,", "encrypt.format=luks,"])
def test_how_an_image_is_encrypted_is_found_out(
    encrypted: Path, name: str, extra: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = f"driver=qcow2,{extra}encrypt.key-secret=s,file.filename={encrypted}/{name}.q"
    words = ["--object", "secret,id=s,data=chicken", "--image-opts", "-c", "read 0 4k", options]
    theirs = subprocess.run(["qemu-io", *words], capture_output=True, check=False, text=True)

    status = main(words)

    assert (status, capfd.readouterr().err) == (theirs.returncode, theirs.stderr)
