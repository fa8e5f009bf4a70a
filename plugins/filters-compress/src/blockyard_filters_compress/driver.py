# SPDX-License-Identifier: Apache-2.0
"""The control half of ``compress``."""

from __future__ import annotations

import attrs

from blockyard.errors import Unsupported
from blockyard.filterdriver import FilterDriver
from blockyard.node import Opened
from blockyard_filters_compress.native import lib

__all__ = ["CompressDriver"]


class CompressDriver(FilterDriver):
    """Everything is written compressed, by whole clusters."""

    async def open(self) -> Opened:
        """See that the image can hold compressed clusters.

        :raises Unsupported: if it cannot.
        """
        if not self.shown.driver.can_compress():
            raise Unsupported(
                f"Compression is not supported for underlying format: {self.shown.type.name}"
            )
        cluster = self.shown.cluster_size or 1
        limits = attrs.evolve(self.shown_limits(), request_alignment=cluster)
        return Opened(ops=lib.by_compress_ops(), length=self.shown.length, limits=limits)

    def reopen_supported(self) -> bool:
        """There is nothing to change."""
        return False
