# SPDX-License-Identifier: Apache-2.0
"""The filter ``copy-on-read``."""

from blockyard_filters_copy_on_read.schema import COPY_ON_READ

__all__ = ["COPY_ON_READ"]
