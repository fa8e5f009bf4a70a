# SPDX-License-Identifier: Apache-2.0
"""Headers as hostile input: every field, and bytes at random."""

import itertools
import struct
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luks_volumes import qemu_options

from blockyard.errors import BlockyardError, InvalidOption
from blockyard.schema.crypto import QCryptoCipherAlgo, QCryptoHashAlgo
from blockyard_formats_luks.header import (
    HEADER_BYTES,
    KEY_SLOTS,
    Header,
    KeySlot,
    key_slot_sectors,
    pack,
    parse,
)
from blockyard_formats_luks.method import DIGEST_BYTES, Method
from blockyard_formats_luks.native import lib

#: Where fields are (LUKS On-Disk Format Specification, 2.1 and 2.2).
VERSION, NAME, MODE, HASH = 6, 8, 40, 72
PAYLOAD, KEY_BYTES, ROUNDS, SLOTS, SLOT_BYTES = 104, 108, 164, 208, 48
STATE, SLOT_ROUNDS, SLOT_SECTOR, STRIPES = 0, 4, 40, 44


def good(**more: Any) -> Header:
    step = key_slot_sectors(64)
    slots = tuple(KeySlot(sector=8 + index * step) for index in range(KEY_SLOTS))
    fields: dict[str, Any] = {
        "cipher_name": "aes",
        "cipher_mode": "xts-plain64",
        "hash_spec": "sha256",
        "payload_sector": 8 + KEY_SLOTS * step,
        "key_bytes": 64,
        "digest": bytes(20),
        "digest_salt": bytes(32),
        "digest_rounds": 1000,
        "uuid": "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "slots": (slots[0].enabled(rounds=1000, salt=b"s" * 32), *slots[1:]),
    }
    return Header(**fields | more)


def broken(at: int, kind: str, value: Any) -> bytes:
    data = bytearray(pack(good()))
    struct.pack_into(kind, data, at, value)
    return bytes(data)


def slot(index: int, field: int) -> int:
    return SLOTS + index * SLOT_BYTES + field


def refusal(data: bytes, **how: bool) -> str:
    with pytest.raises(InvalidOption) as caught:
        Method.of(parse(data, **how))
    return str(caught.value)


def test_a_header_survives_the_disk() -> None:
    header = good()
    data = pack(header)
    assert len(data) == HEADER_BYTES
    assert parse(data) == header
    assert pack(parse(data + b"behind")) == data


def test_a_header_of_qemu_is_where_the_specification_says() -> None:
    data = pack(good())
    assert data[:8] == b"LUKS\xba\xbe\0\1"
    assert data[NAME : NAME + 4] == b"aes\0"
    assert struct.unpack_from(">I", data, KEY_BYTES) == (64,)
    assert struct.unpack_from(">II", data, slot(0, STATE)) == (0x00AC71F3, 1000)
    assert struct.unpack_from(">II", data, slot(7, SLOT_SECTOR)) == (8 + 7 * 504, 4000)


BAD: list[tuple[int, str, Any, str]] = [
    (0, "6s", b"LUKS\xba\xbf", "Volume is not in LUKS format"),
    (VERSION, ">H", 2, "LUKS version 2 is not supported"),
    (NAME, "32s", b"x" * 32, "LUKS header cipher name is not NUL terminated"),
    (MODE, "32s", b"x" * 32, "LUKS header cipher mode is not NUL terminated"),
    (HASH, "32s", b"x" * 32, "LUKS header hash spec is not NUL terminated"),
    (PAYLOAD, ">I", 7, "LUKS payload is overlapping with the header"),
    (PAYLOAD, ">I", 4039, "Keyslot 7 is overlapping with the encrypted payload"),
    (ROUNDS, ">I", 0, "LUKS key iteration count is zero"),
    (slot(3, STRIPES), ">I", 3999, "Keyslot 3 is corrupted (stripes 3999 != 4000)"),
    (slot(3, STRIPES), ">I", 1 << 31, f"Keyslot 3 is corrupted (stripes {-(1 << 31)} != 4000)"),
    (slot(0, STATE), ">I", 1, "Keyslot 0 state (active/disable) is corrupted"),
    (slot(0, SLOT_ROUNDS), ">I", 0, "Keyslot 0 iteration count is zero"),
    (slot(0, SLOT_SECTOR), ">I", 7, "Keyslot 0 is overlapping with the LUKS header"),
    (
        slot(2, SLOT_SECTOR),
        ">I",
        0x7FFFFFFF,
        "Keyslot 2 is overlapping with the encrypted payload",
    ),
    (slot(2, SLOT_SECTOR), ">I", 9, "Keyslots 0 and 2 are overlapping in the header"),
    (KEY_BYTES, ">I", 0xFFFFFFFF, "Keyslot 0 is overlapping with the encrypted payload"),
    (KEY_BYTES, ">I", 0, "Algorithm 'aes' with key size 0 bytes not supported"),
    (KEY_BYTES, ">I", 62, "Algorithm 'aes' with key size 31 bytes not supported"),
    (KEY_BYTES, ">I", 49, "XTS cipher key length should be a multiple of 2"),
    (NAME, "32s", b"rot13", "Algorithm 'rot13' with key size 32 bytes not supported"),
    (NAME, "32s", b"\xff", "Algorithm '\ufffd' with key size 32 bytes not supported"),
    (MODE, "32s", b"xts", "Unexpected cipher mode string format 'xts'"),
    (MODE, "32s", b"gcm-plain64", "Cipher mode 'gcm' not supported"),
    (MODE, "32s", b"xts-random", "IV generator 'random' not supported"),
    (MODE, "32s", b"xts-plain64:", "Hash algorithm '' not supported"),
    (MODE, "32s", b"xts-plain64:x", "Hash algorithm 'x' not supported"),
    (MODE, "32s", b"xts-essiv", "Missing IV generator hash specification"),
    (MODE, "32s", b"xts-essiv:sha1", "No AES cipher with key size 20 available"),
    (HASH, "32s", b"whirlpool", "Hash algorithm 'whirlpool' not supported"),
]


@pytest.mark.parametrize(("at", "kind", "value", "text"), BAD)
def test_bad_fields_are_refused_in_qemus_words(at: int, kind: str, value: Any, text: str) -> None:
    assert refusal(broken(at, kind, value)) == text


@pytest.mark.parametrize(("at", "kind", "value", "text"), BAD)
def test_qemu_says_the_same(at: int, kind: str, value: Any, text: str, tmp_path: Path) -> None:
    (tmp_path / "disk.luks").write_bytes(broken(at, kind, value).ljust(1 << 22, b"\0"))
    command = ["qemu-io", *qemu_options(tmp_path / "disk.luks"), "-c", "length"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert text in done.stderr.decode(errors="replace")


def test_what_is_missing_counts_as_zeroes() -> None:
    assert refusal(b"") == "Volume is not in LUKS format"
    with pytest.raises(InvalidOption):
        parse(pack(good())[:100])


def test_sums_of_sectors_do_not_wrap() -> None:
    text = "Keyslot 2 is overlapping with the encrypted payload"
    assert refusal(broken(slot(2, SLOT_SECTOR), ">I", 0xFFFFFFFF)) == text


def test_a_detached_header_has_no_data_to_overlap() -> None:
    header = parse(broken(PAYLOAD, ">I", 0), detached=True)
    assert header.payload_offset == 0
    assert refusal(broken(slot(2, SLOT_SECTOR), ">I", 9), detached=True) == (
        "Keyslots 0 and 2 are overlapping in the header"
    )


def test_hashes_of_other_generators_are_not_looked_at() -> None:
    method = Method.of(parse(broken(MODE, "32s", b"xts-plain64:sha1")))
    assert method.ivgen_hash is QCryptoHashAlgo.SHA1


@pytest.mark.parametrize(
    ("cipher", "hash_name", "text"),
    [
        ("serpent", "sha512", "No Serpent cipher with key size 64 available"),
        ("twofish", "sha384", "No Twofish cipher with key size 48 available"),
        ("cast5", "sha256", "Cipher cast5-128 not supported with essiv"),
    ],
)
def test_vectors_need_a_cipher_for_their_key(cipher: str, hash_name: str, text: str) -> None:
    header = good(cipher_name=cipher, cipher_mode=f"cbc-essiv:{hash_name}", key_bytes=16)
    assert refusal(pack(header)) == text


def test_short_blocks_have_no_xts() -> None:
    header = good(cipher_name="cast5", key_bytes=32)
    assert refusal(pack(header)) == "Unsupported cipher mode xts"


def test_digests_are_as_long_as_the_library_says() -> None:
    for hash_algo, length in DIGEST_BYTES.items():
        assert lib.by_luks_digest_bytes(getattr(lib, f"BY_LUKS_{hash_algo.name}")) == length


def test_every_key_length_names_its_cipher() -> None:
    for name, length, cipher in (
        ("aes", 16, QCryptoCipherAlgo.AES_128),
        ("serpent", 24, QCryptoCipherAlgo.SERPENT_192),
        ("twofish", 32, QCryptoCipherAlgo.TWOFISH_256),
        ("cast5", 16, QCryptoCipherAlgo.CAST5_128),
        ("sm4", 16, QCryptoCipherAlgo.SM4),
    ):
        header = good(cipher_name=name, cipher_mode="cbc-plain", key_bytes=length)
        method = Method.of(parse(pack(header)))
        assert (method.cipher, method.key_bytes, method.family) == (cipher, length, name)


# -- at random


@given(st.binary(max_size=2 * HEADER_BYTES), st.booleans())
def test_no_bytes_do_anything_but_parse_or_be_refused(data: bytes, detached: bool) -> None:
    try:
        Method.of(parse(data, detached=detached))
    except BlockyardError:
        pass


@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
def test_what_parses_keeps_its_promises(changes: list[tuple[int, int]], detached: bool) -> None:
    data = bytearray(pack(good()))
    for at, value in changes:
        data[at] = value
    try:
        header = parse(bytes(data), detached=detached)
        method = Method.of(header)
    except BlockyardError:
        return
    assert header.key_bytes == method.key_bytes <= 64
    spans = sorted((s.sector, s.sector + key_slot_sectors(header.key_bytes)) for s in header.slots)
    assert spans[0][0] >= 8
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert detached or spans[-1][1] <= header.payload_sector
    assert all(s.rounds for s in header.slots if s.active)


@given(
    st.integers(0, KEY_SLOTS - 1),
    st.integers(1, (1 << 32) - 1),
    st.binary(min_size=32, max_size=32),
)
def test_slots_are_put_back_where_they_were(index: int, rounds: int, salt: bytes) -> None:
    header = good()
    slot = header.slots[index].enabled(rounds=rounds, salt=salt)
    changed = header.with_slot(index, slot)
    assert parse(pack(changed)) == changed
    back = changed.with_slot(index, slot.disabled())
    assert back.slots[index] == attrs.evolve(slot, state=0xDEAD, rounds=0, salt=bytes(32))
