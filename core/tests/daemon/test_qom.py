# SPDX-License-Identifier: Apache-2.0
"""Objects and the qom commands, in QEMU 11.1's words."""

from collections.abc import Callable
from typing import Any

import pytest

NOT_FOUND = "DeviceNotFound"
GENERIC = "GenericError"
LIMIT = (1 << 63) - 1


def failure(desc: str, kind: str = GENERIC) -> dict[str, str]:
    return {"class": kind, "desc": desc}


def thread(name: str, **more: int) -> dict[str, Any]:
    return {"qom-type": "iothread", "id": name, **{k.replace("_", "-"): v for k, v in more.items()}}


def at(path: str, name: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "property": name, **more}


#: Commands in a row, and what each answers or why it is refused.
STEPS: list[tuple[str, dict[str, Any], Any]] = [
    ("object-add", thread("t0"), {}),
    (
        "object-add",
        thread("t0"),
        failure("attempt to add duplicate property 't0' to object (type 'container')"),
    ),
    ("object-add", thread("0"), failure("Parameter 'id' expects an identifier")),
    (
        "object-add",
        {"qom-type": "nix", "id": "x"},
        failure("Parameter 'qom-type' does not accept value 'nix'"),
    ),
    *(
        (
            "object-add",
            thread("t1", **{name: -1}),
            failure(f"{name.replace('_', '-')} value must be in range [0, {limit}]"),
        )
        for name, limit in (
            ("poll_max_ns", LIMIT),
            ("poll_grow", LIMIT),
            ("poll_weight", 63),
            ("aio_max_batch", LIMIT),
            ("thread_pool_min", LIMIT),
        )
    ),
    (
        "object-add",
        thread("t1", thread_pool_min=70),
        failure("bad thread-pool-min/thread-pool-max values"),
    ),
    (
        "object-add",
        thread("t1", thread_pool_max=1 << 31),
        failure("bad thread-pool-min/thread-pool-max values"),
    ),
    ("object-add", {"qom-type": "main-loop", "id": "ml"}, {}),
    (
        "object-add",
        {"qom-type": "main-loop", "id": "ml2"},
        failure("only one main-loop instance allowed"),
    ),
    (
        "object-add",
        {"qom-type": "monitor-qmp", "id": "m", "chardev": "nix"},
        failure('chardev "nix" not found'),
    ),
    (
        "object-add",
        {"qom-type": "monitor-qmp", "id": "m", "chardev": "c0"},
        failure("chardev 'c0' is already in use"),
    ),
    ("qom-list", {"path": "nix"}, failure("Device 'nix' not found", NOT_FOUND)),
    ("qom-list", {"path": ""}, failure("Path '' is ambiguous")),
    ("qom-get", at("", "type"), failure("Device '' not found", NOT_FOUND)),
    ("qom-set", at("", "type", value=1), failure("Device '' not found", NOT_FOUND)),
    ("qom-get", at("/objects/t0", "poll-max-ns"), 32768),
    ("qom-get", at("t0", "poll-grow"), 2),
    ("qom-get", at("objects/t0", "poll-weight"), 3),
    ("qom-get", at("//objects/", "t0"), "/objects/t0"),
    ("qom-get", at("/", "type"), "container"),
    ("qom-get", at("/objects/t0", "nix"), failure("Property 'iothread.nix' not found")),
    ("qom-get", at("/objects/nix", "a"), failure("Device '/objects/nix' not found", NOT_FOUND)),
    ("qom-get", at("/objects/compat_monitor0", "close-action"), "none"),
    ("qom-get", at("/chardevs/c0", "connected"), True),
    ("qom-set", at("/objects/t0", "poll-max-ns", value=5), {}),
    ("qom-get", at("/objects/t0", "poll-max-ns"), 5),
    (
        "qom-set",
        at("/objects/t0", "poll-max-ns", value="x"),
        failure("Invalid parameter type for 'poll-max-ns', expected: integer"),
    ),
    (
        "qom-set",
        at("/objects/t0", "poll-max-ns", value=-2),
        failure(f"poll-max-ns value must be in range [0, {LIMIT}]"),
    ),
    (
        "qom-set",
        at("/objects/t0", "type", value="x"),
        failure("Property 'iothread.type' is not writable"),
    ),
    ("qom-set", at("/objects/t0", "poll-max-ns"), failure("Parameter 'value' is missing")),
    (
        "qom-set",
        at("/objects/compat_monitor0", "close-action", value="nix"),
        failure("Parameter 'close-action' does not accept value 'nix'"),
    ),
    ("qom-list-get", {"paths": ["nix"]}, failure("Device 'nix' not found", NOT_FOUND)),
    ("qom-list-types", {"implements": "nix"}, []),
    ("qom-list-properties", {"typename": "nix"}, failure("Class 'nix' not found", NOT_FOUND)),
    ("object-del", {"id": "t0"}, {}),
    ("object-del", {"id": "t0"}, failure("object 't0' not found")),
    ("object-del", {"id": "ml"}, failure("Deleting main loop 'ml' is not supported")),
    ("object-del", {"id": "c0"}, failure("object 'c0' not found")),
    ("object-del", {"id": "compat_monitor0"}, failure("Cannot delete the current QMP monitor")),
]


def walk(client: Any) -> None:
    for name, arguments, expected in STEPS:
        answer = client.run_or_error(name, **arguments)
        assert expected == answer.get("return", answer.get("error")), (name, arguments)


def test_objects(client: Any) -> None:
    walk(client)


def test_objects_of_a_real_storage_daemon(peer: Any) -> None:
    walk(peer)


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found}


#: Lists that ours and a real one's have in common; the order is nobody's promise.
LISTS = [
    ("qom-list", {"path": "/objects/t0"}),
    ("qom-list", {"path": "/objects"}),
    ("qom-list", {"path": "/chardevs"}),
    ("qom-list", {"path": "/chardevs/c0"}),
    ("qom-list", {"path": "/objects/compat_monitor0"}),
    ("qom-list-properties", {"typename": "iothread"}),
    ("qom-list-properties", {"typename": "main-loop"}),
    ("qom-list-properties", {"typename": "monitor-qmp"}),
    ("qom-list-properties", {"typename": "chardev-socket"}),
    ("qom-list-properties", {"typename": "container"}),
]


def test_lists_are_those_of_a_real_storage_daemon(client: Any, peer: Any) -> None:
    for each in (client, peer):
        each.run("object-add", **thread("t0"))
    for name, arguments in LISTS:
        assert by_name(peer.run(name, **arguments)) == by_name(client.run(name, **arguments))
    ours, theirs = (by_name(each.run("qom-list-types", abstract=True)) for each in (client, peer))
    assert {k: v for k, v in theirs.items() if k in ours} == ours


def test_types_say_what_they_derive_from(client: Any) -> None:
    creatable = by_name(client.run("qom-list-types", implements="user-creatable"))
    loops = by_name(client.run("qom-list-types", implements="event-loop-base"))

    assert {"iothread", "main-loop", "monitor-qmp"} <= set(creatable)
    assert {"iothread", "main-loop"} == set(loops)
    assert "chardev-fd" not in by_name(client.run("qom-list-types"))


def test_values_come_with_their_properties(client: Any) -> None:
    client.run("object-add", **thread("t0", poll_max_ns=9))
    (found,) = client.run("qom-list-get", paths=["/objects/t0"])

    expected = {"name": "poll-max-ns", "type": "int", "value": 9}
    assert expected == by_name(found["properties"])["poll-max-ns"]


def test_monitors_are_added_and_deleted(start: Callable[..., Any]) -> None:
    daemon = start()
    client = daemon.client()
    address = {"type": "unix", "data": {"path": "qmp1"}}
    backend = {"type": "socket", "data": {"addr": address, "wait": False}}
    client.run("chardev-add", id="c1", backend=backend)
    client.run("object-add", **{"qom-type": "monitor-qmp", "id": "m", "chardev": "c1"})
    other = daemon.client(1)

    assert other.error("object-del", id="m") == "Cannot delete the current QMP monitor"
    assert client.error("chardev-remove", id="c1") == "Chardev 'c1' is busy"
    client.run("object-del", id="m")
    assert other.ended()
    client.run("chardev-remove", id="c1")


def test_a_monitor_may_go_with_its_client(start: Callable[..., Any]) -> None:
    daemon = start()
    client = daemon.client()
    address = {"type": "unix", "data": {"path": "qmp1"}}
    backend = {"type": "socket", "data": {"addr": address, "wait": False}}
    client.run("chardev-add", id="c1", backend=backend)
    monitor = {"qom-type": "monitor-qmp", "id": "m", "chardev": "c1", "close-action": "delete"}
    client.run("object-add", **monitor)
    daemon.client(1).close()
    for _ in range(100):
        answer = client.run_or_error("qom-list", path="/objects/m")
        if "error" in answer:
            break

    assert answer["error"]["class"] == NOT_FOUND


@pytest.mark.parametrize("path", ["/" * 5000, "/".join("ab") * 5000, "\0", "../..", "é"])
def test_paths_that_make_no_sense(client: Any, path: str) -> None:
    assert set(client.run_or_error("qom-list", path=path)) & {"return", "error"}
