# SPDX-License-Identifier: Apache-2.0
"""What `blockyard nbd` refuses, and what qemu-nbd says to the same words."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

PROGRAM = Path(sysconfig.get_path("scripts"), "blockyard-nbd")
LIMIT = 60

CASES = {
    "no file": "-k {s} -f raw nosuch",
    "no file, whose format is to be guessed": "-k {s} nosuch",
    "an empty name": "-k {s} -f raw {empty}",
    "a folder": "-k {s} {folder}",
    "an unknown format": "-k {s} -f foo disk",
    "an empty format": "-k {s} -f {empty} disk",
    "a format and options": "-k {s} --image-opts -f raw driver=raw",
    "options of nothing": "-k {s} --image-opts foo=bar",
    "options of no file": "-k {s} --image-opts driver=raw,file.driver=file,file.filename=nosuch",
    "an offset behind the end": "-k {s} -o 2097152 -f raw disk",
    "an offset before the front": "-k {s} -o -5 -f raw disk",
    "no snapshot": "-k {s} -l foo top",
    "no snapshot of that id": "-k {s} -l snapshot.id=7 top",
    "snapshots of raw": "-k {s} -l foo -f raw disk",
    "an unknown word of a snapshot": "-k {s} -l snapshot.id=1,foo=2 top",
    "a snapshot and an overlay": "-k {s} -s -l foo top",
    "no bitmap": "-k {s} -B foo top",
    "a bitmap of raw": "-k {s} -B foo -f raw disk",
    "a name too long": "-k {s} -x {long} -f raw disk",
    "a description too long": "-k {s} -D {long} -f raw disk",
    "no place for the socket": "-k /nosuch/s -f raw disk",
    "a socket path too long": "-k /{long} -f raw disk",
    "no place for the pid": "-k {s} --pid-file=/nosuch/p -f raw disk",
    "no place for the pid, in the background": "-k {s} --fork --pid-file=/nosuch/p -f raw disk",
    "direct access that is not": "-k {s} --aio=native -f raw disk",
    "a port that is none": "-p abc -f raw disk",
    "an address of another machine": "-b 192.0.2.1 -p 1 -f raw disk",
    "no such host": "-b nosuch.invalid -f raw disk",
    "no secret": "--object secret,id=a -k {s} -f raw disk",
    "no id": "--object secret -k {s} -f raw disk",
    "two of a name": "--object secret,id=a,data=x --object secret,id=a,data=x -k {s} disk",
    "a bad id": "--object secret,id=9,data=x -k {s} -f raw disk",
    "an unknown object": "--object foo,id=a -k {s} -f raw disk",
    "no credentials": "--tls-creds c -k {s} -f raw disk",
    "a secret for credentials": "--object secret,id=a,data=x --tls-creds a -k {s} disk",
    "TLS on a device": "--tls-creds c -c /dev/nbd0 -f raw disk",
    "authorization of nobody": "--tls-authz a -k {s} -f raw disk",
    "a host name of nobody": "--tls-hostname h -k {s} -f raw disk",
    "a host name for a server": "--tls-creds c --tls-hostname h -k {s} -f raw disk",
    "authorization in a list": "-L --tls-creds c --tls-authz a",
    "a label without a socket": "--selinux-label=l -f raw disk",
    "no device": "-d /dev/nosuch",
    "no device to connect": "-c /dev/nosuch -v -k {s} -f raw disk",
    "a device that is none": "-c /dev/null -v -k {s} -f raw disk",
    "no server": "-L -k {s}",
    "no server at the port": "-L -b 127.0.0.1 -p 1",
    "bad JSON": "-k {s} json:{{",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refusals")
    (path / "disk").write_bytes(bytes(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk", "-F", "raw", "top"]
    subprocess.run(make, cwd=path, check=True)
    return path


def said(program: str | Path, case: str, folder: Path) -> tuple[int, str]:
    """The exit status and the complaints; without what newer versions say differently."""
    words = [
        word.format(s=folder / "socket", empty="", long="x" * 5000, folder=folder)
        for word in case.split()
    ]
    done = subprocess.run(
        [program, *words], cwd=folder, capture_output=True, text=True, timeout=LIMIT
    )
    text = re.sub(r"JSON parse error.*", "JSON parse error", done.stderr)
    return done.returncode, re.sub(r"(?m)\d+:\d+: JSON", "JSON", text)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_words_are_those_of_qemu_nbd(case: str, folder: Path) -> None:
    real = os.environ.get("BLOCKYARD_QEMU_NBD") or shutil.which("qemu-nbd")
    assert real is not None
    status, text = said(PROGRAM, case, folder)

    assert status == 1
    assert text.startswith("qemu-nbd: ")
    assert not (folder / "socket").exists()
    try:
        assert (status, text) == said(real, case, folder)
    finally:
        (folder / "socket").unlink(missing_ok=True)
