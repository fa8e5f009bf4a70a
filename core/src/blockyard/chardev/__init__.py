# SPDX-License-Identifier: Apache-2.0
"""Chardevs: what monitors talk through, a file for each kind."""

from blockyard.chardev.base import Chardev, ChardevType
from blockyard.chardev.registry import Chardevs, chardevs_of

__all__ = ["Chardev", "ChardevType", "Chardevs", "chardevs_of"]
