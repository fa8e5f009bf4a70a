# SPDX-License-Identifier: Apache-2.0
"""Blockyard: disk images served, converted and managed; a storage daemon made of plugins.

A program opens images with :class:`Yard` (asynchronous) or :func:`open_blocking`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.blocking import open_blocking
    from blockyard.yard import Yard

__all__ = ["Yard", "open_blocking"]

_HOMES = {"Yard": "blockyard.yard", "open_blocking": "blockyard.blocking"}


def __getattr__(name: str) -> Any:
    # Imported on use: whoever needs only a submodule does not pay for all.
    if name not in _HOMES:
        raise AttributeError(f"module 'blockyard' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
