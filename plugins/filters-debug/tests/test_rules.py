# SPDX-License-Identifier: Apache-2.0
"""The rule machine: ours against a model, and against QEMU's on whole configurations."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from rule_model import Error, Model, State

from blockyard.errors import ImageIOError
from blockyard_filters_debug.native import ffi, lib

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = st.integers(0, 3)
STATES = st.integers(0, 3)
IOTYPES = st.integers(0, 5).map(lambda bit: 1 << bit)
ERRORS = st.builds(
    Error,
    event=EVENTS,
    state=STATES,
    error=st.integers(1, 133),
    iotypes=st.integers(1, 63),
    offset=st.sampled_from([-1, -2, 0, 512, 4096]),
    once=st.booleans(),
)


class Machine(RuleBasedStateMachine):
    """Every history of events and requests has the same outcome in C and in the model."""

    @initialize(rules=st.lists(ERRORS | st.builds(State, EVENTS, STATES, STATES), max_size=8))
    def begin(self, rules: Any) -> None:
        self.model = Model()
        self.model.rules = list(rules)
        self.native = lib.by_blkdebug_create(ffi.new("struct by_blkdebug_settings *"))
        for each in rules:
            fields = {name: getattr(each, name) for name in each.__slots__ if name[0] != "_"}
            action = 0 if isinstance(each, Error) else 1
            native = ffi.new("struct by_blkdebug_rule *", {"action": action, **fields})
            assert lib.by_blkdebug_add(self.native, native) == 0

    @rule(event=EVENTS)
    def happen(self, event: int) -> None:
        self.model.event(event)
        lib.by_blkdebug_raise(self.native, event)

    @rule(iotype=IOTYPES, offset=st.sampled_from([0, 1, 512, 4000]), length=st.integers(0, 1024))
    def ask(self, iotype: int, offset: int, length: int) -> None:
        delay, immediately = ffi.new("uint64_t *"), ffi.new("bool *")
        result = lib.by_blkdebug_check(self.native, iotype, offset, length, delay, immediately)
        assert result == -self.model.request(iotype, offset, length)

    def teardown(self) -> None:
        if hasattr(self, "native"):
            lib.by_blkdebug_free(self.native)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# -- against QEMU

WHERE = ["read_aio", "write_aio", "pwritev", "pwritev_done", "flush_to_os", "flush_to_disk", "none"]
KINDS = ["read", "write", "flush", "write-zeroes", "discard"]
RULES = st.lists(
    st.one_of(
        st.tuples(
            st.just("inject-error"),
            st.fixed_dictionaries(
                {"event": st.sampled_from(WHERE), "errno": st.sampled_from(["5", "28", "1", "4"])},
                optional={
                    "state": st.sampled_from(["0", "1", "2"]),
                    "sector": st.sampled_from(["-1", "0", "1", "8"]),
                    "once": st.sampled_from(["on", "off"]),
                    "iotype": st.sampled_from(KINDS),
                    "immediately": st.sampled_from(["on", "off"]),
                },
            ),
        ),
        st.tuples(
            st.just("set-state"),
            st.fixed_dictionaries(
                {"event": st.sampled_from(WHERE), "new_state": st.sampled_from(["1", "2", "3"])},
                optional={"state": st.sampled_from(["0", "1", "2"])},
            ),
        ),
    ),
    min_size=1,
    max_size=5,
)
#: A flush of qemu-io says nothing, and so its result shows in what follows only.
COMMANDS = st.lists(
    st.sampled_from(["read 0 512", "read 4096 4096", "write 0 512", "write 512 8192", "flush"]),
    min_size=1,
    max_size=6,
)


def text_of(rules: Any) -> str:
    sections = []
    for kind, values in rules:
        lines = [f'{name} = "{value}"' for name, value in values.items()]
        sections.append("\n".join([f"[{kind}]", *lines, ""]))
    return "\n".join(sections)


async def ours(yard: Any, name: str, commands: list[str]) -> list[str]:
    said = []
    image = await yard.open_named(name, "raw")
    for command in commands:
        word, *numbers = command.split()
        result = "ok"
        try:
            if word == "read":
                await image.read(*map(int, numbers))
            elif word == "write":
                await image.write(int(numbers[0]), b"\xcd" * int(numbers[1]))
            else:
                await image.flush()
        except ImageIOError as error:
            result = os.strerror(error.errno or 0)
        if word != "flush":
            said.append(f"{word}: {result}")
    await image.close()
    return said


def theirs(qemu: Any, name: str, commands: list[str]) -> list[str]:
    said = []
    for line in qemu.io(name, *commands):
        word, _, rest = line.partition(" ")
        text = rest.removeprefix("failed: ") if rest.startswith("failed") else "ok"
        said.append(f"{'write' if word == 'wrote' else word}: {text}")
    return said


@given(rules=RULES, commands=COMMANDS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_configuration_does_what_it_does_in_qemu(
    rules: Any, commands: list[str], qemu: Any, image: Path, tmp_path: Path, in_yard: Any
) -> None:
    config = tmp_path / "rules"
    config.write_text(text_of(rules))
    name = f"blkdebug:{config}:{image}"

    assert in_yard(lambda yard: ours(yard, name, commands)) == theirs(qemu, name, commands)


def test_a_write_is_announced_once_below_raw(
    qemu: Any, image: Path, tmp_path: Path, in_yard: Any
) -> None:
    rules = [
        ("set-state", {"event": "pwritev", "state": "1", "new_state": "2"}),
        ("inject-error", {"event": "pwritev", "state": "2"}),
    ]
    (tmp_path / "rules").write_text(text_of(rules))
    name, commands = f"blkdebug:{tmp_path / 'rules'}:{image}", ["write 0 512", "write 0 512"]

    found = in_yard(lambda yard: ours(yard, name, commands))

    assert found == theirs(qemu, name, commands) == ["write: ok", "write: Input/output error"]


def test_every_errno_of_the_host_arrives(image: Path, in_yard: Any) -> None:
    async def attempt(yard: Any, number: int) -> int | None:
        rules = [{"event": "read_aio", "errno": number}]
        disk = await yard.open(
            {
                "driver": "raw",
                "file": {
                    "driver": "blkdebug",
                    "inject-error": rules,
                    "image": {"driver": "file", "filename": str(image)},
                },
            }
        )
        try:
            await disk.read(0, 512)
        except ImageIOError as error:
            return error.errno
        finally:
            await disk.close()
        return 0

    for number in (errno.EPERM, errno.ENOSPC, errno.EREMOTEIO, 0, -5):
        assert in_yard(lambda yard, n=number: attempt(yard, n)) == max(number, 0)
