# SPDX-License-Identifier: Apache-2.0
"""Key slots added and erased, by x-blockdev-amend and by other formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from luks_volumes import (
    MIB,
    WORD,
    detached_header,
    file_of,
    in_yard,
    make_by_qemu,
    options_of,
    qemu,
    secret,
)

from blockyard.errors import BlockyardError, InvalidOption, from_errno
from blockyard.qmp.dispatcher import Dispatcher
from blockyard.schema import visit
from blockyard.schema.crypto import QCryptoBlockAmendOptionsLUKS, QCryptoBlockCreateOptionsLUKS
from blockyard_formats_luks.crypto import (
    Storage,
    Volume,
    add_keyslot,
    amend_luks,
    create_luks,
    erase_keyslot,
    open_luks,
)

if TYPE_CHECKING:
    from pathlib import Path

    from blockyard.yard import Yard

WHICH = (
    "To erase keyslot(s), either explicit keyslot index or the password currently "
    "contained in them must be given"
)
WORDS = {"key": b"word", "one": b"first", "two": b"second"}


class Disk:
    """A header in memory, that keeps a record of what was done to it."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.stable = bytes(content)
        self.log: list[tuple[str, int, int]] = []
        self.fails = ""
        self.storage = Storage(self.read, self.write, self.flush)

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    async def write(self, offset: int, data: bytes) -> None:
        if self.fails == ("header" if offset == 0 else "material"):
            raise from_errno(5, "Could not write encryption header")
        self.log.append(("write", offset, len(data)))
        self.content[offset : offset + len(data)] = data

    async def flush(self) -> None:
        self.log.append(("flush", 0, 0))
        self.stable = bytes(self.content)


async def make() -> tuple[Disk, Volume]:
    options = {"iter-time": 1, "cipher-alg": "aes-128", "cipher-mode": "cbc"}
    created = await create_luks(visit(QCryptoBlockCreateOptionsLUKS, options), WORDS["key"])
    content = bytearray(created.length)
    for offset, data in created.pieces:
        content[offset : offset + len(data)] = data
    return Disk(content), created.volume


async def amend(disk: Disk, volume: Volume, force: bool = False, **options: Any) -> None:
    if options["state"] == "active":
        options.setdefault("iter_time", 1)
    given = {name.replace("_", "-"): value for name, value in options.items()}

    def word(secret_id: str) -> bytes:
        if secret_id not in WORDS:
            raise InvalidOption(f"No secret with id '{secret_id}'")
        return WORDS[secret_id]

    visited = visit(QCryptoBlockAmendOptionsLUKS, given)
    await amend_luks(volume, visited, disk.storage, secret=word, key_secret="key", force=force)


async def opens(disk: Disk, word: str) -> bool:
    try:
        volume = await open_luks(disk.read, WORDS[word])
    except InvalidOption:
        return False
    volume.close()
    return True


def active(volume: Volume) -> list[int]:
    return [index for index, slot in enumerate(volume.info.slots) if slot.active]


def run(function: Any) -> None:
    async def main() -> None:
        disk, volume = await make()
        try:
            await function(disk, volume)
        finally:
            volume.close()

    anyio.run(main)


async def refusal(disk: Disk, volume: Volume, **options: Any) -> str:
    before, header = bytes(disk.content), volume.header
    with pytest.raises(BlockyardError) as caught:
        await amend(disk, volume, **options)
    assert (bytes(disk.content), volume.header) == (before, header)
    return str(caught.value)


# -- adding


def test_the_first_free_slot_is_set() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await amend(disk, volume, state="active", new_secret="one")
        assert active(volume) == [0, 1]
        assert await opens(disk, "one")
        assert await opens(disk, "key")
        await amend(disk, volume, state="active", new_secret="two", keyslot=6, secret="one")
        assert active(volume) == [0, 1, 6]
        assert await opens(disk, "two")

    run(main)


def test_material_is_stable_before_the_header_refers_to_it() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await amend(disk, volume, state="active", new_secret="one")
        slot = volume.info.slots[1]
        assert disk.log == [
            ("write", slot.key_offset, 64000),
            ("flush", 0, 0),
            ("write", 0, 592),
            ("flush", 0, 0),
        ]

    run(main)


@pytest.mark.parametrize("part", ["material", "header"])
def test_a_slot_that_could_not_be_written_is_not_there(part: str) -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        disk.fails = part
        with pytest.raises(BlockyardError, match="^Could not write encryption header: Input"):
            await amend(disk, volume, state="active", new_secret="one")
        assert active(volume) == [0]
        assert not await opens(disk, "one")

    run(main)


def test_what_adding_refuses() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        for options, text in (
            ({}, "'new-secret' is required to activate a keyslot"),
            (
                {"new_secret": "one", "old_secret": "key"},
                "'old-secret' must not be given when activating keyslots",
            ),
            (
                {"new_secret": "one", "keyslot": 8},
                "Invalid keyslot 8 specified, must be between 0 and 7",
            ),
            (
                {"new_secret": "one", "keyslot": -1},
                "Invalid keyslot 4294967295 specified, must be between 0 and 7",
            ),
            (
                {"new_secret": "one", "keyslot": 0},
                "Refusing to overwrite active keyslot 0 - please erase it first",
            ),
            ({"new_secret": "none"}, "No secret with id 'none'"),
            ({"new_secret": "one", "secret": "none"}, "No secret with id 'none'"),
            (
                {"new_secret": "one", "secret": "two"},
                "Invalid password, cannot unlock any keyslot",
            ),
            (
                {"new_secret": "one", "iter_time": 0},
                "Parameter 'iter-time' expects a positive number",
            ),
        ):
            assert await refusal(disk, volume, state="active", **options) == text

    run(main)


def test_eight_slots_are_all_there_are() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        for _ in range(7):
            await amend(disk, volume, state="active", new_secret="one")
        text = "Can't add a keyslot - all keyslots are in use"
        assert await refusal(disk, volume, state="active", new_secret="two") == text
        await amend(disk, volume, True, state="active", new_secret="two", keyslot=7)
        assert await opens(disk, "two")

    run(main)


# -- erasing


def test_slots_are_erased_by_number_and_by_word() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        for _ in range(2):
            await amend(disk, volume, state="active", new_secret="one")
        await amend(disk, volume, state="active", new_secret="two")
        await amend(disk, volume, state="inactive", old_secret="one")
        assert active(volume) == [0, 3]
        assert not await opens(disk, "one")
        await amend(disk, volume, state="inactive", keyslot=3, old_secret="two")
        assert active(volume) == [0]
        assert await opens(disk, "key")

    run(main)


def test_nothing_of_an_erased_slot_is_left() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await amend(disk, volume, state="active", new_secret="one")
        offset = volume.info.slots[1].key_offset
        material = disk.content[offset : offset + 64000]
        salt = volume.header.slots[1].salt
        disk.log.clear()
        await erase_keyslot(volume, disk.storage, 1)
        assert salt not in disk.stable
        left = disk.stable[offset : offset + 64000]
        assert sum(a == b for a, b in zip(material, left, strict=True)) < 1000
        assert disk.log[:2] == [("write", 0, 592), ("flush", 0, 0)]
        assert disk.log[2:] == [("write", offset, 64000), ("flush", 0, 0)] * 40

    run(main)


def test_material_goes_even_if_the_header_cannot_be_written() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await amend(disk, volume, state="active", new_secret="one")
        disk.fails = "header"
        with pytest.raises(BlockyardError, match="^Could not write encryption header"):
            await amend(disk, volume, state="inactive", keyslot=1)
        disk.fails = ""
        assert not await opens(disk, "one")

    run(main)


def test_what_erasing_refuses() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await amend(disk, volume, state="active", new_secret="one")
        for options, text in (
            (
                {},
                WHICH,
            ),
            ({"new_secret": "one"}, "'new-secret' must not be given when erasing keyslots"),
            (
                {"keyslot": 1, "iter_time": 5},
                "'iter-time' must not be given when erasing keyslots",
            ),
            (
                {"keyslot": 1, "secret": "key"},
                "'secret' must not be given when erasing keyslots",
            ),
            ({"keyslot": -3}, "Invalid keyslot -3 specified, must be between 0 and 7"),
            ({"keyslot": 2}, "Given keyslot 2 is already erased (inactive) "),
            (
                {"keyslot": 1, "old_secret": "key"},
                "Given keyslot 1 doesn't contain the given old password for erase operation",
            ),
            ({"old_secret": "none"}, "No secret with id 'none'"),
            (
                {"old_secret": "two"},
                "No keyslots match given (old) password for erase operation",
            ),
        ):
            assert await refusal(disk, volume, state="inactive", **options) == text

    run(main)


def test_the_last_slot_goes_only_by_force() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        assert await refusal(disk, volume, state="inactive", keyslot=0) == (
            "Attempt to erase the only active keyslot 0 which will erase all the data in the "
            "image irreversibly - refusing operation"
        )
        assert await refusal(disk, volume, state="inactive", old_secret="key") == (
            "All the active keyslots match the (old) password that was given and erasing them "
            "will erase all the data in the image irreversibly - refusing operation"
        )
        await amend(disk, volume, True, state="inactive", keyslot=0)
        assert active(volume) == []
        assert not await opens(disk, "key")

    run(main)


def test_a_slot_of_another_format_is_added_without_options() -> None:
    async def main(disk: Disk, volume: Volume) -> None:
        await add_keyslot(
            volume,
            disk.storage,
            5,
            passphrase=WORDS["key"],
            new_passphrase=lambda: WORDS["two"],
            iter_time=1,
        )
        assert active(volume) == [0, 5]
        assert await opens(disk, "two")

    run(main)


# -- x-blockdev-amend


async def amend_node(yard: Yard, force: bool | None = None, **options: Any) -> str | None:
    """The error of the job."""
    dispatcher = Dispatcher(yard, yard.registry)
    given = {name.replace("_", "-"): value for name, value in options.items()}
    arguments: dict[str, Any] = {
        "job-id": "amend",
        "node-name": "disk",
        "options": {"driver": "luks", **given},
    }
    if force is not None:
        arguments["force"] = force
    await dispatcher.execute("x-blockdev-amend", arguments)
    while True:
        (job,) = await dispatcher.execute("query-jobs", {})
        if job["status"] == "concluded":
            break
        await anyio.sleep(0.01)
    await dispatcher.execute("job-dismiss", {"id": "amend"})
    error: str | None = job.get("error")
    return error


@pytest.mark.parametrize("apart", [False, True])
def test_an_image_in_use_is_amended(apart: bool, tmp_path: Path) -> None:
    image = make_by_qemu(tmp_path / "disk.luks")
    options = {**options_of(image), "node-name": "disk"}
    if apart:
        content = image.read_bytes()
        (tmp_path / "header.luks").write_bytes(detached_header(content[:-MIB]))
        image.write_bytes(content[-MIB:])
        options["header"] = file_of(tmp_path / "header.luks")

    async def main(yard: Yard) -> None:
        async with await yard.open(options) as disk:
            await disk.write(0, b"x" * MIB)
            assert await amend_node(yard, state="active", new_secret="one", iter_time=10) is None
            text = "Attempt to erase the only active keyslot"
            assert await amend_node(yard, state="inactive", keyslot=0) is None
            assert (await amend_node(yard, state="inactive", keyslot=1) or "").startswith(text)
            assert await disk.read(0, MIB) == b"x" * MIB
        async with await yard.open({**options, "key-secret": "one"}) as disk:
            assert await disk.read(0, MIB) == b"x" * MIB

    in_yard(main, secret(), secret("first", "one"))
    if not apart:
        opened = f"driver=luks,key-secret=one,file.driver=file,file.filename={image}"
        words = ["--object", "secret,id=one,data=first", "--image-opts", opened]
        assert "Pattern verification failed" not in qemu(
            "qemu-io", *words, "-c", "read -P 120 0 1M"
        )


def test_slots_of_qemus_are_used_and_erased(tmp_path: Path) -> None:
    image = make_by_qemu(tmp_path / "disk.luks")
    objects = ["--object", f"secret,id=key,data={WORD}", "--object", "secret,id=one,data=first"]
    opened = f"driver=luks,key-secret=key,file.driver=file,file.filename={image}"
    qemu(
        "qemu-img", "amend", *objects, "--image-opts", "-o",
        "state=active,new-secret=one,iter-time=10,keyslot=3", opened,
    )  # fmt: skip

    async def main(yard: Yard) -> None:
        options = {**options_of(image), "node-name": "disk", "key-secret": "one"}
        async with await yard.open(options) as disk:
            info = (await disk.node.driver.image_info())["format-specific"]["data"]
            assert [slot["active"] for slot in info["slots"]] == [
                True,
                *[False] * 2,
                True,
                *[False] * 4,
            ]
            assert await amend_node(yard, state="inactive", old_secret="one") is None
        with pytest.raises(BlockyardError, match="^Invalid password"):
            await yard.open(options)

    in_yard(main, secret(), secret("first", "one"))
