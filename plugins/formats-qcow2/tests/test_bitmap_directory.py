# SPDX-License-Identifier: Apache-2.0
"""The bitmap directory as hostile input: every field, and bytes at random."""

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blockyard.errors import InvalidOption
from blockyard_formats_qcow2.bitmapdir import build_directory, parse_directory

CLUSTER, DISK = 65536, 1 << 30
TABLE, ENTRIES, FLAGS, KIND, BITS, NAME_BYTES, EXTRA = 0, 8, 12, 16, 17, 18, 20


def entry(name=b"b", table=5 * CLUSTER, entries=1, flags=2, kind=1, bits=16, extra=b"", **lie):
    fixed = struct.pack(
        ">QIIBBHI", table, entries, flags, kind, bits,
        lie.get("name_bytes", len(name)), lie.get("extra_bytes", len(extra)),
    )  # fmt: skip
    data = fixed + extra + name
    return data + bytes(-len(data) % 8)


def test_what_is_read_is_written_alike():
    data = entry(b"one") + entry(b"two", flags=3, bits=9, entries=4) + entry(b"x" * 1023)
    assert build_directory(parse_directory(data, 3, CLUSTER, DISK)) == data


@pytest.mark.parametrize(
    ("data", "count", "text"),
    [
        (entry() + b"\0" * 8, 1, "Broken bitmap directory"),
        (entry(name_bytes=9), 1, "Broken bitmap directory"),
        (entry(extra_bytes=0xFFFFFFFF), 1, "Broken bitmap directory"),
        (entry(extra=b"12345678"), 1, "Bitmap extra data is not supported"),
        (entry() * 2, 1, "More bitmaps found than specified in header extension"),
        (entry(), 2, "Less bitmaps found than specified in header extension"),
        *(
            (data, 1, "Bitmap 'b' doesn't satisfy the constraints")
            for data in (
                entry(table=0),
                entry(table=CLUSTER + 512),
                entry(table=1 << 63),
                entry(entries=0),
                entry(entries=0xFFFFFFFF),
                entry(entries=0x8000001),
                entry(flags=4),
                entry(flags=0x80000000),
                entry(kind=0),
                entry(bits=8),
                entry(bits=32),
                entry(bits=9, entries=1),
            )
        ),
        (entry(b""), 1, "Bitmap '' doesn't satisfy the constraints"),
        (entry(b"x" * 1024), 1, f"Bitmap '{'x' * 1024}' doesn't satisfy the constraints"),
    ],
)
def test_what_is_wrong_is_told(data, count, text):
    with pytest.raises(InvalidOption) as caught:
        parse_directory(data, count, CLUSTER, DISK)
    assert str(caught.value) == text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 5), st.sampled_from([512, 65536, 2 << 20]))
@example(b"\xff" * 48, 2, 512)
def test_any_bytes_are_read_or_refused(data, count, cluster):
    with suppress(InvalidOption):
        for each in parse_directory(data, count, cluster, DISK):
            assert each.table_entries * cluster <= 512 << 20


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 95), st.integers(0, 255)), max_size=4))
def test_any_byte_may_be_another(changes):
    data = bytearray(entry(b"one") + entry(b"two") + entry(b"three"))
    for at, value in changes:
        data[at] = value
    with suppress(InvalidOption):
        for each in parse_directory(bytes(data), 3, CLUSTER, DISK):
            assert 0 < each.table_entries <= 0x8000000


def test_many_bitmaps_take_no_long_time():
    """The largest directory; each entry is looked at once, and no more is copied."""
    data = entry(b"x" * 990) * 65535
    assert len(data) < 64 << 20
    assert len(parse_directory(data, 65535, CLUSTER, DISK)) == 65535
