# SPDX-License-Identifier: Apache-2.0
"""The conformance kit over real servers, each with its own idea of the protocol."""

import servers
from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

MISSING = (
    {"driver": "nbd", "server": {"type": "unix", "path": "/nonexistent/socket"}},
    {"driver": "nbd", "server": {"type": "inet", "host": "localhost", "port": "none"}},
)


def subject(start, large=False, size=4 << 20, **options):
    def make(folder, size):
        return start(folder, size).options(discard="unmap", **options)

    return Subject(make=make, refused=MISSING, large=large, size=size)


def qemu_nbd(folder, size):
    file = servers.image(folder, size)
    return servers.qemu_nbd(folder, file, "--discard=unmap")


def read_only(folder, size):
    return servers.qemu_nbd(folder, servers.image(folder, size), "-r")


def blockyard(folder, size):
    file = servers.image(folder, size)
    return servers.blockyard(
        folder, "--blockdev", f"driver=file,filename={file},node-name=disk,discard=unmap"
    )


def storage_daemon(folder, size):
    file = servers.image(folder, size)
    return servers.storage_daemon(
        folder, "--blockdev", f"driver=file,filename={file},node-name=disk,discard=unmap"
    )


def nbdkit(*flags, **settings):
    words = [f"{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return lambda folder, size: servers.nbdkit(folder, *flags, "memory", f"{size}", *words)


class TestQemuNbd(ConformanceSuite):
    subject = subject(qemu_nbd, large=True)


class TestReadOnly(ConformanceSuite):
    subject = subject(read_only, **{"read-only": True})


class TestBlockyard(ConformanceSuite):
    subject = subject(blockyard, large=True)


class TestStorageDaemon(ConformanceSuite):
    subject = subject(storage_daemon, large=True)


class TestNbdkit(ConformanceSuite):
    subject = subject(nbdkit())


class TestWithoutRing(ConformanceSuite):
    subject = subject(nbdkit())
    without_ring = True
    backend = "trio"


class TestSimpleReplies(ConformanceSuite):
    """The oldest transmission phase: no structured replies, no block status."""

    subject = subject(nbdkit("--no-sr"))


class TestBlocks(ConformanceSuite):
    """Requests are multiples of what the server wants, and not too long."""

    subject = subject(
        nbdkit(
            "--filter=blocksize-policy",
            blocksize_minimum=4096,
            blocksize_preferred=4096,
            blocksize_maximum=65536,
            blocksize_error_policy="error",
        )
    )


class TestFewAbilities(ConformanceSuite):
    """Core does what the server cannot."""

    subject = subject(
        nbdkit(
            *("--filter=noextents", "--filter=nozero", "--filter=nocache"),
            zeromode="none",
            cachemode="none",
        )
    )


class TestSlow(ConformanceSuite):
    """Replies come late and in another order."""

    subject = subject(nbdkit("--filter=delay", rdelay="3ms", wdelay="2ms"), size=256 << 10)
