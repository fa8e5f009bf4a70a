# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write and read them."""

import pytest

from blockyard_tools.sizes import human_size, parse_number, parse_size, size_and_bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "0.999 KiB"),
        (1024, "1 KiB"),
        (1000448, "977 KiB"),
        (1024000, "0.977 MiB"),
        (1500160, "1.43 MiB"),
        (1 << 40, "1 TiB"),
        ((1 << 63) - 1, "8 EiB"),
    ],
)
def test_sizes_are_shown_as_qemu_img_shows_them(size: int, text: str) -> None:
    assert human_size(size) == text


def test_the_bytes_are_beside_it() -> None:
    assert size_and_bytes(1536) == "1.5 KiB (1536 bytes)"


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("0x10", 16), ("1.5k", 1536), ("2M", 2 << 20), ("1.5", None), ("-1", None)],
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["16E", "99999999999999999999999", "99999999999999999999999k"])
def test_a_number_that_is_too_large_is_still_a_number(text: str) -> None:
    assert parse_number(text) == 1 << 64


@pytest.mark.parametrize(("text", "number"), [("-1", -1), ("-1024", -1), ("-0", None)])
def test_so_is_a_negative_one(text: str, number: int | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "1kB", "-5k", "-", "1.2.3"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert parse_number(text) is None
