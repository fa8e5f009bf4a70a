# SPDX-License-Identifier: Apache-2.0
"""Any sequence of calls gives what a model in memory gives."""

import os
import tempfile
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from blockyard.yard import Yard

KEEP, PUNCH, ZERO = 1, 2, 16
SECTOR = 512
offsets = st.integers(0, 300_000)
lengths = st.integers(1, 150_000)


class Machine(RuleBasedStateMachine):
    """A growable file over ``raw`` over ``file``, and the bytes it should have."""

    files_type = None

    def __init__(self):
        super().__init__()
        self.stack = []
        self.folder = tempfile.TemporaryDirectory()
        portal = self.enter(start_blocking_portal())
        yard = self.enter(portal.wrap_async_context_manager(Yard()))
        self.files = self.files_type(portal, yard, Path(self.folder.name))
        self.files.add_disk(bytes(range(256)) * 256, discard="unmap")
        self.path = self.files.export(writable=True, growable=True)
        self.fd = os.open(self.path, os.O_RDWR)
        self.model = bytearray(bytes(range(256)) * 256)

    def enter(self, manager):
        self.stack.append(manager)
        return manager.__enter__()

    def teardown(self):
        os.close(self.fd)
        while self.stack:
            self.stack.pop().__exit__(None, None, None)
        self.folder.cleanup()

    def grow(self, end):
        """A node's length counts in sectors."""
        end = -(-end // SECTOR) * SECTOR
        self.model += bytes(max(0, end - len(self.model)))

    @rule(offset=offsets, length=lengths)
    def read(self, offset, length):
        assert os.pread(self.fd, length, offset) == self.model[offset : offset + length]

    @rule(offset=offsets, data=st.binary(min_size=1, max_size=64), times=st.sampled_from([1, 999]))
    def write(self, offset, data, times):
        data *= times
        self.grow(offset + len(data))
        assert os.pwrite(self.fd, data, offset) == len(data)
        self.model[offset : offset + len(data)] = data

    @rule(length=offsets)
    def truncate(self, length):
        os.ftruncate(self.fd, length)
        del self.model[length:]
        self.grow(length)

    @rule(offset=offsets, length=lengths, mode=st.sampled_from([PUNCH | KEEP, ZERO | KEEP, ZERO]))
    def zero(self, offset, length, mode):
        end = offset + length
        if mode == ZERO:
            self.grow(end)
        answer = self.files.attempt(self.files.fallocate, self.fd, mode, offset, length)
        if offset > len(self.model):
            assert answer == "EIO"
            return
        assert answer is None
        end = max(offset, min(end, len(self.model)))
        self.model[offset:end] = bytes(end - offset)

    @rule(offset=offsets, length=lengths)
    def allocate(self, offset, length):
        answer = self.files.attempt(self.files.fallocate, self.fd, 0, offset, length)
        if offset < len(self.model):
            assert answer == "ENOTSUP"
        else:
            assert answer is None
            self.grow(offset + length)

    @rule(offset=offsets)
    def seek(self, offset):
        data = self.files.attempt(os.lseek, self.fd, offset, os.SEEK_DATA)
        hole = self.files.attempt(os.lseek, self.fd, offset, os.SEEK_HOLE)
        if offset > len(self.model):
            assert (data, hole) == ("ENXIO", "ENXIO")
        elif data == "ENXIO":
            assert not any(self.model[offset:])
        else:
            assert offset <= data < len(self.model)
            assert not any(self.model[offset:data])
        if offset <= len(self.model):
            assert offset <= hole <= len(self.model)

    @rule()
    def flush(self):
        os.fsync(self.fd)

    @rule(length=st.integers(0, 600).map(lambda n: n * SECTOR))
    def resize(self, length):
        self.files.execute("block_resize", node_name="disk", size=length)
        del self.model[length:]
        self.grow(length)

    @invariant()
    def lengths_agree(self):
        assert os.fstat(self.fd).st_size == len(self.model)


def test_a_file_is_what_a_model_is(files):
    Machine.files_type = type(files)
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=checks
        ),
    )
