# SPDX-License-Identifier: Apache-2.0
"""The format of an image that a person names."""

import os

import pytest

from blockyard.probe import guess, guess_bytes

MARKS = [
    ("qcow2", b"QFI\xfb\0\0\0\x03"),
    ("qcow2", b"QFI\xfb\0\0\0\x02"),
    ("qcow", b"QFI\xfb\0\0\0\x01"),
    ("qed", b"QED\0"),
    ("vmdk", b"KDMV\x01\0\0\0"),
    ("vmdk", b"COWD"),
    ("vmdk", b"# Disk DescriptorFile\nversion=1\n"),
    ("vhdx", b"vhdxfile"),
    ("vpc", b"conectix"),
    ("luks", b"LUKS\xba\xbe\0\x01"),
    ("parallels", b"WithoutFreeSpace"),
    ("parallels", b"WithouFreSpacExt"),
    ("vdi", b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe"),
    ("bochs", b"Bochs Virtual HD Image\0"),
]


@pytest.mark.parametrize(("name", "head"), MARKS)
def test_a_mark_is_certain_and_quoted(name, head):
    found = guess_bytes(head.ljust(4096, b"\0"))
    assert (found.format, found.certain) == (name, True)
    assert found.reason


@pytest.mark.parametrize("head", [b"", b"\0", bytes(4096), b"\xff" * 4096, b"version=1", b"\nx\n"])
def test_everything_else_is_raw_and_a_guess(head):
    found = guess_bytes(head)
    assert found.certain is (found.format != "raw")
    if not head.startswith(b"version="):
        assert found.format == "raw"


def test_raw_says_what_is_seen_in_it():
    assert "boot sector" in guess_bytes(bytes(510) + b"\x55\xaa").reason
    assert "GPT" in guess_bytes(bytes(512) + b"EFI PART").reason
    assert "ext file system" in guess_bytes(bytes(1080) + b"\x53\xef").reason


def test_a_fixed_vhd_has_its_mark_at_the_end(tmp_path):
    image = tmp_path / "x.vhd"
    image.write_bytes(bytes(10000) + b"conectix".ljust(512, b"\0"))
    assert guess(str(image)).format == "vpc"


@pytest.mark.parametrize("length", [0, 1, 3, 511, 513])
def test_short_files_are_raw(tmp_path, length):
    image = tmp_path / "x"
    image.write_bytes(bytes(length))
    assert guess(str(image)).format == "raw"


def test_a_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="neither a regular file nor a block device"):
        guess(str(tmp_path / "fifo"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        guess(str(tmp_path))
