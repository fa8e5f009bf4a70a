# SPDX-License-Identifier: Apache-2.0
"""What the library logs comes out as the program's own words."""

import subprocess
import sys

_PROGRAM = """
import logging
from blockyard_tools.messages import speak_as

speak_as("qemu-img")
log = logging.getLogger("blockyard.anything")
log.error("%s is lost", "it")
log.warning("it may be lost")
log.info("it is there")
logging.getLogger("blockyard.repairs").warning("Repairing it")
logging.getLogger("blockyard.changes.closing").warning("the last flush failed")
"""


def test_records_have_the_programs_name_and_the_last_flush_goes_unsaid() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr == (
        "qemu-img: it is lost\nqemu-img: warning: it may be lost\nRepairing it\n"
    )
