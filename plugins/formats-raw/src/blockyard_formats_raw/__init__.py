# SPDX-License-Identifier: Apache-2.0
"""The ``raw`` format: the image is the file, or a part of it."""

from blockyard_formats_raw.schema import RAW

__all__ = ["RAW"]
