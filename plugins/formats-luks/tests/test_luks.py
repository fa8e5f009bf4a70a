# SPDX-License-Identifier: Apache-2.0
"""Volumes as nodes: opening, making, resizing, measuring, and what is refused in which words."""

from __future__ import annotations

import os
import struct
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from luks_volumes import MIB, SECRET, WORD, file_of, in_yard, make_by_qemu, options_of, qemu, secret

from blockyard.errors import BlockyardError, PermissionConflict
from blockyard.plugins import default_registry
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.schema.crypto import QCryptoHashAlgo
from blockyard_formats_luks import volume as volumes
from blockyard_formats_luks.derivation import Budget, aside, derive
from blockyard_formats_luks.driver import LuksDriver
from blockyard_formats_luks.formatting import format_image
from blockyard_formats_luks.schema import LUKS, BlockdevCreateOptionsLUKS

if TYPE_CHECKING:
    from pathlib import Path

    from blockyard.yard import Yard

PAYLOAD = 2068480
ROUNDS, SLOT_ROUNDS = 164, 212


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of QEMU's that tests leave alone."""
    return make_by_qemu(tmp_path_factory.mktemp("volume") / "disk.luks")


@pytest.fixture
def image(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "disk.luks"
    copy.write_bytes(made.read_bytes())
    return copy


def refusal(options: dict[str, Any], *secrets: dict[str, str]) -> str:
    async def main(yard: Yard) -> None:
        await yard.open(options)

    with pytest.raises(BlockyardError) as caught:
        in_yard(main, *secrets)
    return str(caught.value)


# -- opening


def test_a_volume_is_as_long_as_what_is_behind_its_header(image: Path) -> None:
    async def main(yard: Yard) -> int:
        async with await yard.open(options_of(image)) as disk:
            return int(disk.length)

    assert in_yard(main) == MIB
    os.truncate(image, PAYLOAD + MIB + 100)
    assert in_yard(main) == MIB + 512
    os.truncate(image, PAYLOAD)
    assert in_yard(main) == 0


def test_a_secret_is_needed(image: Path) -> None:
    options = options_of(image)
    del options["key-secret"]
    assert refusal(options) == "Parameter 'key-secret' is required for cipher"
    assert refusal(options_of(image), secret(name="other")) == "No secret with id 'key'"
    text = "Invalid password, cannot unlock any keyslot"
    assert refusal(options_of(image), secret("wrong")) == text
    assert refusal(options_of(image), secret(WORD + "x")) == text
    assert refusal(options_of(image), secret("")) == text
    binary = {**secret("//8="), "format": "base64"}
    assert refusal(options_of(image), binary) == "Data from secret key is not valid UTF-8"


def test_a_file_that_ends_before_the_data_is_refused(image: Path) -> None:
    os.truncate(image, PAYLOAD - 512)
    text = "Could not refresh total sector count: Input/output error"
    assert refusal(options_of(image)) == text


@pytest.mark.parametrize("length", [0, 100, 591])
def test_a_file_shorter_than_a_header_is_refused(image: Path, length: int) -> None:
    os.truncate(image, length)
    assert refusal(options_of(image))


def test_key_material_beyond_the_end_counts_as_zeroes(image: Path) -> None:
    os.truncate(image, 600)
    assert refusal(options_of(image)) == "Invalid password, cannot unlock any keyslot"


def test_a_header_with_data_behind_it_needs_none_apart(image: Path, tmp_path: Path) -> None:
    """The payload's offset counts in the file that holds the data, as in QEMU."""
    header = tmp_path / "header.luks"
    header.write_bytes(image.read_bytes()[:PAYLOAD])

    async def main(yard: Yard) -> int:
        async with await yard.open(options_of(image, header=file_of(header))) as disk:
            return int(disk.length)

    assert in_yard(main) == MIB


@pytest.mark.parametrize("at", [ROUNDS, SLOT_ROUNDS])
def test_rounds_without_end_are_given_up(
    image: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "_SECONDS", 1)
    with image.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(">I", 0xFFFFFFFF))
    assert refusal(options_of(image)) == "PBKDF iterations 4294967295 take too long"


def test_others_are_served_while_rounds_are_made(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "_SECONDS", 1)
    with image.open("r+b") as file:
        file.seek(SLOT_ROUNDS)
        file.write(struct.pack(">I", 0xFFFFFFFF))

    async def main(yard: Yard) -> int:
        turns = 0
        ended = anyio.Event()

        async def fail() -> None:
            with pytest.raises(BlockyardError):
                await yard.open(options_of(image))
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            while not ended.is_set():
                await anyio.sleep(0.001)
                turns += 1
        return turns

    assert in_yard(main) > 10


def test_a_cancelled_derivation_ends() -> None:
    ended = threading.Event()

    async def main() -> None:
        budget = Budget()

        def work() -> None:
            try:
                derive(QCryptoHashAlgo.SHA256, b"word", b"salt", 1 << 40, 32, budget)
            finally:
                ended.set()

        with anyio.move_on_after(0.05):
            await aside(budget, work)

    anyio.run(main)
    assert ended.wait(30)


def test_probing_knows_the_mark_and_the_version(image: Path) -> None:
    declaration = default_registry().driver("luks")
    assert declaration is LUKS
    assert LUKS.probe is not None
    start = image.read_bytes()[:2048]
    assert LUKS.probe(start, "disk") == 100
    assert LUKS.probe(b"LUKS\xba\xbe\0\2" + start[8:], "disk") == 0
    assert LUKS.probe(bytes(2048), "disk.luks") == 0


def test_information(image: Path) -> None:
    async def main(yard: Yard) -> dict[str, Any]:
        async with await yard.open(options_of(image)) as disk:
            info: dict[str, Any] = await disk.node.driver.image_info()
            return info

    info = in_yard(main)
    assert info["encrypted"] is True
    data = info["format-specific"]["data"]
    assert info["format-specific"]["type"] == "luks"
    assert (data["cipher-alg"], data["payload-offset"]) == ("aes-256", PAYLOAD)
    assert data["slots"][0]["active"] is True
    assert data["slots"][1] == {"active": False, "key-offset": 262144}
    assert "ivgen-hash-alg" not in data


# -- permissions


def test_the_file_is_shared_as_the_disk_is(image: Path) -> None:
    """Only changing key slots wants it alone."""

    async def main(yard: Yard) -> None:
        await yard.graph.add(visit(BlockdevOptions, {**file_of(image), "node-name": "file"}))
        async with await yard.open({**options_of(image), "file": "file"}) as disk:
            driver = disk.node.driver
            other = await yard.attach("file", writable=False, share_writes=True)
            with pytest.raises(PermissionConflict, match="^Permission conflict on node 'file'"):
                await driver.amend_begin()
            await other.close()
            await driver.amend_begin()
            with pytest.raises(PermissionConflict):
                await yard.attach("file", writable=False, share_writes=True)
            await driver.amend_end()
            await (await yard.attach("file", writable=False, share_writes=True)).close()

    in_yard(main)


def test_options_stay_and_flags_may_change(image: Path) -> None:
    async def main(yard: Yard) -> None:
        options = {**options_of(image), "node-name": "disk"}
        node = await yard.graph.add(visit(BlockdevOptions, options))
        same = {**options, "file": node.children["file"].node.name}
        await yard.graph.reopen([visit(BlockdevOptions, {**same, "read-only": True})])
        assert node.read_only
        with pytest.raises(BlockyardError, match="^Cannot change the option 'key-secret'$"):
            await yard.graph.reopen([visit(BlockdevOptions, {**same, "key-secret": "other"})])
        await yard.graph.delete("disk")

    in_yard(main)


# -- length


def test_resizing_moves_the_end_of_the_file(image: Path) -> None:
    async def main(yard: Yard) -> None:
        async with await yard.open(options_of(image)) as disk:
            await disk.write(MIB - 512, b"x" * 512)
            await disk.truncate(2 * MIB)
            assert (disk.length, image.stat().st_size) == (2 * MIB, PAYLOAD + 2 * MIB)
            await disk.write(2 * MIB - 512, b"y" * 512)
            assert await disk.read(MIB - 512, 512) == b"x" * 512
            await disk.truncate(1000, exact=False)
            assert (disk.length, image.stat().st_size) == (1024, PAYLOAD + 1000)
            with pytest.raises(BlockyardError) as caught:
                await disk.node.driver.check_resize((1 << 63) - 512)
            assert str(caught.value) == "The requested file size is too large"

    in_yard(main)


# -- requests


def test_requests_of_every_length_and_place(image: Path) -> None:
    """Short ones are worked on by the loop, long ones by the pool, longer ones in pieces."""
    os.truncate(image, PAYLOAD + 8 * MIB)
    data = os.urandom(8 * MIB)

    async def main(yard: Yard) -> None:
        async with await yard.open(options_of(image)) as disk:
            await disk.write(0, data)
            for length in (1, 511, 512, 513, 4096, 32768, 33280, 65537, MIB, MIB + 1, 3 * MIB):
                for offset in (0, 1, 512, 8 * MIB - length):
                    assert await disk.read(offset, length) == data[offset : offset + length]
            parts = [bytearray(n) for n in (1, 510, 513, 70000, 1024)]
            await disk.readv(100, parts)
            assert b"".join(parts) == data[100 : 100 + sum(map(len, parts))]
            await disk.writev(3, [b"a" * 7, b"b" * 70000, b"c" * 5])
            assert await disk.read(0, 70020) == (
                data[:3] + b"a" * 7 + b"b" * 70000 + b"c" * 5 + data[70015:70020]
            )

    in_yard(main)


def test_many_requests_on_several_loops(image: Path) -> None:
    os.truncate(image, PAYLOAD + 8 * MIB)

    async def main(yard: Yard) -> None:
        async with await yard.open(options_of(image)) as disk:

            async def work(number: int) -> None:
                at = number * 128 * 1024
                for length in (512, 4096, 65536, 128 * 1024):
                    data = bytes([number + 1]) * length
                    await disk.write(at, data)
                    assert await disk.read(at, length) == data

            async with anyio.create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(work, number)

    in_yard(main)


def test_zeroes_and_discards_are_not_seen_on_the_disk(image: Path) -> None:
    async def main(yard: Yard) -> None:
        async with await yard.open({**options_of(image), "discard": "unmap"}) as disk:
            await disk.write(0, b"x" * MIB)
            await disk.write_zeroes(0, 65536, may_unmap=True)
            assert await disk.read(0, 65537) == bytes(65536) + b"x"
            await disk.discard(65536, 65536)
            assert await disk.read(65536, 65536) == b"x" * 65536
            status = await disk.block_status(0, MIB)
            assert (status.data, status.zero, status.bytes) == (True, False, MIB)
            await disk.flush()

    in_yard(main)
    assert bytes(512) not in image.read_bytes()[PAYLOAD:]


# -- making


def create(image: Path, *secrets: dict[str, str], **options: Any) -> None:
    async def main(yard: Yard) -> None:
        given = {"size": MIB, **{name.replace("_", "-"): v for name, v in options.items()}}
        await format_image(visit(BlockdevCreateOptionsLUKS, given), yard)
        assert not yard.graph.nodes

    in_yard(main, *secrets)


def creation_error(image: Path, **options: Any) -> str:
    image.touch()
    with pytest.raises(BlockyardError) as caught:
        create(image, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Parameter 'key-secret' is required for cipher"),
        ({"key_secret": "other"}, "No secret with id 'other'"),
        ({"cipher_alg": "3des"}, "Algorithm '3des' not supported"),
        ({"cipher_alg": "des"}, "Algorithm 'des' not supported"),
        ({"cipher_alg": "cast5-128"}, "Unsupported cipher mode xts"),
        (
            {"cipher_alg": "cast5-128", "cipher_mode": "cbc", "ivgen_alg": "essiv"},
            "Cipher cast5-128 not supported with essiv",
        ),
        (
            {"ivgen_alg": "essiv", "ivgen_hash_alg": "sha1"},
            "No AES cipher with key size 20 available",
        ),
        ({"iter_time": 0}, "Parameter 'iter-time' expects a positive number"),
        ({"iter_time": -1}, "Parameter 'iter-time' expects a positive number"),
        ({"size": (1 << 63) - 512}, "The requested file size is too large"),
        ({"hash_alg": "crc32"}, "Parameter 'hash-alg' does not accept value 'crc32'"),
    ],
)
def test_what_cannot_be_made(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    if options:
        options = {"key_secret": "key", "iter_time": 10, **options}
    image = tmp_path / "disk.luks"
    assert creation_error(image, file=file_of(image), **options) == text


def test_what_has_no_place_cannot_be_made(tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    text = "Either the parameter 'header' or 'file' must be specified"
    assert creation_error(image) == text
    text = "Parameter 'preallocation' requires 'file' to be specified for formatting LUKS disk"
    assert creation_error(image, header=file_of(image), preallocation="full") == text
    text = "Cannot find device='none' nor node-name='none'"
    assert creation_error(image, file="none", key_secret="key") == text


def test_rounds_beyond_the_headers_room_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    text = creation_error(image, file=file_of(image), key_secret="key", iter_time=1 << 40)
    assert text.startswith("PBKDF iterations ")
    assert text.endswith(" larger than 4294967295: Numerical result out of range")


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
def test_preallocation(mode: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    image.touch()
    create(image, file=file_of(image), key_secret="key", iter_time=10, preallocation=mode)
    assert image.stat().st_size == PAYLOAD + MIB
    allocated = image.stat().st_blocks * 512
    assert (allocated >= PAYLOAD + MIB) == (mode in ("falloc", "full"))


def test_iteration_time_makes_rounds(tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    image.touch()
    rounds = []
    for iter_time in (1, 100):
        create(image, file=file_of(image), key_secret="key", iter_time=iter_time)
        rounds.append(struct.unpack_from(">I", image.read_bytes(), SLOT_ROUNDS)[0])
    assert rounds[0] >= 1000
    assert rounds[1] > 10 * rounds[0] or rounds[0] == 1000
    assert rounds[1] > 4000


def test_no_two_volumes_share_a_key(tmp_path: Path) -> None:
    image = tmp_path / "disk.luks"
    image.touch()
    headers = []
    for _ in range(2):
        create(image, file=file_of(image), key_secret="key", iter_time=10)
        headers.append(image.read_bytes()[:PAYLOAD])
    assert headers[0][112:164] != headers[1][112:164]
    assert headers[0][168:208] != headers[1][168:208]
    assert headers[0][4096:260096] != headers[1][4096:260096]


# -- measuring


@pytest.mark.parametrize(
    "options",
    [{}, {"cipher-alg": "aes-128", "cipher-mode": "cbc"}, {"cipher-alg": "serpent-192"}],
)
def test_measured_as_qemu_measures(options: dict[str, str], tmp_path: Path) -> None:
    given = ",".join(["key-secret=key", "iter-time=10", *(f"{k}={v}" for k, v in options.items())])
    words = ["--output=json", "-O", "luks", "--object", SECRET, "--size", 3 * MIB, "-o", given]
    told = qemu("qemu-img", "measure", *words)

    async def main() -> tuple[int, int]:
        wanted = {"key-secret": "key", "size": 3 * MIB, **options}
        found = await LuksDriver.measure(wanted, None)
        return found.required, found.fully_allocated

    required, full = anyio.run(main)
    assert f'"required": {required}' in told
    assert f'"fully-allocated": {full}' in told


def test_measuring_wants_what_making_wants(image: Path) -> None:
    async def main(yard: Yard) -> None:
        with pytest.raises(BlockyardError, match="^Parameter 'key-secret' is required for cipher$"):
            await LuksDriver.measure({"size": MIB}, None)
        async with await yard.open(file_of(image)) as disk:
            found = await LuksDriver.measure({"key-secret": "key"}, disk.node)
            assert found.required == PAYLOAD + disk.length

    in_yard(main)
