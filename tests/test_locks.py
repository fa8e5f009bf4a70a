# SPDX-License-Identifier: Apache-2.0
"""QEMU's programs and Blockyard keep each other off an image, in QEMU's words."""

import pytest

SENTENCE = 'Failed to get "resize" lock'
SHARED = (
    "write 0 512",  # QEMU's exports share writing, and so do ours
    "read 0 512",
)


@pytest.fixture(params=["daemon", "peer"])
def holder(request):
    """Ours, and a real qemu-storage-daemon for comparison."""
    return request.getfixturevalue(request.param)


def test_qemu_img_may_not_resize_an_exported_image(holder, client, image):
    holder().serve(image)
    done = client("qemu-img", "resize", "-f", "raw", image, "16M", ok=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"qemu-img: Could not open '{image}': {SENTENCE}\n"
        f"Is another process using the image [{image}]?\n"
    )
    assert image.stat().st_size == 8 << 20


@pytest.mark.parametrize("command", SHARED)
def test_what_an_export_shares_is_allowed(holder, client, image, command):
    holder().serve(image)
    client("qemu-io", "-f", "raw", "-c", command, image)


def test_qemu_img_may_copy_what_is_exported_read_only(holder, client, image):
    holder().serve(image, writable=False)
    client("qemu-img", "convert", "-f", "raw", "-O", "raw", image, f"{image}.copy")


@pytest.mark.parametrize(("first", "second"), [("daemon", "peer"), ("peer", "daemon")])
def test_a_daemon_may_not_resize_what_another_exports(request, image, first, second):
    request.getfixturevalue(first)().serve(image)
    other = request.getfixturevalue(second)()
    other.qmp("blockdev-add", driver="file", node_name="n", filename=str(image))
    text = other.refused("block_resize", node_name="n", size=16 << 20)
    assert text.startswith(SENTENCE)
    assert image.stat().st_size == 8 << 20


@pytest.mark.parametrize(("first", "second"), [("daemon", "peer"), ("peer", "daemon")])
def test_two_daemons_may_export_one_raw_image(request, client, image, first, second):
    request.getfixturevalue(first)().serve(image)
    uri = request.getfixturevalue(second)().serve(image)
    client("qemu-io", "-f", "raw", "-c", "write -P 1 0 512", uri)
    assert image.read_bytes()[:512] == b"\x01" * 512


def test_the_lock_goes_with_the_export(daemon, client, image):
    server = daemon()
    server.serve(image)
    server.qmp("block-export-del", id="disk")
    server.qmp("blockdev-del", node_name="disk")
    client("qemu-img", "resize", "-f", "raw", image, "16M")
    assert image.stat().st_size == 16 << 20


def test_nobody_writes_what_a_program_has_open(client, image):
    from blockyard import open_blocking

    with open_blocking(driver="file", filename=str(image)):
        done = client("qemu-io", "-f", "raw", "-c", "write 0 512", image, ok=False)
        assert done.returncode == 1
        assert 'Failed to get "write" lock' in done.stderr
    client("qemu-io", "-f", "raw", "-c", "write 0 512", image)


@pytest.mark.parametrize(
    ("words", "lock"), [(["-c", "write 0 512"], '"write"'), (["-r", "-c", "read 0 512"], "shared")]
)
def test_qemu_io_may_not_open_an_exported_qcow2_image(holder, client, qcow2, words, lock):
    """A second writer would hand out the same clusters; a second reader would see half of it."""
    holder().serve(qcow2, driver="qcow2")
    done = client("qemu-io", "-f", "qcow2", *words, qcow2, ok=False)
    assert done.returncode == 1
    assert f"Failed to get {lock}" in done.stderr
    assert f"Is another process using the image [{qcow2}]?" in done.stderr


@pytest.mark.parametrize(("first", "second"), [("daemon", "peer"), ("peer", "daemon")])
def test_two_daemons_may_not_open_one_qcow2_image(request, client, qcow2, first, second):
    request.getfixturevalue(first)().serve(qcow2, driver="qcow2")
    other = request.getfixturevalue(second)()
    file = {"driver": "file", "filename": str(qcow2)}
    text = other.refused("blockdev-add", driver="qcow2", node_name="n", file=file)
    assert text.startswith('Failed to get "write" lock')
    client("qemu-img", "info", "-U", qcow2)


def test_qemu_img_may_read_beside_an_export_when_it_says_so(daemon, client, image, qcow2):
    daemon().serve(qcow2, driver="qcow2")
    client("qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", qcow2, image)
