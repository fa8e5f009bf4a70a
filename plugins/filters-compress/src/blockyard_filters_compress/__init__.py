# SPDX-License-Identifier: Apache-2.0
"""The filter ``compress``."""

from blockyard_filters_compress.schema import COMPRESS

__all__ = ["COMPRESS"]
