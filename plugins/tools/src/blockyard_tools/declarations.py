# SPDX-License-Identifier: Apache-2.0
"""The programs, as ``blockyard --help`` lists them."""

from blockyard.cli.tool import Tool

__all__ = ["IMG", "IO", "NBD"]

IMG = Tool(
    "create, convert, check and describe images, as qemu-img does", "blockyard_tools.img.main"
)
IO = Tool("send single requests to an image, as qemu-io does", "blockyard_tools.io.main")
NBD = Tool("serve one image over NBD, as qemu-nbd does", "blockyard_tools.nbd.main")
