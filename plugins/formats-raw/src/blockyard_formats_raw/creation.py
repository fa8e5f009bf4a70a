# SPDX-License-Identifier: Apache-2.0
"""The options by which people make raw images: those of the file, which is all there is."""

from blockyard.creation import SIZE, Creation

__all__ = ["RAW"]

RAW = Creation(options=(SIZE,), transparent=True)
