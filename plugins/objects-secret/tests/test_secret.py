# SPDX-License-Identifier: Apache-2.0
"""What a secret takes, what it refuses and what it tells."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from blockyard.errors import BlockyardError, NotFound
from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard.yard import Yard
from blockyard_objects_secret.lookup import passphrase, secret_bytes
from blockyard_objects_secret.reading import LONGEST

KEY = b"k" * 32
VECTOR = b"i" * 16
IV = base64.b64encode(VECTOR).decode()


def encrypted(text: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(VECTOR)).encryptor()
    return encryptor.update(text) + encryptor.finalize()


def padded(text: bytes) -> bytes:
    count = 16 - len(text) % 16
    return text + bytes([count]) * count


async def add(yard: Yard, **options: Any) -> Any:
    given = {"qom-type": "secret", "id": "s", **options}
    return await yard.objects.add(visit(ObjectOptions, given))


def holds(**options: Any) -> bytes:
    async def main() -> bytes:
        async with Yard() as yard:
            await add(yard, id="key", data=base64.b64encode(KEY).decode(), format="base64")
            await add(yard, id="short", data="k" * 16)
            await add(yard, **options)
            return secret_bytes(yard.objects, "s")

    return anyio.run(main)


def refusal(**options: Any) -> str:
    with pytest.raises(BlockyardError) as caught:
        holds(**options)
    return str(caught.value)


# -- where it comes from


def test_data_is_the_secret() -> None:
    assert holds(data="pässword") == "pässword".encode()


def test_a_file_is_the_secret_to_its_last_byte(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"word\n\0\xff")
    assert holds(file=str(tmp_path / "key")) == b"word\n\0\xff"


def test_a_pipe_will_do() -> None:
    read, write = os.pipe()
    os.write(write, b"from a pipe")
    os.close(write)
    try:
        assert holds(file=f"/dev/fd/{read}") == b"from a pipe"
    finally:
        os.close(read)


def test_one_source_is_needed_and_no_more() -> None:
    assert refusal() == "Either 'file' or 'data' must be provided"
    assert refusal(data="x", file="y") == "'file' and 'data' are mutually exclusive"


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert refusal(file=str(missing)) == (
        f"Unable to read {missing}: Failed to open file “{missing}”: No such file or directory"
    )
    assert refusal(file=str(tmp_path)) == (
        f"Unable to read {tmp_path}: Error reading file “{tmp_path}”: Is a directory"
    )


def test_a_file_without_an_end_is_refused(tmp_path: Path) -> None:
    assert refusal(file="/dev/zero").endswith("File too large")
    (tmp_path / "long").write_bytes(bytes(LONGEST))
    assert len(holds(file=str(tmp_path / "long"))) == LONGEST


def test_a_fifo_without_a_writer_ends_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert holds(file=str(tmp_path / "fifo")) == b""


# -- base64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("YWJj", b"abc"),
        ("YWJj\n", b"abc"),
        ("YW\nJj", b"abc"),
        ("YWI=", b"ab"),
        ("YQ==", b"a"),
        ("YWJjZ", b"abc"),
        ("YW=Jj", b"a\t"),
        ("", b""),
    ],
)
def test_base64_is_decoded(text: str, value: bytes) -> None:
    assert holds(data=text, format="base64") == value


def test_other_characters_are_refused(tmp_path: Path) -> None:
    assert refusal(data="YW*j", format="base64") == "Base64 data contains invalid characters"
    (tmp_path / "key").write_bytes(b"YW\0Jj")
    text = refusal(file=str(tmp_path / "key"), format="base64")
    assert text == "Base64 data contains embedded NUL characters"


def test_there_is_no_other_format() -> None:
    assert refusal(data="x", format="hex") == "Parameter 'format' does not accept value 'hex'"


# -- encrypted by another


@pytest.mark.parametrize("length", [0, 5, 15, 16, 17, 300])
def test_a_secret_encrypted_by_another(length: int) -> None:
    text = bytes(number % 251 for number in range(length))
    data = base64.b64encode(encrypted(padded(text))).decode()
    assert holds(data=data, format="base64", keyid="key", iv=IV) == text


def test_raw_ciphertext_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(encrypted(padded(b"hello")))
    assert holds(file=str(tmp_path / "key"), keyid="key", iv=IV) == b"hello"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keyid": "none"}, "No secret with id 'none'"),
        ({"keyid": ""}, "No secret with id ''"),
        ({"keyid": "short", "iv": IV}, "Key should be 32 bytes in length"),
        ({"keyid": "key"}, "IV is required to decrypt secret"),
        ({"keyid": "key", "iv": "AAAA"}, "IV should be 16 bytes in length not 3"),
        ({"keyid": "key", "iv": ""}, "IV should be 16 bytes in length not 0"),
        ({"keyid": "key", "iv": "*"}, "Base64 data contains invalid characters"),
        ({"keyid": "key", "iv": IV}, "Length 15 must be a multiple of block size 16"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, str], text: str) -> None:
    assert refusal(data="x" * 15, **options) == text


@pytest.mark.parametrize(("last", "kept"), [(0, 16), (1, 15), (16, 0)])
def test_the_padding_is_cut_off(last: int, kept: int) -> None:
    data = base64.b64encode(encrypted(bytes([last]) * 16)).decode()
    value = holds(data=data, format="base64", keyid="key", iv=IV)
    assert value == bytes([last]) * kept


@pytest.mark.parametrize("last", [17, 255])
def test_padding_longer_than_a_block_is_refused(last: int) -> None:
    data = base64.b64encode(encrypted(bytes([last]) * 16)).decode()
    assert refusal(data=data, format="base64", keyid="key", iv=IV) == (
        f"Incorrect number of padding bytes ({last}) found on decrypted data"
    )


def test_a_vector_without_a_key_is_not_looked_at() -> None:
    assert holds(data="x", iv="nonsense*") == b"x"


def test_only_encrypted_secrets_import_a_cipher() -> None:
    program = (
        "import sys, anyio\n"
        "from blockyard.schema import visit\n"
        "from blockyard.schema.qom import ObjectOptions\n"
        "from blockyard.yard import Yard\n"
        "async def main():\n"
        "    async with Yard() as yard:\n"
        "        options = {'qom-type': 'secret', 'id': 's', 'data': 'eHg=', 'format': 'base64'}\n"
        "        await yard.objects.add(visit(ObjectOptions, options))\n"
        "anyio.run(main)\n"
        "print('cryptography' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


# -- found by others


def test_what_others_find() -> None:
    async def main() -> None:
        async with Yard() as yard:
            await add(yard, id="text", data="pässword")
            await add(yard, id="bytes", data="//8=", format="base64")
            await add(yard, id="nul", data="YQBi", format="base64")
            await yard.objects.add(visit(ObjectOptions, {"qom-type": "iothread", "id": "loop"}))
            assert passphrase(yard.objects, "text") == "pässword".encode()
            assert secret_bytes(yard.objects, "bytes") == b"\xff\xff"
            for name in ("bytes", "nul"):
                with pytest.raises(BlockyardError) as caught:
                    passphrase(yard.objects, name)
                assert str(caught.value) == f"Data from secret {name} is not valid UTF-8"
            with pytest.raises(NotFound, match="^No secret with id 'other'$"):
                passphrase(yard.objects, "other")
            with pytest.raises(BlockyardError, match="^Object with id 'loop' is not a secret$"):
                secret_bytes(yard.objects, "loop")

    anyio.run(main)


def test_an_ended_secret_is_wiped() -> None:
    async def main() -> None:
        async with Yard() as yard:
            found = await add(yard, data="word")
            value = found.value
            await yard.objects.delete("s")
            assert value == bytes(4)

    anyio.run(main)


# -- properties


def test_properties_are_told_and_set_without_changing_the_secret() -> None:
    async def main() -> None:
        async with Yard() as yard:
            found = await add(yard, data="eHg=", format="base64")
            properties = found.properties()
            assert {name: each.get() for name, each in properties.items()} == {
                "iv": "",
                "keyid": "",
                "format": "base64",
                "file": "",
                "data": "eHg=",
            }
            assert [each.type for each in properties.values()][2] == "QCryptoSecretFormat"
            properties["data"].set("other")
            properties["format"].set("raw")
            assert (properties["data"].get(), properties["format"].get()) == ("other", "raw")
            with pytest.raises(BlockyardError) as caught:
                properties["format"].set("hex")
            assert str(caught.value) == "Parameter 'format' does not accept value 'hex'"
            assert secret_bytes(yard.objects, "s") == b"xx"

    anyio.run(main)
