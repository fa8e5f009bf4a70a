# SPDX-License-Identifier: Apache-2.0
"""Programs for disk images: ``img``, ``io`` and ``nbd``."""

from blockyard_tools.declarations import IMG, IO, NBD

__all__ = ["IMG", "IO", "NBD"]
