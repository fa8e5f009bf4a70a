# SPDX-License-Identifier: Apache-2.0
"""Groups and nodes: limits, live changes, fairness, drains; next to a real daemon."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard_filters_throttle.group import native_limits
from blockyard_filters_throttle.limits import KINDS, Limits, Rate
from blockyard_filters_throttle.native import ffi, lib

NULL = {"driver": "null-co", "size": 1 << 30, "read-zeroes": True}
SECOND = 10**9


def group(name: str, **limits: int) -> tuple[str, dict[str, Any]]:
    given = {key.replace("_", "-"): value for key, value in limits.items()}
    return "object-add", {"qom-type": "throttle-group", "id": name, "limits": given}


def single(name: str, **limits: int) -> tuple[str, dict[str, Any]]:
    given = {f"x-{key.replace('_', '-')}": value for key, value in limits.items()}
    return "object-add", {"qom-type": "throttle-group", "id": name, **given}


def set_limits(name: str, value: Any) -> tuple[str, dict[str, Any]]:
    return "qom-set", {"path": f"/objects/{name}", "property": "limits", "value": value}


def get(name: str, what: str = "limits") -> tuple[str, dict[str, Any]]:
    return "qom-get", {"path": f"/objects/{name}", "property": what}


def node(name: str, group: str, file: Any = NULL) -> dict[str, Any]:
    return {"driver": "throttle", "node-name": name, "throttle-group": group, "file": file}


# -- what a real daemon says


def test_limits_are_checked_as_by_a_real_daemon(same: Any) -> None:
    most, length = 10**15, 1 << 32
    refused = [
        {"iops_total": 10, "iops_read": 5},
        {"bps_total": 10, "bps_write": 5},
        {"bps_total_max": 10, "bps_read_max": 5},
        {"iops_total": 10, "iops_total_max_length": 0},
        {"iops_total": 10, "iops_total_max_length": 5},
        {"iops_total": 10, "iops_total_max": 5},
        {"iops_total_max": 5},
        {"iops_total": -1},
        {"bps_read": most + 1},
        {"bps_total_max_length": -1},
        {"bps_total_max_length": -length},
        {"bps_total": 5, "bps_total_max": 100, "bps_total_max_length": length},
        {"iops_read_max_length": length, "bps_read_max_length": length},
        {"bps_total": 5, "bps_total_max": 10**14, "bps_total_max_length": 10000},
        {"iops_size": 512},
        {"iops_size": -1, "iops_total": most + 1},
    ]
    accepted = [
        {},
        {"bps_total": most},
        {"iops_total": 5, "iops_size": 1 << 40},
        {"iops_read": 5, "iops_write": 7, "bps_total": 1},
        {"bps_write": 5, "bps_write_max": 50, "bps_write_max_length": 60},
    ]
    commands = [group("g", **each) for each in refused]
    for number, each in enumerate(accepted):
        commands += [group(f"g{number}", **each), get(f"g{number}")]
    answers = same(commands)
    assert all(isinstance(each, str) for each in answers[: len(refused)])
    assert not any(isinstance(each, str) for each in answers[len(refused) :])


def test_single_limits_are_those_of_a_real_daemon(same: Any) -> None:
    same(
        [
            single("g", iops_total=-10),
            single("g", iops_total=10, iops_read=10),
            single("g", iops_total=5, iops_total_max=10, iops_total_max_length=1 << 32),
            single("g", iops_total=10, iops_total_max_length=0),
            single("g", iops_total=10, iops_total_max=20, iops_total_max_length=3),
            get("g"),
            get("g", "x-iops-total"),
            get("g", "x-iops-total-max-length"),
            get("g", "x-bps-read"),
            ("qom-set", {"path": "/objects/g", "property": "x-iops-total", "value": 5}),
            set_limits("g", {"iops-total": 30}),
            set_limits("g", {"iops-total": 5}),
            set_limits("g", {"iops-total": 30, "iops-read": 1}),
            set_limits("g", {"iops-total": "x"}),
            set_limits("g", 5),
            set_limits("g", {"foo": 1}),
            get("g"),
        ]
    )


def test_nodes_join_leave_and_move_as_in_a_real_daemon(same: Any) -> None:
    again = node("t", "g1", "n")
    del again["throttle-group"]
    same(
        [
            group("g1", iops_total=10),
            group("g2"),
            ("blockdev-add", node("t", "nobody")),
            ("blockdev-add", node("t", "")),
            ("blockdev-add", again),
            ("blockdev-add", node("t", "g1", {**NULL, "node-name": "n"})),
            ("object-del", {"id": "g2"}),
            group("g2"),
            ("blockdev-reopen", {"options": [node("t", "g2", "n")]}),
            ("blockdev-reopen", {"options": [node("t", "nobody", "n")]}),
            ("blockdev-reopen", {"options": [again]}),
            ("object-del", {"id": "g1"}),
            group("g1"),
            ("blockdev-add", {**NULL, "node-name": "n2"}),
            ("blockdev-reopen", {"options": [node("t", "g1", "n2")]}),
            ("block_resize", {"node-name": "t", "size": 1 << 20}),
            ("blockdev-del", {"node-name": "t"}),
            ("object-del", {"id": "g1"}),
        ]
    )


def test_a_group_with_nodes_is_kept(ours: Any) -> None:
    ours.answers([group("g"), ("blockdev-add", node("t", "g"))])
    (refusal,) = ours.answers([("object-del", {"id": "g"})])
    assert refusal == "Cannot delete throttle group 'g' with active references"
    ours.run("blockdev-del", node_name="t")
    ours.run("object-del", id="g")


def test_the_node_s_name_opens_the_same_again(ours: Any) -> None:
    ours.answers([group("g"), ("blockdev-add", node("t", "g"))])
    found = {each["node-name"]: each for each in ours.run("query-named-block-nodes", flat=True)}
    assert found["t"]["image"]["filename"] == (
        'json:{"throttle-group": "g", "driver": "throttle", "file": {"read-zeroes": true, '
        '"driver": "null-co", "size": 1073741824}}'
    )


# -- the arithmetic


class Model:
    """Leaky buckets in exact numbers: (level, leaking, size) of each, by direction."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.level = [[Fraction(0), Fraction(0)] for _ in KINDS]
        self.now = Fraction(0)

    def concerned(self, write: bool) -> list[int]:
        return [
            i for i, kind in enumerate(KINDS) if not kind.endswith(("read", "write")[not write])
        ]

    def leak(self, now: Fraction) -> None:
        for rate, level in zip(self.limits.rates, self.level, strict=True):
            level[0] = max(Fraction(0), level[0] - rate.average * (now - self.now))
            level[1] = max(Fraction(0), level[1] - rate.burst * (now - self.now))
        self.now = now

    def wait(self, write: bool) -> Fraction:
        longest = Fraction(0)
        for i in self.concerned(write):
            rate, level = self.limits.rates[i], self.level[i]
            if rate.average:
                size = rate.burst * rate.length if rate.burst else Fraction(rate.average, 10)
                longest = max(longest, (level[0] - size) / rate.average)
                if rate.length > 1:
                    longest = max(longest, (level[1] - Fraction(rate.burst, 10)) / rate.burst)
        return longest

    def begin(self, at: Fraction, write: bool, size: int) -> Fraction:
        self.leak(max(self.now, at))
        self.leak(self.now + self.wait(write))
        counted = self.limits.iops_size
        requests = Fraction(size, counted) if counted and size > counted else Fraction(1)
        for i in self.concerned(write):
            units = size if i < 3 else requests
            self.level[i] = [level + units for level in self.level[i]]
        return self.now


def _rates(*averages: int) -> st.SearchStrategy[Rate]:
    def bursts(average: int) -> st.SearchStrategy[Rate]:
        if not average:
            return st.just(Rate())
        with_burst = st.builds(
            Rate,
            average=st.just(average),
            burst=st.integers(average, average * 20),
            length=st.integers(1, 4),
        )
        return st.just(Rate(average=average)) | with_burst

    return st.sampled_from(averages).flatmap(bursts)


@st.composite
def all_limits(draw: Any) -> Limits:
    found: list[Rate] = []
    for averages in ((0, 4096, 100_000, 10**9), (0, 1, 7, 100, 20_000)):
        rate = _rates(*averages)
        together = draw(st.booleans())
        found += (draw(rate), Rate(), Rate()) if together else (Rate(), draw(rate), draw(rate))
    limits = Limits(tuple(found))
    if any(rate.average for rate in found[3:]):
        limits = limits.changed("iops-size", draw(st.sampled_from([0, 512, 4096, 100_000])))
    limits.check()
    return limits


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 1000, SECOND // 7, SECOND, 10 * SECOND]),
        st.booleans(),
        st.sampled_from([0, 512, 4096, 65536, 1 << 20]),
    ),
    max_size=60,
)


@given(all_limits(), ARRIVALS)
def test_requests_begin_when_the_buckets_have_room(limits: Limits, arrivals: Any) -> None:
    at, raw, expected = 0, [], []
    model = Model(limits)
    for pause, write, size in arrivals:
        at += pause
        raw.append((at, size, write))
        expected.append(model.begin(Fraction(at, SECOND), write, size))
    begins = ffi.new("uint64_t[]", max(len(raw), 1))
    lib.by_throttle_foretell(
        native_limits(limits), ffi.new("struct by_throttle_arrival[]", raw), len(raw), begins
    )
    for number, when in enumerate(expected):
        # Each wait ends on a whole nanosecond.
        difference = abs(Fraction(begins[number], SECOND) - when)
        assert difference <= Fraction(number + 1, SECOND) * 2 + when / 10**9


def test_a_long_run_keeps_its_rate() -> None:
    limits = Limits().changed("iops-total", 777).changed("bps-total", 10**15)
    count = 777 * 100
    begins = ffi.new("uint64_t[]", count)
    arrivals = ffi.new("struct by_throttle_arrival[]", [(0, 4096, False)] * count)
    lib.by_throttle_foretell(native_limits(limits), arrivals, count, begins)
    assert begins[count - 1] / SECOND == pytest.approx(100, rel=0.002)


# -- live


async def _read(image: Any, count: int, done: list[Any], what: Any) -> None:
    async with anyio.create_task_group() as tasks:

        async def one(number: int) -> None:
            await image.read(number * 512, 512)
            done.append(what)

        for number in range(count):
            tasks.start_soon(one, number)


def test_requests_wait_and_new_limits_let_them_go(ours: Any) -> None:
    ours.answers([group("g", iops_total=1)])

    async def check() -> None:
        async with await _open(ours.yard, "g") as image:
            done: list[Any] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_read, image, 40, done, None)
                await _until(lambda: len(done) == 1)
                await anyio.sleep(0.1)
                assert len(done) == 1
                found = ours.yard.objects.get("g").properties()["limits"]
                found.set({"iops-total": 100_000})
            assert len(done) == 40
            found.set({"iops-total": 0})
            await _read(image, 40, done, None)

    ours.call(check)


async def _open(yard: Any, group: str) -> Any:
    return await yard.open(
        {"driver": "throttle", "throttle-group": group, "file": NULL, "read-only": True}
    )


async def _until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.001)


def test_a_drain_lets_the_queue_go(ours: Any) -> None:
    ours.answers([group("g", iops_total=1)])

    async def check() -> None:
        async with await _open(ours.yard, "g") as image, await _open(ours.yard, "g") as other:
            done: list[Any] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_read, image, 20, done, "image")
                await _until(lambda: done)
                tasks.start_soon(_read, other, 3, done, "other")
                await anyio.sleep(0.05)
                with anyio.fail_after(5):
                    async with image.drained():
                        pass
                await _until(lambda: done.count("image") == 20)
                # Whoever is not drained waits on, for 20 seconds at this rate.
                assert done.count("other") == 0
                ours.yard.objects.get("g").properties()["limits"].set({"iops-total": 0})
            assert done.count("other") == 3

    ours.call(check)


def test_nodes_take_turns_however_many_requests_they_bring(ours: Any) -> None:
    ours.answers([group("g", iops_total=500)])

    async def check() -> None:
        async with await _open(ours.yard, "g") as greedy, await _open(ours.yard, "g") as modest:
            done: list[Any] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_read, greedy, 300, done, "greedy")
                await _until(lambda: len(done) > 50)
                tasks.start_soon(_read, modest, 50, done, "modest")
                await _until(lambda: done.count("modest") == 50)
                last = done[done.index("modest") :]
                # Half of what passed since it came was its own.
                assert abs(last.count("greedy") - 50) <= 10
                tasks.cancel_scope.cancel()
            ours.yard.objects.get("g").properties()["limits"].set({"iops-total": 0})

    ours.call(check)


def test_each_loop_gets_its_share(ours: Any) -> None:
    """Nodes of one group on several loops."""
    ours.answers(
        [group("g", iops_total=400)]
        + [("object-add", {"qom-type": "iothread", "id": f"io{i}"}) for i in range(3)]
        + [("blockdev-add", node(f"t{i}", "g")) for i in range(3)]
        + [
            ("x-blockdev-set-iothread", {"node-name": f"t{i}", "iothread": f"io{i}"})
            for i in range(3)
        ]
    )

    async def check() -> None:
        images = [await ours.yard.attach(f"t{i}") for i in range(3)]
        done: list[Any] = []
        start = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for number, image in enumerate(images):
                tasks.start_soon(_read, image, 100, done, number)
        # 300 requests, of which a tenth of a second's are free.
        assert time.monotonic() - start > 0.6
        middle = done[60:210]
        assert all(abs(middle.count(number) - 50) <= 10 for number in range(3))
        for image in images:
            await image.close()

    ours.call(check)


def test_reads_and_writes_have_limits_of_their_own(ours: Any) -> None:
    ours.answers([group("g", iops_write=1)])

    async def check() -> None:
        options = {"driver": "throttle", "throttle-group": "g", "file": NULL}
        async with await ours.yard.open(options) as image:
            done: list[Any] = []
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(image.write, 0, b"x" * 512)
                await _read(image, 200, done, None)
                await image.flush()
                await image.block_status(0, 512)
                assert len(done) == 200
                ours.yard.objects.get("g").properties()["limits"].set({"iops-write": 0})

    ours.call(check)
