# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets of the parsers in C, for a moment, under the sanitizers.

Those of what Python parses are in test_header.py and test_bitmap_directory.py.
"""

import pytest

TARGETS = ["l1", "l2", "refcounts", "snapshots", "bitmaps", "compressed"]
SHAPES = {
    "plain": "cluster_size=4k",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "zstd": "cluster_size=4k,compression_type=zstd,refcount_bits=8",
}


@pytest.fixture(scope="module", params=SHAPES)
def image(request, tmp_path_factory, qemu_img, qemu_io):
    """An image with something of everything."""
    path = tmp_path_factory.mktemp("fuzz") / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", SHAPES[request.param], path, "8M")
    qemu_io(path, "write -P 1 0 300k", "write -c -P 2 2M 64k", "write -z 1M 100k")
    for name in ("one", "two"):
        qemu_img("snapshot", "-c", name, path)
        qemu_io(path, "write -P 1 200k 30k")
    for name in ("b", "c"):
        qemu_img("bitmap", "--add", "-g", "4096", path, name)
    qemu_io(path, "write -P 3 250k 30k")
    return path


@pytest.mark.asan
@pytest.mark.parametrize("target", TARGETS)
def test_any_table_is_survived(target, image, native):
    native.run("address", "../fuzz/image_fuzz", image, target, "60", "1")


@pytest.mark.asan
def test_any_stream_gives_a_cluster_or_an_error(native):
    native.run("address", "../fuzz/inflate_fuzz", "4000", "1")
