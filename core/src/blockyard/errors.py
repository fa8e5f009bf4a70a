# SPDX-License-Identifier: Apache-2.0
"""The errors that Blockyard raises.

Every error's text is what a QMP client reads in ``desc``; where QEMU has a
sentence for the case, it is QEMU's, word for word.  ``qmp_class`` is the error
class on the wire.  Each class derives also from the built-in that a caller
would catch, so library users need not know this module.
"""

import os
from typing import ClassVar

__all__ = [
    "BlockyardError",
    "Busy",
    "CommandNotFound",
    "DeviceNotFound",
    "ImageIOError",
    "InvalidOption",
    "NotFound",
    "PermissionConflict",
    "UnknownPlugin",
    "Unsupported",
    "from_errno",
    "from_os_error",
]


class BlockyardError(Exception):
    """Raised when an operation is refused or fails; the base of all others."""

    #: The QAPI ``QapiErrorClass`` that a QMP client sees.
    qmp_class: ClassVar[str] = "GenericError"

    #: What programs print below the text for people, and QMP leaves out; may have lines.
    hint: str = ""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    @property
    def told(self) -> str:
        """The text with the hint, as programs print it."""
        return f"{self}\n{self.hint}" if self.hint else str(self)


class InvalidOption(BlockyardError, ValueError):  # noqa: N818
    """Raised when an option, a value or a combination of them is not acceptable."""


class NotFound(BlockyardError, LookupError):  # noqa: N818
    """Raised when a node, export, job or object that was named does not exist."""


class DeviceNotFound(NotFound):
    """Raised when a device was named that does not exist, where QEMU has a class for it."""

    qmp_class = "DeviceNotFound"


class CommandNotFound(BlockyardError, LookupError):  # noqa: N818
    """Raised when a QMP command does not exist, or not in the present mode."""

    qmp_class = "CommandNotFound"


class Busy(BlockyardError):  # noqa: N818
    """Raised when the thing is used by somebody else, so that it must stay as it is."""


class PermissionConflict(Busy):
    """Raised when what one user needs is what another, or this node, does not allow."""


class UnknownPlugin(InvalidOption):
    """Raised when no installed plugin carries the name; the text says what to install."""


class Unsupported(BlockyardError, NotImplementedError):  # noqa: N818
    """Raised when the driver, format, job or export cannot do what was asked."""


class ImageIOError(BlockyardError, OSError):
    """Raised when the operating system refused or failed; ``errno`` says why.

    A request that fails raises it too: the text is the errno's.
    """

    def __init__(self, text: str, errno: int) -> None:
        super().__init__(text)
        self.errno = errno
        self.strerror = os.strerror(errno)


def from_errno(errno: int, context: str = "") -> ImageIOError:
    """An error whose text is ``context: strerror``, as QEMU's error_setg_errno.

    ``errno`` may be negative, as C returns it.
    """
    number = abs(errno)
    reason = os.strerror(number)
    return ImageIOError(f"{context}: {reason}" if context else reason, number)


def from_os_error(error: OSError, context: str = "") -> ImageIOError:
    """:func:`from_errno` for an ``OSError`` that the standard library raised."""
    return from_errno(error.errno or 5, context)
