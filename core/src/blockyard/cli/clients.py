# SPDX-License-Identifier: Apache-2.0
"""NBD URIs, and client commands that a person can paste."""

import shlex
from urllib.parse import quote

__all__ = ["client_commands", "tcp_uri", "unix_uri"]


def unix_uri(path: str, name: str = "") -> str:
    """The URI of an export on a unix socket (NBD's doc/uri.md)."""
    return f"nbd+unix:///{quote(name, safe='')}?socket={quote(path)}"


def tcp_uri(host: str, port: int, name: str = "") -> str:
    """The URI of an export on TCP; IPv6 addresses get their brackets."""
    where = f"[{host}]" if ":" in host else host
    return f"nbd://{where}:{port}/{quote(name, safe='')}".removesuffix("/")


def client_commands(uri: str, socket: str, *, writable: bool) -> list[tuple[str, str]]:
    """(purpose, command) pairs for a shell, quoted."""
    there = shlex.quote(uri)
    commands = [
        ("look at it", f"nbdinfo {there}"),
        ("copy it", f"nbdcopy --progress {there} copy.img"),
        ("convert it", f"qemu-img convert -f raw {there} -O qcow2 copy.qcow2"),
        ("read a block", f"qemu-io -r -f raw -c 'read -v 0 512' {there}"),
    ]
    if writable:
        commands.append(("write a block", f"qemu-io -f raw -c 'write -P 42 0 4k' {there}"))
    mount = "mount" if writable else "mount -o ro"
    attach = f"nbd-client -unix {shlex.quote(socket)} /dev/nbd0"
    commands.append(("mount it (root)", f"modprobe nbd; {attach} && {mount} /dev/nbd0 /mnt"))
    commands.append(("let go of it", "umount /mnt; nbd-client -d /dev/nbd0"))
    return commands
