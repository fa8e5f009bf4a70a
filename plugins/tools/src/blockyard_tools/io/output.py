# SPDX-License-Identifier: Apache-2.0
"""What the program prints, in the order in which qemu-io's users are used to see it."""

import os

__all__ = ["Output", "complain"]

#: Bytes that are held back where nobody watches, as the C library does it for qemu-io:
#: complaints, which are not held back, come before what was printed lately.
_BLOCK = 4096


class Output:
    """Standard output: by the line on a terminal, in blocks elsewhere."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._watched = os.isatty(fd)
        self._held = bytearray()

    def write(self, text: str) -> None:
        """Print the text; nothing is added to it."""
        self._held += text.encode(errors="surrogateescape")
        if self._watched:
            self._put(self._held.rfind(b"\n") + 1)
        elif len(self._held) >= _BLOCK:
            self._put(len(self._held) // _BLOCK * _BLOCK)

    def line(self, text: str) -> None:
        """Print a line."""
        self.write(text + "\n")

    def flush(self) -> None:
        """Let all out."""
        self._put(len(self._held))

    def _put(self, count: int) -> None:
        view = memoryview(bytes(self._held[:count]))
        del self._held[:count]
        while view:
            view = view[os.write(self._fd, view) :]


def complain(text: str) -> None:
    """Print a line to standard error, at once."""
    view = memoryview(f"{text}\n".encode(errors="surrogateescape"))
    while view:
        view = view[os.write(2, view) :]
