# SPDX-License-Identifier: Apache-2.0
"""qemu-nbd's command line: what it becomes, and what is said where it is wrong."""

import pytest

from blockyard_tools.error import ProgramError
from blockyard_tools.nbd.main import main
from blockyard_tools.nbd.options import Question, Settings, SnapshotChoice, parse

HINT = "Try `qemu-nbd --help' for more information."


def refusal(*words: str) -> str:
    with pytest.raises(ProgramError) as caught:
        parse(words)
    assert caught.value.status == 1
    return str(caught.value)


def test_the_defaults() -> None:
    found = parse(["disk.img"])

    assert found == Settings(image="disk.img")
    assert (found.shared, found.handshake_limit, found.offset) == (1, 10, 0)


def test_all_options_by_their_long_names() -> None:
    words = (
        "--port=1 --bind=::1 --socket=/s --shared=0 --persistent --verbose --export-name=x "
        "--description=d --handshake-limit=0 --offset=0x10 --allocation-depth --bitmap=b1 "
        "--bitmap=b2 --object=o1 --object o2 --tls-creds=c --tls-authz=a --tls-hostname=h "
        "--trace=t --fork --pid-file=p --selinux-label=l --connect=/dev/nbd0 --format=raw "
        "--read-only --snapshot --load-snapshot=s --cache=unsafe --aio=native --discard=unmap "
        "--detect-zeroes=unmap --image-opts disk"
    )

    assert parse(words.split()) == Settings(
        image="disk", port="1", bind="::1", socket="/s", shared=0, persistent=True,
        verbose=True, export_name="x", description="d", handshake_limit=0, offset=16,
        allocation_depth=True, bitmaps=["b1", "b2"], objects=["o1", "o2"], tls_creds="c",
        tls_authz="a", tls_hostname="h", traces=["t"], fork=True, pid_file="p",
        selinux_label="l", device="/dev/nbd0", format="raw", read_only=True, snapshot=True,
        load_snapshot=SnapshotChoice(either="s"), cache="unsafe", aio="native", discard=True,
        detect_zeroes="unmap", image_opts=True,
    )  # fmt: skip


def test_letters_stand_together() -> None:
    found = parse(["-tvArsne3", "-k/s", "-lsnapshot.id=1,snapshot.name=a,,b", "-d", "/dev/nbd1"])

    assert found == Settings(
        image="/dev/nbd1", persistent=True, verbose=True, allocation_depth=True, read_only=True,
        snapshot=True, cache="none", shared=3, socket="/s", disconnect=True,
        load_snapshot=SnapshotChoice(id="1", name="a,b"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("0x1F", 31), ("017", 15), (" 3", 3), ("+3", 3), ("2147483647", (1 << 31) - 1)],
)
def test_numbers_are_those_of_strtol(text: str, value: int) -> None:
    assert parse(["-e", text, "disk"]).shared == value
    assert parse(["--handshake-limit", text, "disk"]).handshake_limit == value


@pytest.mark.parametrize("text", ["", "x", "-1", "09", "1k", "2147483648", "3 ", "0x"])
def test_other_numbers_are_refused(text: str) -> None:
    assert refusal("-e", text, "disk") == f"Invalid shared device number '{text}'"
    assert refusal("--handshake-limit", text, "disk") == f"Invalid handshake limit '{text}'"


def test_offsets_have_64_bits() -> None:
    assert parse(["-o", "18446744073709551615", "disk"]).offset == -1
    assert parse(["-o", "-5", "disk"]).offset == -5
    for text in ("2M", "", "18446744073709551616"):
        assert refusal("-o", text, "disk") == f"Invalid offset '{text}'"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", f"Invalid number of arguments\n{HINT}"),
        ("a b", f"Invalid number of arguments\n{HINT}"),
        ("-r -d", f"Invalid number of arguments\n{HINT}"),
        ("-k s disk", "socket path must be absolute"),
        ("-k s --foo", f"unrecognized option '--foo'\nqemu-nbd: {HINT}"),
        ("-x", f"option requires an argument -- 'x'\nqemu-nbd: {HINT}"),
        ("--snapshot=1 a", f"option '--snapshot' doesn't allow an argument\nqemu-nbd: {HINT}"),
        (
            "--tls x",
            (
                "option '--tls' is ambiguous; possibilities: '--tls-creds' '--tls-hostname' "
                f"'--tls-authz'\nqemu-nbd: {HINT}"
            ),
        ),
        ("--cache=foo a", "Invalid cache mode `foo'"),
        ("-n --cache=none a", "-n and --cache can only be specified once"),
        ("--aio foo a", "Invalid aio mode 'foo'"),
        ("--aio threads --aio native a", "--aio can only be specified once"),
        ("--discard foo a", "Invalid discard mode `foo'"),
        ("--discard on --discard x a", "--discard can only be specified once"),
        (
            "--detect-zeroes foo a",
            "Failed to parse detect_zeroes mode: invalid parameter value: foo",
        ),
        (
            "--detect-zeroes unmap --discard unmap a",
            (
                "setting detect-zeroes to unmap is not allowed without setting discard operation "
                "to unmap"
            ),
        ),
        ("-l snapshot.id=1,foo=2 a", "Failed in parsing snapshot param `snapshot.id=1,foo=2'"),
        ("-L a", "List mode is incompatible with a file name"),
        ("-L --fork", "List mode is incompatible with forking"),
    ],
)
def test_what_is_refused(words: str, text: str) -> None:
    assert refusal(*words.split()) == text


@pytest.mark.parametrize(
    "option",
    [
        "-x e",
        "-D d",
        "-B b",
        "-A",
        "-c d",
        "-d",
        "-f raw",
        "-n",
        "--aio native",
        "--discard on",
        "-l s",
    ],
)
def test_a_list_is_of_another_server(option: str) -> None:
    text = "List mode is incompatible with per-device settings"
    assert refusal("-L", *option.split()) == text


def test_a_question_before_a_mistake_is_answered() -> None:
    for words in (["-h", "--foo"], ["--he", "-x"], ["-t", "-V"]):
        with pytest.raises(Question):
            parse(words)
    assert refusal("--foo", "-h").startswith("unrecognized option")
    assert refusal("-e", "x", "-h") == "Invalid shared device number 'x'"


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from blockyard_tools.nbd.options import _SPEC

    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert main(["-V"]) == 0
    assert capsys.readouterr().out.startswith("qemu-nbd 1")
    for name in _SPEC.long:
        assert f"--{name}" in text


def test_objects_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--object", "help"]) == 0
    assert "\n  secret\n" in capsys.readouterr().out
    assert main(["--object", "secret,help"]) == 0
    assert "data=<string>" in capsys.readouterr().out
