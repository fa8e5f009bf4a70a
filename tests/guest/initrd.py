# SPDX-License-Identifier: Apache-2.0
"""What the guest starts from: busybox, modules and a script, in an initramfs archive."""

__all__ = ["initrd"]

#: Always loaded: the way to the host's files.
BASE = ("9pnet_virtio", "9p", "overlay")

#: The host's root, read-only, under an overlay in memory; the command's own folder, writable.
_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod /modules/$module.ko || echo "guest: module $module was refused"
done
flags=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o ro,cache=loose,$flags host /lower || echo "guest: no root of the host"
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/run/lock /root/share
mount -t 9p -o rw,cache=none,$flags share /root/share || echo "guest: no folder to share"
ip link set lo up
chroot /root /bin/sh /share/command </root/dev/null >/root/share/stdout 2>/root/share/stderr
echo $? >/root/share/status
printf '\\1' | dd of=/root/dev/port bs=1 seek=1281 conv=notrunc 2>/root/dev/null
"""

_FOLDERS = ("bin", "dev", "layer", "lower", "modules", "proc", "root", "sys")
_FOLDER, _SCRIPT, _PLAIN = 0o040755, 0o100755, 0o100644


def initrd(busybox, modules):
    """The archive's bytes.  ``modules``: (name, content) pairs in the order of loading."""
    order = "".join(f"{name}\n" for name, _ in modules)
    parts = [_entry(folder, _FOLDER) for folder in _FOLDERS]
    parts.append(_entry("bin/busybox", _SCRIPT, busybox))
    parts.append(_entry("init", _SCRIPT, _INIT.encode()))
    parts.append(_entry("modules/order", _PLAIN, order.encode()))
    parts += [_entry(f"modules/{name}.ko", _PLAIN, content) for name, content in modules]
    parts.append(_entry("TRAILER!!!", 0))
    return b"".join(parts)


def _entry(name, mode, content=b""):
    """One member in the format newc: fields of eight hexadecimal digits, padded to four bytes."""
    raw = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
