# SPDX-License-Identifier: Apache-2.0
"""``blockyard serve``, used as a person would."""

import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

LIMIT = 20


@pytest.fixture
def serve(python):
    """``with serve("disk.img") as (uris, process):``; Ctrl-C at the end must exit with 0."""

    @contextmanager
    def start(*words, number=signal.SIGINT):
        command = [python, "-m", "blockyard.cli.main", "serve", *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            lines = []
            while not lines or not lines[-1].startswith("Ctrl-C"):
                lines.append(process.stdout.readline())
                assert lines[-1], f"it ended early: {lines}"
            yield "".join(lines), [x.split()[1] for x in lines if x.startswith("URI")]
            process.send_signal(number)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    return start


def test_without_an_image_there_is_one_to_play_with(serve, client):
    with serve() as (text, (uri,)):
        client("qemu-io", "-f", "raw", "-c", "write -P 5 0 1M", "-c", "read -P 5 0 1M", uri)
        assert "deleted at the end" in text


def test_a_guessed_raw_image_is_read_only_and_says_so(serve, client, image):
    with serve(image) as (text, (uri,)):
        assert "raw (guessed: it has no known format's mark)" in text
        assert "for writing: -f raw" in text
        done = client("qemu-io", "-f", "raw", "-c", "write 0 512", uri, ok=False)
        assert "Permission denied" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_written_is_there_after_ctrl_c(serve, client, image, number):
    with serve("-f", "raw", image, number=number) as (_, (uri,)):
        client("qemu-io", "-f", "raw", "-c", "write -P 6 0 64k", uri)
    assert image.read_bytes()[: 64 << 10] == b"\x06" * (64 << 10)


def test_the_printed_commands_work(serve, client, image, tmp_path):
    with serve("-f", "raw", image) as (text, _):
        for purpose in ("look at it", "copy it", "convert it", "read a block", "write a block"):
            line = next(line for line in text.splitlines() if line.strip().startswith(purpose))
            command = line.strip().removeprefix(purpose).strip()
            client(command.split()[0], "--version")
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr


def test_tcp_serves_the_same_image(serve, client, image):
    with serve("--tcp", "0", "--name", "d", image) as (_, (unix, tcp)):
        assert tcp.startswith("nbd://127.0.0.1:")
        assert client("nbdinfo", "--size", tcp) == client("nbdinfo", "--size", unix)


def test_a_port_that_cannot_be_is_refused(python, image):
    for port in ("99999", "65536", "-1", "x", ""):
        command = [python, "-m", "blockyard.cli.main", "serve", "--tcp", f"127.0.0.1:{port}", image]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"blockyard: '{port}' is no TCP port: 0 to 65535, 0 for any\n"


def test_a_socket_path_that_cannot_be_is_refused(serve, python, image, tmp_path):
    command = [python, "-m", "blockyard.cli.main", "serve", "--socket", str(tmp_path), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("blockyard: Failed to")
    assert "Traceback" not in done.stderr


def test_a_client_that_stays_does_not_keep_it(serve, image):
    with serve("-f", "raw", image) as (_, (uri,)):
        words = ["nbdsh", "-u", uri, "-c", "print('in', flush=True); import time; time.sleep(60)"]
        # The system's Python has libnbd's module, whatever is first on our PATH.
        path = {"PATH": "/usr/bin:/bin"}
        client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=path)
        assert client.stdout.readline() == "in\n"
        began = time.monotonic()
    client.kill()
    client.wait()
    client.stdout.close()
    assert time.monotonic() - began < 5
