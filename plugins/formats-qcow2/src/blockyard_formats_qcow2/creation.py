# SPDX-License-Identifier: Apache-2.0
"""The options by which people make and amend qcow2 images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.creation import SIZE, CreateOption, Creation, Kind, boolean
from blockyard.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QCOW2"]

#: How versions were called before.
_VERSIONS = {"0.10": "v2", "1.1": "v3"}


def _text(name: str, explanation: str, default: str | None = None) -> CreateOption:
    return CreateOption(name, Kind.TEXT, explanation, default)


def _flag(name: str, explanation: str, default: str | None = None) -> CreateOption:
    return CreateOption(name, Kind.BOOL, explanation, default)


_COMPAT = _text("compat", "Compatibility level (v2 [0.10] or v3 [1.1])")
_BACKING_FILE = _text("backing_file", "File name of a base image")
_BACKING_FMT = _text("backing_fmt", "Image format of the base image")
_DATA_FILE = _text("data_file", "File name of an external data file")
_DATA_FILE_RAW = _flag("data_file_raw", "The external data file must stay valid as a raw image")
_LAZY = "Postpone refcount updates"
_BITS = "Width of a reference count entry in bits"
_ITER_TIME = CreateOption(
    "encrypt.iter-time", Kind.NUMBER, "Time to spend in PBKDF in milliseconds"
)


def _members(values: Mapping[str, str]) -> dict[str, str]:
    """The members of BlockdevCreateOptionsQcow2.

    :raises InvalidOption: if encryption is asked for in two ways.
    """
    found = {name.replace("_", "-"): value for name, value in values.items()}
    if "compat" in found:
        version = found.pop("compat")
        found["version"] = _VERSIONS.get(version, version)
    legacy = found.pop("encryption", None)
    if legacy is not None and boolean("encryption", legacy):
        if "encrypt.format" in found:
            raise InvalidOption(
                "'encrypt.format' and its alias 'encryption' can't be used at the same time"
            )
        found["encrypt.format"] = "aes"
    # The image's own word for the old cipher, which QAPI calls by the older format's name.
    if found.get("encrypt.format") == "aes":
        found["encrypt.format"] = "qcow"
    return found


QCOW2 = Creation(
    options=(
        _flag(
            "encryption",
            "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        ),
        _text("encrypt.format", "Encrypt the image, format choices: 'aes', 'luks'"),
        _text("encrypt.key-secret", "ID of secret providing qcow AES key or LUKS passphrase"),
        _text("encrypt.cipher-alg", "Name of encryption cipher algorithm"),
        _text("encrypt.cipher-mode", "Name of encryption cipher mode"),
        _text("encrypt.ivgen-alg", "Name of IV generator algorithm"),
        _text("encrypt.ivgen-hash-alg", "Name of IV generator hash algorithm"),
        _text("encrypt.hash-alg", "Name of encryption hash algorithm"),
        _ITER_TIME,
        CreateOption("cluster_size", Kind.SIZE, "qcow2 cluster size", "65536"),
        _flag("extended_l2", "Extended L2 tables", "off"),
        _text("preallocation", "Preallocation mode (allowed values: off, metadata, falloc, full)"),
        _text("compression_type", "Compression method used for image cluster compression", "zlib"),
        SIZE,
        _COMPAT,
        _BACKING_FILE,
        _BACKING_FMT,
        _DATA_FILE,
        _DATA_FILE_RAW,
        _flag("lazy_refcounts", _LAZY, "off"),
        CreateOption("refcount_bits", Kind.NUMBER, _BITS, "16"),
    ),
    amend=(
        _text("encrypt.state", "Select new state of affected keyslots (active/inactive)"),
        CreateOption(
            "encrypt.keyslot", Kind.NUMBER, "Select a single keyslot to modify explicitly"
        ),
        _text("encrypt.old-secret", "Select all keyslots that match this password"),
        _text(
            "encrypt.new-secret",
            "New secret to set in the matching keyslots. Empty string to erase",
        ),
        _ITER_TIME,
        SIZE,
        _COMPAT,
        _BACKING_FILE,
        _BACKING_FMT,
        _DATA_FILE,
        _DATA_FILE_RAW,
        _flag("lazy_refcounts", _LAZY),
        CreateOption("refcount_bits", Kind.NUMBER, _BITS),
    ),
    members=_members,
)
