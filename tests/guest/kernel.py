# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel and busybox: downloaded once, unpacked into a cache, never installed.

The cache is ``BLOCKYARD_GUEST_CACHE``, or ``blockyard/guest`` in the user's cache folder.
"""

import fcntl
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Kernel", "UnavailableError"]

#: Brings vduse, nbd, ublk, nvme, vfio; the name of the real package is among its dependencies.
META_PACKAGE = "linux-image-6.12-amd64"
BUSYBOX_PACKAGE = "busybox-static"
#: What modules call one another where that is not a name: ``softdep`` may say an alias.
ALIASES = {"crypto_crc32c": "crc32c_generic"}
#: Seconds for apt: the kernel has 107 MB.
DOWNLOAD_LIMIT = 1200


class UnavailableError(Exception):
    """Raised when this machine cannot run a guest; the text says why."""


class Kernel:
    """An unpacked kernel: what boots, and its modules."""

    def __init__(self, folder):
        self.folder = folder
        #: An ELF file that QEMU boots directly.
        self.vmlinux = folder / "vmlinux"
        self.busybox = folder / "busybox"
        self._modules = next((folder / "root/lib/modules").iterdir())
        self._files = {_name(p): p for p in self._modules.rglob("*.ko.xz")}
        built_in = (self._modules / "modules.builtin").read_text().splitlines()
        self._built_in = {_name(Path(line)) for line in built_in}

    @classmethod
    def fetch(cls):
        """The kernel in the cache; downloaded if it is not there.

        :raises UnavailableError: if this machine has no apt, is of another kind or offline.
        """
        if platform.machine() != "x86_64" or not shutil.which("apt-get"):
            raise UnavailableError("the guest needs Debian on x86-64")
        cache = _cache()
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = cache / "kernel"
            if not folder.exists():
                _unpack(cache, folder)
        return cls(folder)

    def modules(self, names):
        """The modules of these names and all that they need, in the order of loading.

        Answers (name, content) pairs; what is built into the kernel is left out.
        """
        ordered = {}
        for name in names:
            self._add(name.replace("-", "_"), ordered)
        return list(ordered.items())

    def _add(self, name, ordered):
        if name in ordered or name in self._built_in:
            return
        assert name in self._files, f"the kernel has no module {name}"
        content = lzma.decompress(self._files[name].read_bytes())
        for needed in _needs(content):
            found = ALIASES.get(needed, needed)
            # What is needed softly may be absent.
            if found in self._files:
                self._add(found, ordered)
        ordered[name] = content


def _cache():
    chosen = os.environ.get("BLOCKYARD_GUEST_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "blockyard/guest"


def _name(path):
    return path.name.partition(".ko")[0].replace("-", "_")


def _needs(content):
    """From the section .modinfo, which holds ``key=value`` strings with a zero behind each."""
    for key, value in re.findall(rb"\0(depends|softdep)=([^\0]*)", content):
        text = value.decode()
        names = text.split(",") if key == b"depends" else text.replace("pre:", "").split()
        yield from (name.replace("-", "_") for name in names if name and ":" not in name)


# -- fetching


@contextmanager
def _new(cache, folder):
    """A folder that takes its name once it is complete."""
    made = Path(tempfile.mkdtemp(prefix="new-", dir=cache))
    try:
        yield made
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _unpack(cache, folder):
    with _new(cache, folder) as made:
        try:
            _download(made)
        except UnavailableError:
            # Lists that are missing, or so old that they name what is no longer there.
            _run("apt-get", "-q", "update")
            _download(made)
        for archive in made.glob("*.deb"):
            _run("dpkg-deb", "-x", archive, made / "root")
            archive.unlink()
        image = next((made / "root/boot").glob("vmlinuz-*"))
        (made / "vmlinux").write_bytes(_vmlinux(image.read_bytes()))
        shutil.copy(made / "root/bin/busybox", made / "busybox")


def _download(folder):
    words = ["apt-cache", "depends", META_PACKAGE]
    known = subprocess.run(words, capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", known)
    if found is None:
        raise UnavailableError(f"apt knows no package {META_PACKAGE}")
    for package in (found[1], BUSYBOX_PACKAGE):
        _run("apt-get", "-q", "download", package, cwd=folder)


def _run(*words, cwd=None):
    """Run a step of the download; its failure means that there is no kernel to be had."""
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, timeout=DOWNLOAD_LIMIT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise UnavailableError(f"{words[0]} {words[1]} failed: {done.stderr.strip()[-500:]}")


def _vmlinux(image):
    """The kernel proper, which the boot protocol's header (setup_sects, payload) points at."""
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    length = int.from_bytes(image[0x24C:0x250], "little")
    # The last four bytes are the unpacked size.
    payload = image[start : start + length - 4]
    zstd = shutil.which("zstd")
    if zstd is None:
        raise UnavailableError("zstd is not installed")
    return subprocess.run([zstd, "-dcq"], input=payload, capture_output=True, check=True).stdout
