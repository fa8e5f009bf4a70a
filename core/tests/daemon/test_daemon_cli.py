# SPDX-License-Identifier: Apache-2.0
"""The command line: QEMU's options, rules and words."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.daemon.getopt import Given, UsageError, parse

IDENTIFIER = (
    "Parameter 'id' expects an identifier\n"
    "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
)
SIZE = (
    "Parameter 'size' expects a non-negative number below 2^64\n"
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively."
)

#: Options that fail, and the last line(s) that a qemu-storage-daemon 11.1 prints as well.
REFUSED: list[tuple[list[str], str]] = [
    (["--object", "nix"], "Parameter 'qom-type' does not accept value 'nix'"),
    (["--object", "iothread"], "Parameter 'id' is missing"),
    (["--object", "iothread,id="], IDENTIFIER),
    (["--object", "iothread,id=a/b"], IDENTIFIER),
    (["--object", "iothread,id=x,poll-max-ns=no"], "Parameter 'poll-max-ns' expects integer"),
    (["--object", "iothread,id=x,nix=1"], "Parameter 'nix' is unexpected"),
    (["--object", '{"qom-type":"iothread"}'], "Parameter 'id' is missing"),
    (
        ["--object", '{"qom-type":"iothread"'],
        "1:23: JSON parse error, premature end of input",
    ),
    (
        ["--object", '{"qom-type":"iothread","id":1}'],
        "Invalid parameter type for 'id', expected: string",
    ),
    (["--object", ""], "Parameter 'qom-type' is missing"),
    (["word"], "Unexpected argument"),
    (["--blockdev", "help"], "Help is not available for this option"),
    (["--blockdev", ""], "Parameter 'driver' is missing"),
    (["--blockdev", "driver=nix"], "Parameter 'driver' does not accept value 'nix'"),
    (["--chardev", ""], "chardev: no id specified"),
    (["--chardev", "null"], "chardev: no id specified"),
    (["--chardev", "null,id=1a"], IDENTIFIER),
    (["--chardev", "nix,id=a"], "'nix' is not a valid char driver name"),
    (["--chardev", "vc,id=a"], "'vc' is not a valid char driver name"),
    (["--chardev", "socket,id=a"], "Unable to parse FD number "),
    (
        ["--chardev", "socket,id=a,path=none"],
        "Failed to connect to 'none': No such file or directory",
    ),
    (
        ["--chardev", "socket,id=a,path=/nonexist/x,server=on,wait=off"],
        "Failed to bind socket to /nonexist/x: No such file or directory",
    ),
    (["--chardev", "socket,id=a,host=localhost"], "chardev: socket: no port given"),
    (
        ["--chardev", "socket,id=a,path=x,host=localhost"],
        "None or one of 'path', 'fd' or 'host' option required.",
    ),
    (["--chardev", "socket,id=a,path=x,server=no1"], "Parameter 'server' expects 'on' or 'off'"),
    (
        ["--chardev", "socket,id=a,path=x,server=off,wait=on"],
        "'wait' option is incompatible with socket in client connect mode",
    ),
    (["--chardev", "socket,id=a,fd=77"], "File descriptor '77' is not a socket"),
    (["--chardev", "socket,id=a,fd=0x"], "Unable to parse FD number 0x"),
    (["--chardev", "socket,id=a,path=x,reconnect=1"], "Invalid parameter 'reconnect'"),
    (["--chardev", "socket,id=a,path=x,nix=1"], "Invalid parameter 'nix'"),
    (["--chardev", "socket,id=a,path=x,tls-creds=t"], "No TLS credentials with id 't'"),
    (
        ["--chardev", "socket,id=a,host=127.0.0.1,port=1"],
        "Failed to connect to '127.0.0.1:1': Connection refused",
    ),
    (["--chardev", "file,id=a"], "chardev: file: no filename given"),
    (
        ["--chardev", "file,id=a,path=/nonexist/x"],
        "Could not open '/nonexist/x': No such file or directory",
    ),
    (["--chardev", "pipe,id=a"], "chardev: pipe: no device path given"),
    (
        ["--chardev", "pipe,id=a,path=/nonexist/x"],
        "Could not open '/nonexist/x': No such file or directory",
    ),
    (["--chardev", "ringbuf,id=a,size=3"], "size of ringbuf chardev must be power of two"),
    (["--chardev", "ringbuf,id=a,size=x"], SIZE),
    (["--monitor", "nix"], 'chardev "nix" not found'),
    (["--monitor", ""], "Parameter 'chardev' is missing"),
    (["--monitor", "nix,mode=x"], "Parameter 'mode' does not accept value 'x'"),
    (["--monitor", "nix,pretty=x"], "Parameter 'pretty' expects 'on' or 'off'"),
    (["--monitor", "nix,no=x"], "Parameter 'no' is unexpected"),
    (["--monitor", "nix,mode=readline"], "Only QMP is supported"),
    (["--export", ""], "Parameter 'type' is missing"),
    (["--export", "type=nix,id=a"], "Parameter 'type' does not accept value 'nix'"),
    (["--trace", "nix=x"], "Invalid parameter 'nix'"),
    (
        ["--trace", "file=/nonexist/x"],
        "Error opening logfile /nonexist/x: No such file or directory",
    ),
]
#: Two options of which the second fails.
SECOND = [
    (
        ["--object", "iothread,id=x", "--object", "iothread,id=x"],
        "attempt to add duplicate property 'x' to object (type 'container')",
    ),
    (
        ["--chardev", "null,id=a", "--chardev", "null,id=a"],
        "attempt to add duplicate property 'a' to object (type 'container')",
    ),
    (
        ["--chardev", "null,id=a", "--monitor", "a", "--monitor", "a"],
        "chardev 'a' is already in use",
    ),
]
#: What getopt_long itself refuses, without the option in front.
MISUSED = [
    (["--nix"], "unrecognized option '--nix'"),
    (["--mon"], "option '--monitor' requires an argument"),
    (["--daemon=on"], "option '--daemonize' doesn't allow an argument"),
    (["-x"], "invalid option -- 'x'"),
    (["-T"], "option requires an argument -- 'T'"),
    (
        ["--pidfile", "/nonexist/x"],
        "cannot create PID file: Could not create '/nonexist/x': No such file or directory",
    ),
    (["--trace", "events=/nonexist"], "/nonexist: No such file or directory"),
]


@pytest.mark.parametrize(("options", "text"), [*REFUSED, *SECOND], ids=lambda o: str(o)[:60])
def test_refusals_name_the_option(once: Any, options: list[str], text: str) -> None:
    done = once(*options)

    shown = options[0] if len(options) == 1 else " ".join(options[-2:])
    assert (1, f"blockyard-daemon: {shown}: {text}\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize(("options", "text"), MISUSED, ids=lambda o: str(o)[:60])
def test_misuse(once: Any, options: list[str], text: str) -> None:
    done = once(*options)

    assert done.returncode == 1
    assert done.stderr.startswith("blockyard-daemon:")
    assert done.stderr.endswith(f"{text}\n")


@pytest.mark.parametrize(
    ("options", "text"), [*REFUSED, *SECOND, *MISUSED], ids=lambda o: str(o)[:60]
)
def test_a_real_storage_daemon_says_the_same(
    qsd: str, tmp_path: Path, options: list[str], text: str
) -> None:
    done = subprocess.run(
        [qsd, *options], capture_output=True, text=True, timeout=20, cwd=tmp_path, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.endswith(f"{text}\n")


def test_help_and_version_come_first(once: Any) -> None:
    assert once("--blockdev", "nonsense=", "-h").stdout.startswith("Usage: blockyard-daemon ")
    assert "qemu-storage-daemon 11." in once("--blockdev", "nonsense=", "--vers").stdout
    assert once("-hV").stdout.startswith("Usage: ")


def test_lists(once: Any) -> None:
    assert "\n  socket\n" in once("--chardev", "help").stdout
    assert "\n  iothread\n" in once("--object", "help").stdout
    assert "\n  poll-max-ns=<int>" in once("--object", "iothread,help").stdout
    assert "List of user creatable objects:\n" in once("--object", "nix,help").stdout
    assert "\nqmp_command\n" in once("--trace", "help").stdout


def test_an_object_of_a_missing_package_names_it(once: Any) -> None:
    alone = os.environ | {"BLOCKYARD_PLUGINS": "blockyard"}
    refused = once("--object", "throttle-group,id=g", env=alone).stderr
    assert "install the package blockyard-filters-throttle" in refused


def test_options_hold_in_the_order_given(once: Any) -> None:
    done = once("--monitor", "m", "--chardev", "null,id=m")

    assert 'chardev "m" not found' in done.stderr


def test_json_and_keyval_mean_the_same(start: Callable[..., Any]) -> None:
    client = start(
        "--object", "iothread,id=t0,poll-max-ns=7",
        "--object", '{"qom-type": "iothread", "id": "t1", "poll-max-ns": 7}',
    ).client()  # fmt: skip

    for name in ("t0", "t1"):
        assert client.run("qom-get", path=f"/objects/{name}", property="poll-max-ns") == 7


def test_a_monitor_has_an_id(start: Callable[..., Any]) -> None:
    client = start("--chardev", "null,id=n", "--monitor", "chardev=n,id=mon,pretty=on").client()

    assert client.run("qom-get", path="/objects/mon", property="type") == "monitor-qmp"
    assert (
        client.error("object-del", id="compat_monitor0") == "Cannot delete the current QMP monitor"
    )
    client.run("object-del", id="mon")
    client.run("chardev-remove", id="n")


def test_tracing_goes_where_it_was_told(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "events").write_text("# a comment\n\nqmp_reply\n-qmp_reply\n")
    daemon = start("--trace", "qmp_c*,events=events,file=log")
    daemon.client().run("query-version")
    log = (tmp_path / "log").read_text()

    assert "qmp_command query-version monitor=compat_monitor0\n" in log
    assert "qmp_reply" not in log


def test_tracing_goes_to_standard_error(start: Callable[..., Any]) -> None:
    daemon = start("-T", "daemon_*", "-T", "nix", stderr=subprocess.PIPE, text=True)
    daemon.client().run("quit")
    daemon.wait()
    text = daemon.process.stderr.read()

    assert "warning: trace event 'nix' does not exist\n" in text
    assert "daemon_ready" in text


LONG = {"alpha": True, "alpine": False, "beta": False}
SHORT = {"a": "alpha", "b": "beta"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--alpha", "x"], [Given("alpha", "x", "--alpha x")]),
        (["--alpha=x=y"], [Given("alpha", "x=y", "--alpha=x=y")]),
        (["--alpi", "x"], [Given("alpine", None, "--alpi"), Given("", "x", "x")]),
        (["-bax"], [Given("beta", None, "-bax"), Given("alpha", "x", "-bax")]),
        (["-a", "-b"], [Given("alpha", "-b", "-a -b")]),
        (["-", "--", "-b"], [Given("", "-", "-"), Given("", "-b", "-b")]),
    ],
)
def test_getopt(words: list[str], expected: list[Given]) -> None:
    assert expected == parse(words, LONG, SHORT)


def test_getopt_names_the_candidates() -> None:
    with pytest.raises(UsageError, match="'--al' is ambiguous; possibilities: '--alpha' '--alp"):
        parse(["--al"], LONG, SHORT)
