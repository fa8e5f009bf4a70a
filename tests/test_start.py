# SPDX-License-Identifier: Apache-2.0
"""What the daemon imports before it accepts clients, which is most of its start-up time."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys
from blockyard import activation

def notify(state):
    if state == "READY=1":
        print(*sys.modules, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

activation.notify = notify
from blockyard.daemon.main import main
sys.exit(main())
"""

#: Modules that are for something else than starting to serve, or that cost more than they give.
LATER = {
    "argparse",
    "blockyard.blocking",
    "blockyard.bridge",
    "blockyard.cli",
    "blockyard.commands.qom",
    "blockyard.commands.query_block",
    "blockyard.image",
    "blockyard.info",
    "blockyard.qmp.session",
    "blockyard.schema.blockinfo",
    "blockyard.schema.help",
    "blockyard.schema.introspect",
    "blockyard.testing",
    "cffi",
    "email",
    "hashlib",
    "http",
    "importlib.metadata",
    "importlib.resources",
    "json",
    "logging.config",
    "multiprocessing",
    "pluggy",
    "random",
    "tempfile",
    "trio",
    "unittest",
}


def test_start_imports_what_it_serves_with(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    options = [
        *("--chardev", f"socket,id=mon,path={tmp_path}/qmp,server=on,wait=off"),
        *("--monitor", "chardev=mon"),
        *("--blockdev", f"driver=file,node-name=disk,filename={image}"),
        *("--nbd-server", f"addr.type=unix,addr.path={tmp_path}/nbd"),
        *("--export", "type=nbd,id=e,node-name=disk,writable=on"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    imported = set(done.stdout.split())
    assert {"blockyard_exports_nbd.server", "blockyard_drivers_file.driver"} <= imported
    assert imported & LATER == set()
