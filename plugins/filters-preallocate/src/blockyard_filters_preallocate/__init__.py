# SPDX-License-Identifier: Apache-2.0
"""The filter ``preallocate``."""

from blockyard_filters_preallocate.schema import PREALLOCATE

__all__ = ["PREALLOCATE"]
