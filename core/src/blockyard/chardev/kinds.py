# SPDX-License-Identifier: Apache-2.0
"""The kinds of chardev that are in core."""

from blockyard.chardev.base import ChardevType

__all__ = ["FILE", "MEMORY", "NULL", "PIPE", "PTY", "RINGBUF", "SOCKET", "STDIO"]

FILE = ChardevType(
    name="file",
    implementation="blockyard.chardev.file:FileChardev",
    parse="blockyard.chardev.parse:parse_file",
    parent="chardev-fd",
)
MEMORY = ChardevType(
    name="memory",
    implementation="blockyard.chardev.ringbuf:MemoryChardev",
    parse="blockyard.chardev.parse:parse_ringbuf",
    parent="chardev-ringbuf",
)
NULL = ChardevType(
    name="null",
    implementation="blockyard.chardev.null:NullChardev",
    parse="blockyard.chardev.parse:parse_null",
)
PIPE = ChardevType(
    name="pipe",
    implementation="blockyard.chardev.pipe:PipeChardev",
    parse="blockyard.chardev.parse:parse_pipe",
    parent="chardev-fd",
)
PTY = ChardevType(
    name="pty",
    implementation="blockyard.chardev.pty:PtyChardev",
    parse="blockyard.chardev.parse:parse_pty",
)
RINGBUF = ChardevType(
    name="ringbuf",
    implementation="blockyard.chardev.ringbuf:RingbufChardev",
    parse="blockyard.chardev.parse:parse_ringbuf",
)
SOCKET = ChardevType(
    name="socket",
    implementation="blockyard.chardev.socket:SocketChardev",
    parse="blockyard.chardev.parse:parse_socket",
)
STDIO = ChardevType(
    name="stdio",
    implementation="blockyard.chardev.stdio:StdioChardev",
    parse="blockyard.chardev.parse:parse_stdio",
    parent="chardev-fd",
)
