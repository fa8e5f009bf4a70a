# SPDX-License-Identifier: Apache-2.0
"""The ``luks`` format; :mod:`blockyard_formats_luks.crypto` is for other formats."""

from blockyard_formats_luks.schema import LUKS

__all__ = ["LUKS"]
