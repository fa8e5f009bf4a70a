# SPDX-License-Identifier: Apache-2.0
"""Running a command in the guest: its root is the host's, its kernel is another one."""

import ctypes
import mmap
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass

from guest.initrd import BASE, initrd
from guest.kernel import Kernel, UnavailableError

__all__ = ["Finished", "Machine"]

#: Seconds for a command, its start included: emulation on a busy machine is slow.
LIMIT = 600
#: QEMU's exit status when the guest has written 1 to the device that ends it.
_ENDED = 3
_KERNEL_WORDS = (
    "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic mitigations=off nokaslr "
    "random.trust_cpu=on no_timer_check tsc=reliable rcupdate.rcu_expedited=1 "
    "cryptomgr.notests lsm= audit=0 nmi_watchdog=0 nowatchdog i8042.noaux=1 i8042.nokbd=1 "
    "net.ifnames=0"
)


@dataclass
class Finished:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str
    #: What the kernel said.
    console: str

    def check(self):
        """Itself, if the command succeeded."""
        told = f"{self.stdout}\n{self.stderr}\n-- console --\n{self.console}"
        assert self.status == 0, f"status {self.status} in the guest\n{told}"
        return self


class Machine:
    """A guest to be; every :meth:`run` boots one and ends it."""

    def __init__(self, folder):
        """``folder`` is shared with the guest, where it is ``/share``, writable.

        :raises UnavailableError: if this machine cannot have one.
        """
        self.folder = folder
        self._qemu = shutil.which("qemu-system-x86_64")
        if self._qemu is None:
            raise UnavailableError("qemu-system-x86_64 is not installed")
        self._kernel = Kernel.fetch()

    def run(
        self, script, *, modules=(), qemu=(), machine="q35", append="", memory=1024, seconds=LIMIT
    ):
        """Run a script of /bin/sh as root in the guest.

        ``modules`` are loaded first, with what they need: nothing is loaded by itself.
        ``qemu`` are more words for QEMU, before its own devices; ``append`` is for the
        kernel.  The guest sees the host's files; what it writes there is forgotten, but
        for ``/share``.  Answers a :class:`Finished`.
        """
        self._prepare(script, modules)
        words = [*self._words(machine, append, memory, qemu)]
        with (self.folder / "qemu.log").open("wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the guest did not end in {seconds} s\n{self._told()}") from None
        finally:
            process.kill()
            process.wait()
        assert status == _ENDED, f"the guest fell, QEMU's status is {status}\n{self._told()}"
        exit_status = int(self._read("status"))
        return Finished(
            exit_status, self._read("stdout"), self._read("stderr"), self._read("console")
        )

    def _prepare(self, script, modules):
        loaded = self._kernel.modules([*BASE, *modules])
        content = initrd(self._kernel.busybox.read_bytes(), loaded)
        (self.folder / "initrd").write_bytes(content)
        path = os.environ.get("PATH", "/usr/bin:/bin")
        for folder in ("/usr/sbin", "/sbin"):
            path += "" if folder in path.split(":") else f":{folder}"
        lines = [f"export PATH={shlex.quote(path)} HOME=/root LANG=C.UTF-8 TMPDIR=/tmp"]
        (self.folder / "command").write_text("\n".join([*lines, "cd /share", script, ""]))
        for name in ("status", "stdout", "stderr", "console"):
            (self.folder / name).unlink(missing_ok=True)

    def _words(self, machine, append, memory, more):
        kernel = f"{_KERNEL_WORDS} tsc_early_khz={_tsc_khz()} {append}".strip()
        yield from (self._qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
        yield from ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2")
        yield from ("-m", str(memory), "-machine", machine, *map(str, more))
        yield from ("-kernel", str(self._kernel.vmlinux), "-initrd", str(self.folder / "initrd"))
        yield from ("-append", kernel)
        yield from ("-chardev", f"file,id=console,path={self.folder / 'console'}")
        yield from ("-serial", "chardev:console")
        yield from ("-device", "isa-debug-exit,iobase=0x501,iosize=1")
        yield from ("-object", "rng-random,id=rng,filename=/dev/urandom")
        yield from ("-device", "virtio-rng-pci,rng=rng")
        options = "security_model=none,multidevs=remap"
        yield from ("-fsdev", f"local,id=host,path=/,readonly=on,{options}")
        yield from ("-device", "virtio-9p-pci,fsdev=host,mount_tag=host")
        yield from ("-fsdev", f"local,id=share,path={self.folder},{options}")
        yield from ("-device", "virtio-9p-pci,fsdev=share,mount_tag=share")

    def _read(self, name):
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def _told(self):
        names = ("qemu.log", "console", "stdout", "stderr")
        return "\n".join(f"-- {name} --\n{self._read(name)[-4000:]}" for name in names)


def _tsc_khz():
    """The rate of this machine's time stamp counter.

    The guest's is the same, but a busy machine makes it count wrong.
    """
    # rdtsc; shl rdx, 32; or rax, rdx; ret
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))
    first = ctypes.c_char.from_buffer(code)
    counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(first))
    began, ticks = time.perf_counter_ns(), counter()
    time.sleep(0.05)
    ticks, passed = counter() - ticks, time.perf_counter_ns() - began
    del first
    code.close()
    return ticks * 1_000_000 // passed
