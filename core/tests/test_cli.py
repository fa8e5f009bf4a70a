# SPDX-License-Identifier: Apache-2.0
"""The console script: finding tools, listing plugins, refusing clearly."""

import json

import pytest

from blockyard import plugins
from blockyard.cli.clients import client_commands, tcp_uri, unix_uri
from blockyard.cli.main import main
from blockyard.cli.tool import Tool
from blockyard.entrypoints import EntryPoint
from blockyard.plugins import Registry


@pytest.fixture
def registry(monkeypatch):
    """Core's tools, a driver that loads and one that does not."""
    entries = [
        EntryPoint("blockyard.tools", "serve", "blockyard.cli.tools:serve", "blockyard", "1"),
        EntryPoint("blockyard.tools", "plugins", "blockyard.cli.tools:plugins", "blockyard", "1"),
        EntryPoint("blockyard.formats", "good", "blockyard.cli.tools:serve", "good-dist", "2.0"),
        EntryPoint("blockyard.drivers", "bad", "no_such_module:x", "bad-dist", "3.0"),
        EntryPoint("blockyard.commands", "quit", "blockyard.cli.tools:serve", "blockyard", "1"),
    ]
    made = Registry(entries)
    monkeypatch.setattr(plugins, "_default", made)
    return made


def test_no_arguments_teach(registry, capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "serve a disk image" in out
    assert "blockyard-daemon" in out


def test_an_unknown_tool_names_those_there_are(registry, capsys):
    assert main(["sevre"]) == 1
    assert "there is no tool 'sevre'; there are: plugins, serve" in capsys.readouterr().err


def test_a_broken_tool_harms_only_itself(registry, capsys):
    registry.add("tools", "broken", Tool("breaks", "no_such_module"))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "breaks" in capsys.readouterr().out
    assert main(["broken"]) == 1
    assert "blockyard: tool 'broken' cannot be loaded" in capsys.readouterr().err


def test_the_table_shows_a_broken_plugin_and_its_reason(registry, capsys):
    assert main(["plugins"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "STATE"]
    bad = next(line for line in lines if "bad-dist" in line)
    assert "ModuleNotFoundError" in bad
    good = next(line for line in lines if "good-dist" in line)
    assert good.split() == ["formats", "good", "good-dist", "2.0", "ok"]
    assert not any("quit" in line for line in lines)


def test_json_has_everything(registry, capsys):
    main(["plugins", "--json"])
    found = {(p["kind"], p["name"]): p for p in json.loads(capsys.readouterr().out)}
    assert found["commands", "quit"]["state"] == "ok"
    assert found["drivers", "bad"]["version"] == "3.0"


def test_one_kind_alone(registry, capsys):
    assert main(["plugins", "--kind", "formats"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("head", "name"), [(b"QFI\xfb\0\0\0\x03", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx")]
)
def test_a_missing_format_names_its_package(registry, capsys, tmp_path, head, name):
    image = tmp_path / "disk"
    image.write_bytes(head.ljust(65536, b"\0"))
    assert main(["serve", str(image)]) == 1
    error = capsys.readouterr().err
    assert f"is {name} (guessed: it begins with" in error
    assert f"install the package blockyard-formats-{name}" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/no/such/image"], "cannot open '/no/such/image': No such file or directory"),
        (["/dev/null"], "neither a regular file nor a block device"),
        (["-f", "qcow2"], "-f qcow2 needs an IMAGE"),
    ],
)
def test_serve_refuses_clearly(registry, capsys, words, text):
    assert main(["serve", *words]) == 1
    assert text in capsys.readouterr().err


def test_uris_are_quoted():
    assert unix_uri("/tmp/a b", "x/y") == "nbd+unix:///x%2Fy?socket=/tmp/a%20b"
    assert tcp_uri("127.0.0.1", 10809) == "nbd://127.0.0.1:10809"
    assert tcp_uri("::1", 1, "disk") == "nbd://[::1]:1/disk"


def test_no_write_is_offered_on_a_read_only_export():
    commands = dict(client_commands("nbd://x", "/s", writable=False))
    assert "write a block" not in commands
    assert "mount -o ro" in commands["mount it (root)"]
