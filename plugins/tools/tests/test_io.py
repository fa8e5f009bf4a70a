# SPDX-License-Identifier: Apache-2.0
"""``blockyard io`` beside qemu-io: the same words in, the same text and status out."""

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent))
from peer_io import OURS, THEIRS, Ran, run, scripted

pytestmark = pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io is not here")

COMMANDS = (Path(__file__).parent / "io_commands.txt").read_text().splitlines()


def make_images(folder: Path) -> Path:
    """The images that the commands are about."""

    def tool(*words: str) -> None:
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    folder.mkdir()
    tool("qemu-img", "create", "-q", "-f", "raw", "a.raw", "1M")
    tool("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 128k", "base.qcow2")
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "b.qcow2")
    (folder / "pat").write_bytes(bytes(range(256)))
    (folder / "empty").write_bytes(b"")
    return folder


def both(folder: Path, words: Sequence[str], lines: Sequence[str] | None = None) -> list[Ran]:
    """What each program does, in folders of its own."""
    ran = []
    for name, program in (("theirs", THEIRS), ("ours", OURS)):
        place = make_images(folder / name)
        if lines is None:
            ran.append(run(program, words, place))
        else:
            ran.append(scripted(program, words, lines, place))
    return ran


@pytest.mark.parametrize(
    "words",
    [
        ["-f", "raw", "a.raw"],
        ["-f", "qcow2", "b.qcow2"],
        ["-r", "-f", "raw", "a.raw"],
        ["-n", "-f", "raw", "a.raw"],
        ["-t", "writethrough", "-f", "qcow2", "b.qcow2"],
        [],
    ],
    ids=" ".join,
)
def test_a_script_of_all_commands(tmp_path: Path, words: list[str]) -> None:
    theirs, ours = both(tmp_path, words, COMMANDS)

    assert theirs.out.splitlines() == ours.out.splitlines()
    assert theirs == ours


#: The image on a disk that fails from the first change of the L1 table on.
FAILING = (
    "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=b.qcow2,"
    "file.inject-error.0.event=l1_update"
)
LIMITS = "align=4k,max-transfer=64k"

#: One byte of the refcount table changes: the next allocation finds the image corrupt.
CORRUPTING = ["-f", "raw", "b.qcow2", "-c", "write -P 2 65543 1", "-c", "close"]

LINES = [
    [*CORRUPTING, "-c", "open b.qcow2", "-c", "write 512k 64k"],
    [*CORRUPTING, "-c", "open b.qcow2", "-c", "write 512k 64k", "-c", "flush"],
    ["-t", "writethrough", "--image-opts", FAILING, "-c", "write 0 64k"],
    ["-t", "writethrough", "--image-opts", FAILING, "-c", "write -b 0 64k"],
    [
        "-c", f"open -o driver=blkdebug,image.driver=qcow2,{LIMITS} blkdebug::b.qcow2",
        "-c", "write -P 3 1000 128k", "-c", "read -P 3 1000 128k",
    ],
    ["-c", "open -o driver=blkdebug,image.driver=file blkdebug::b.qcow2", "-c", "length"],
    ["-c", "open -o driver=copy-on-read,file.driver=qcow2 b.qcow2", "-c", "info"],
    ["-c", "open -o driver=blkdebug,image.driver=qcow2 b.qcow2", "-c", "read 0 64k"],
    ["-c", "open -o driver=raw,file.driver=qcow2 b.qcow2", "-c", "length", "-c", "info"],
    ["-c", "length"],
    ["-f", "raw", "none"],
    ["none"],
    ["-f", "bogus", "a.raw"],
    ["a.raw", "-c", "length"],
    ["-t", "bogus", "a.raw"],
    ["-d", "bogus", "a.raw"],
    ["-i", "bogus", "a.raw"],
    ["--object", "secret,id=x,bogus=1", "a.raw"],
    ["--image-opts", "driver=raw,file.filename=a.raw", "-c", "length"],
    ["--image-opts", "-f", "raw", "driver=raw,file.filename=a.raw", "-c", "length"],
    ["-U", "-f", "raw", "a.raw", "-c", "length"],
    ["-U", "-r", "-f", "raw", "a.raw", "-c", "length"],
    ["-r", "-f", "raw", "a.raw", "-c", "write 0 64k"],
    ["-s", "-f", "raw", "a.raw", "-c", "write -P 1 0 64k", "-c", "read -P 1 0 64k"],
    ["-s", "-r", "-f", "raw", "a.raw", "-c", "write -P 1 0 64k", "-c", "read -P 1 0 64k"],
    ["-k", "-f", "raw", "a.raw", "-c", "read 0 512"],
    ["-k", "-n", "-f", "raw", "a.raw", "-c", "read 0 512"],
    ["-m", "-n", "-f", "raw", "a.raw", "-c", "write 0 512", "-c", "read -P 0xcd 0 512"],
    ["-C", "-r", "-f", "raw", "a.raw", "-c", "read 0 512"],
    ["-f", "raw", "a.raw", "-c", "length", "-c", "bogus", "-c", "length"],
    ["-c", ""],
    ["-f", "raw", "-c", " length ", "a.raw"],
    ["-f", "raw", "-c", "quit", "-c", "length", "a.raw"],
    ["-f", "raw", "a.raw", "-c", "length", "-c", "sigraise 15"],
    ["-f", "raw", "a.raw", "-c", "length", "-c", "sigraise 2"],
    ["-f", "raw", "a.raw", "-c", "length", "-c", "sigraise 9"],
    ["-f", "raw", "a.raw", "-c", "length", "-c", "abort"],
    ["-c", "open -o driver=raw a.raw", "-c", "length"],
    ["-c", "open -o driver=raw,file.filename=a.raw", "-c", "length"],
    ["-c", "open -o driver=raw,file.filename=none", "-c", "length"],
    ["-c", "open none", "-c", "length"],
    ["-c", "open -r -o driver=raw a.raw", "-c", "write 0 512"],
    ["-c", "open -U a.raw", "-c", "length"],
    ["-c", "open -r -U -o driver=null-co,force-share=off", "-c", "length"],
    ["-f", "raw", "a.raw", "-c", "reopen -r", "-c", "w 0 1", "-c", "reopen -w", "-c", "w 0 1"],
    ["-f", "raw", "a.raw", "-c", "reopen -c none", "-c", "write 0 512"],
    ["-f", "raw", "a.raw", "-c", "reopen -o bogus=1"],
    ["-f", "raw", "a.raw", "-c", "reopen -o driver=qcow2"],
    ["-f", "raw", "a.raw", "-c", "reopen -o read-only=on"],
    ["-f", "raw", "a.raw", "-c", "reopen -o read-only=foo"],
    ["-f", "raw", "a.raw", "-c", "reopen -r -o read-only=off"],
    ["-f", "raw", "a.raw", "-c", "reopen -c none -o cache.direct=off"],
    ["-f", "raw", "a.raw", "-c", "reopen -c none -c none"],
    ["-f", "qcow2", "b.qcow2", "-c", "reopen -o lazy-refcounts=on", "-c", "write 0 512"],
    ["-f", "qcow2", "b.qcow2", "-c", "reopen -o lazy-refcounts=foo"],
    ["-f", "qcow2", "b.qcow2", "-c", "reopen -o backing.node-name=foo"],
    ["-f", "qcow2", "b.qcow2", "-c", "reopen -o file.driver=qcow2"],
    ["-f", "qcow2", "b.qcow2", "-c", "reopen -o backing.driver=qcow2", "-c", "length"],
    ["-c", "open -o backing.node-name=foo b.qcow2", "-c", "reopen", "-c", "map"],
    ["-c", "open -o backing.driver=qcow2 b.qcow2", "-c", "read -P 9 0 128k"],
    ["-c", "open -o backing.file.filename=base.qcow2 b.qcow2", "-c", "read -P 9 0 128k"],
    ["-c", "open -o cache-size=2M,l2-cache-size=1M b.qcow2", "-c", "length"],
    ["-c", "open -o cache-size=1M,l2-cache-size=2M b.qcow2", "-c", "length"],
    ['json:{"driver":"qcow2","file":{"filename":"b.qcow2"}}', "-c", "length"],
    ['json:{"driver":"qcow2","file":{"driver":"raw","file":{"filename":"b.qcow2"}}}', "-c", "map"],
    ["-f", "null-co", "json:{'driver': 'null-co', 'size': 65536}", "-c", "reopen", "-c", "info"],
    ["-f", "file", "a.raw", "-c", "info", "-c", "map"],
    ["-f", "qcow2", "b.qcow2", "-c", "write -b 0 4k", "-c", "read -b -P 0xcd 0 4k", "-c", "length"],
]  # fmt: skip


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_command_line(tmp_path: Path, words: list[str]) -> None:
    theirs, ours = both(tmp_path, words)

    assert theirs == ours


def test_what_is_wrong_with_the_command_line_is_told_before_the_usage(tmp_path: Path) -> None:
    for words in (["--bogus"], ["-c"], ["-x"], ["-f", "raw", "a.raw", "a.raw"]):
        theirs, ours = run(THEIRS, words, tmp_path), run(OURS, words, tmp_path)
        first = ours.out.splitlines()[0]

        assert (theirs.err, theirs.status) == (ours.err, ours.status)
        assert theirs.out.startswith(first)


@pytest.mark.parametrize("name", ["read", "write", "open", "reopen", "sigraise", "map", "quit"])
def test_help_begins_with_the_usage(tmp_path: Path, name: str) -> None:
    words = ["-c", f"help {name}"]
    theirs, ours = run(THEIRS, words, tmp_path), run(OURS, words, tmp_path)

    assert theirs.out.splitlines()[0] == ours.out.splitlines()[0]
    assert (theirs.out.count("\n") > 1) == (ours.out.count("\n") > 1)


def test_nothing_but_full_blocks_comes_out_before_complaints(tmp_path: Path) -> None:
    """What scripts see that send both streams to one place."""
    make_images(tmp_path / "images")
    words = ["-f", "raw", "a.raw", *["-c", "length"] * 1000, "-c", "bogus", "-c", "length"]
    theirs, ours = (
        subprocess.run(
            [*program, *words],
            cwd=tmp_path / "images",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout
        for program in (THEIRS, OURS)
    )

    assert 0 < theirs.index("bogus") < len(theirs) - 1000
    assert theirs == ours


numbers = st.one_of(
    st.integers(0, 1 << 21).map(str),
    st.sampled_from(
        ["0", "1", "512", "1k", "64k", "1M", "1.5k", "0x200", "-1", "x", "", "2G", "9E"]
    ),
)
options = st.lists(
    st.sampled_from(
        ["-q", "-C", "-P 5", "-P 300", "-v", "-s 3", "-l 9", "-z", "-u", "-n", "-f", "-c", "-b",
         "-x", "-p", "-r", "-qC", "-zP 1", "--", "-m off", "-i"]
    ),
    max_size=3,
)  # fmt: skip
commands = st.builds(
    lambda name, given, words: " ".join([name, *given, *words]),
    st.sampled_from(
        ["read", "write", "readv", "writev", "discard", "alloc", "truncate", "length", "aio_flush",
         "sleep 0", "map", "r", "w", "d"]
    ),
    options,
    st.lists(numbers, max_size=3),
)  # fmt: skip


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(lines=st.lists(commands, min_size=20, max_size=60), seed=st.integers(0, 1))
def test_scripts_that_nobody_wrote(lines: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = random.Random(seed).choice([["-f", "raw", "a.raw"], ["-f", "qcow2", "b.qcow2"]])
        theirs, ours = both(Path(folder), image, lines)

        assert theirs.out.splitlines() == ours.out.splitlines()
        assert theirs == ours
