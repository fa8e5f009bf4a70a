# SPDX-License-Identifier: Apache-2.0
"""The emulated machine that other tests run their commands in."""

import os


def test_a_command_runs_on_another_kernel_over_the_same_files(guest, image):
    written = image.parent / "written"
    script = f"""
        uname -r
        wc -c <{image}
        echo gone >{written}
        echo kept >kept
        echo complaint >&2
        grep -c '^nbd ' /proc/modules
        exit 7
    """
    done = guest.run(script, modules=["nbd"])
    release, size, loaded = done.stdout.split()

    assert done.status == 7
    assert release != os.uname().release
    assert int(size) == os.path.getsize(image)
    assert loaded == "1"
    assert done.stderr == "complaint\n"
    assert not written.exists()
    assert (guest.folder / "kept").read_text() == "kept\n"
