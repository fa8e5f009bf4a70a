# SPDX-License-Identifier: Apache-2.0
"""The names of things: what a user may choose, and what is made up where none was."""

import os
import sys

__all__ = ["identifier_ok", "made_up_name"]


def identifier_ok(text: str) -> bool:
    """Whether a user may call something so: a letter, then letters, digits and ``-._``."""
    return (
        text.isascii()
        and text[:1].isalpha()
        and all(char.isalnum() or char in "-._" for char in text)
    )


def made_up_name(counter: int) -> str:
    """A name that no user can have given: ``#block057``."""
    return f"#block{counter}{int.from_bytes(os.urandom(2), sys.byteorder) % 100:02}"
