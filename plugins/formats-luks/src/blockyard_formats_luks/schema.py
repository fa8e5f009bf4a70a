# SPDX-License-Identifier: Apache-2.0
"""Options of the LUKS format, and its declaration."""

from __future__ import annotations

from blockyard.node import ChildSpec, DriverType
from blockyard.permission import Role
from blockyard.schema.block import BlockdevOptionsGenericFormat, BlockdevRef, PreallocMode
from blockyard.schema.crypto import (
    QCryptoBlockAmendOptionsLUKS,
    QCryptoBlockCreateOptionsLUKS,
    QCryptoBlockInfoLUKS,
)
from blockyard.schema.declare import Size, struct

__all__ = ["LUKS", "BlockdevCreateOptionsLUKS", "BlockdevOptionsLUKS"]


@struct
class BlockdevOptionsLUKS(BlockdevOptionsGenericFormat):
    """An image encrypted with LUKS.

    key-secret: the id of the secret object that opens it.
    header: the node that holds the header, if it is not in the file.
    """

    key_secret: str | None = None
    header: BlockdevRef | None = None


@struct
class BlockdevCreateOptionsLUKS(QCryptoBlockCreateOptionsLUKS):
    """An encrypted image in a file that exists.

    file: the node that is to hold the data, and the header unless that is detached.
    header: the node that is to hold a detached header.
    size: bytes of the disk.
    preallocation: off, metadata, falloc or full, as far as the file's driver has them (off).
    """

    file: BlockdevRef | None = None
    header: BlockdevRef | None = None
    size: Size
    preallocation: PreallocMode | None = None


_MARK = b"LUKS\xba\xbe\x00\x01"


def _probe(start: bytes, name: str) -> int:
    """Magic number and version."""
    return 100 if start.startswith(_MARK) else 0


LUKS = DriverType(
    name="luks",
    kind="format",
    options=BlockdevOptionsLUKS,
    implementation="blockyard_formats_luks.driver:LuksDriver",
    create_options=BlockdevCreateOptionsLUKS,
    creation="blockyard_formats_luks.creation:LUKS",
    amend_options=QCryptoBlockAmendOptionsLUKS,
    image_info_type=QCryptoBlockInfoLUKS,
    children=(ChildSpec(name="file"), ChildSpec(name="header", role=Role.METADATA, optional=True)),
    probe=_probe,
)
