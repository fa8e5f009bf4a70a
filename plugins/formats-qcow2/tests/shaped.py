# SPDX-License-Identifier: Apache-2.0
"""Images of many shapes in QEMU's hands: how its tools make, judge and change them."""

import json
from dataclasses import dataclass

PASSPHRASE = "correct horse"
SECTOR = 512


@dataclass(frozen=True)
class Shape:
    """What an image is like; ``data`` is empty, ``file`` or ``raw file``."""

    options: str
    data: str = ""
    encrypt: str = ""

    @property
    def old(self):
        return "compat=0.10" in self.options

    @property
    def shows_noise(self):
        """Whether what was never written is decrypted zeroes."""
        return self.data == "raw file" and bool(self.encrypt)

    @property
    def may_compress(self):
        """Whether we make compressed clusters in it."""
        return not self.data and not self.encrypt

    @property
    def may_have_backing(self):
        return "preallocation" not in self.options and self.data != "raw file"

    @property
    def narrow(self):
        """Whether compressed clusters can use a refcount up."""
        return "refcount_bits=2" in self.options

    @property
    def snapshots(self):
        """How many it can have."""
        if self.data or "refcount_bits=1" in self.options.split(","):
            return 0
        return 1 if self.narrow else 3


SHAPES = [
    Shape("cluster_size=512,refcount_bits=1"),
    Shape("cluster_size=4k,refcount_bits=2"),
    Shape("cluster_size=64k"),
    Shape("cluster_size=64k,compat=0.10"),
    Shape("cluster_size=64k,lazy_refcounts=on"),
    Shape("cluster_size=16k,extended_l2=on"),
    Shape("cluster_size=2M,refcount_bits=64"),
    Shape("cluster_size=64k,preallocation=metadata"),
    Shape("cluster_size=64k,compression_type=zstd"),
    Shape("cluster_size=16k,extended_l2=on,compression_type=zstd"),
    Shape("cluster_size=64k", data="file"),
    Shape("cluster_size=4k", data="raw file"),
    Shape("cluster_size=16k,extended_l2=on", data="file"),
    Shape("cluster_size=16k,extended_l2=on,lazy_refcounts=on", data="raw file"),
    Shape("cluster_size=64k", encrypt="luks"),
    Shape("cluster_size=4k,compat=0.10", encrypt="luks"),
    Shape("cluster_size=16k,extended_l2=on", encrypt="luks"),
    Shape("cluster_size=64k", data="file", encrypt="luks"),
    Shape("cluster_size=64k", data="raw file", encrypt="luks"),
    Shape("cluster_size=4k", encrypt="aes"),
]


def sectors(start, length, extent, offset):
    """The extent for each sector, its offset with it."""
    return [
        (*extent, None if offset is None else offset if extent[2] else offset + at)
        for at in range(0, length, SECTOR)
    ]


def without_bitmaps(specific):
    """What is told of an image, bitmaps left out: they are in use while it is open."""
    data = {name: value for name, value in specific["data"].items() if name != "bitmaps"}
    return specific | {"data": data}


class Peer:
    """QEMU's programs, used on one image in a folder."""

    def __init__(self, folder, qemu_img, qemu_io):
        self.folder, self.qemu_img, self.qemu_io = folder, qemu_img, qemu_io
        self.path, self.data = folder / "a.qcow2", folder / "a.data"

    def create(self, shape, size, below):
        """The image, over a raw file with the bytes ``below``."""
        self.shape, self.backed = shape, below is not None
        self.object = ["--object", f"secret,id=s,data={PASSPHRASE}"] if shape.encrypt else []
        words = [shape.options]
        if shape.data:
            words += [f"data_file={self.data}"]
            words += ["data_file_raw=on"] if shape.data == "raw file" else []
        if shape.encrypt:
            words += [f"encrypt.format={shape.encrypt},encrypt.key-secret=s"]
            words += ["encrypt.iter-time=1"] if shape.encrypt == "luks" else []
        more = []
        if below is not None:
            path = self.folder / "base.raw"
            path.write_bytes(below)
            more = ["-b", path, "-F", "raw"]
        self.qemu_img("create", "-q", "-f", "qcow2", *self.object, "-o", ",".join(words), *more,
                      self.path, size)  # fmt: skip

    def options(self):
        """How we open it."""
        options = {
            "driver": "qcow2",
            "discard": "unmap",
            "file": {"driver": "file", "filename": str(self.path)},
        }
        if self.shape.encrypt:
            options["encrypt"] = {"format": self.shape.encrypt, "key-secret": "s"}
        return options

    @property
    def named(self):
        words = f"driver=qcow2,discard=unmap,file.driver=file,file.filename={self.path}"
        if self.shape.encrypt:
            words += f",encrypt.format={self.shape.encrypt},encrypt.key-secret=s"
        return [*self.object, "--image-opts"], words

    def img(self, *words, ok=True, after=()):
        options, name = self.named
        return self.qemu_img(*words, *options, name, *after, ok=ok)

    def io(self, *commands):
        options, name = self.named
        return self.qemu_io(name, *commands, options=options, ok=False)

    def check(self):
        report = json.loads(self.img("check", "--output=json", ok=False).stdout)
        found = {kind: report[kind] for kind in ("corruptions", "leaks") if report.get(kind)}
        assert not found, report

    def compare(self, disk):
        """The image shows these bytes, and a raw data file holds them."""
        raw = self.folder / "model.raw"
        raw.write_bytes(disk)
        self.img("compare", after=[f"driver=raw,file.driver=file,file.filename={raw}"])
        if self.shape.data == "raw file" and not self.shape.encrypt:
            assert self.data.read_bytes()[: len(disk)] == disk

    def info(self):
        return json.loads(self.img("info", "--output=json"))

    def map(self):
        """For each sector: data, zero, compressed, offset.

        Where data is in a hole of the file depends on when the file system is asked.
        Behind the end of a backing file QEMU may tell the offset of either image.
        """
        found = []
        for entry in json.loads(self.img("map", "--output=json")):
            zero = entry["zero"] and not entry["data"]
            extent = (entry["data"], zero, entry["compressed"])
            offset = None if self.backed and not entry["data"] else entry.get("offset")
            found += sectors(entry["start"], entry["length"], extent, offset)
        return found

    def snapshot(self, option, name):
        self.img("snapshot", option, name)

    def resize(self, size):
        self.img("resize", "-q", "--shrink", after=[size])

    def bitmap(self, *words):
        self.img("bitmap", *words, after=["b"])
