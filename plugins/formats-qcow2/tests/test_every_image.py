# SPDX-License-Identifier: Apache-2.0
"""Images of every shape: QEMU makes and fills them, we read and write, QEMU reads; and the reverse.

By default as many shapes as have every three of their properties together; all of
them with BLOCKYARD_EVERY_IMAGE=1.
"""

import itertools
import json
import os
import random

import pytest

KIB, MIB = 1 << 10, 1 << 20
SIZE = 5 * MIB
VALUES = {
    "compat": ["1.1", "0.10"],
    "cluster_size": [512 << i for i in range(13)],
    "refcount_bits": [16, 1, 2, 4, 8, 32, 64],
    "extended_l2": [False, True],
    "data": ["inside", "file", "raw file"],
    "compression_type": ["zlib", "zstd"],
    "encrypt": [None, "luks", "aes"],
}
OBJECT = ["--object", "secret,id=s,data=correct horse"]


def possible(shape):
    """Whether QEMU makes such an image."""
    old = shape["compat"] == "0.10"
    news = (
        shape["refcount_bits"] != 16
        or shape["extended_l2"]
        or shape["data"] != "inside"
        or shape["compression_type"] == "zstd"
    )
    return not (old and news) and not (shape["extended_l2"] and shape["cluster_size"] < 16 * KIB)


def every_shape():
    for values in itertools.product(*VALUES.values()):
        shape = dict(zip(VALUES, values, strict=True))
        if possible(shape):
            yield shape


def three_at_a_time(shapes):
    """A part of the shapes in which any three values that are possible meet, each time the same."""
    chance = random.Random(1)
    shapes = list(shapes)
    chance.shuffle(shapes)
    met = set()
    for shape in shapes:
        threes = set(itertools.combinations(shape.items(), 3))
        if len(threes - met) > 4:
            met |= threes
            yield shape


def chosen():
    shapes = list(every_shape())
    if os.environ.get("BLOCKYARD_EVERY_IMAGE"):
        return shapes
    return list(three_at_a_time(shapes))


def name_of(shape):
    size = shape["cluster_size"]
    words = [shape["compat"], f"{size // KIB}k" if size >= KIB else str(size)]
    words += [f"{shape['refcount_bits']}bits", shape["compression_type"], shape["data"]]
    words += ["subclusters"] if shape["extended_l2"] else []
    return "-".join([*words, shape["encrypt"] or "plain"])


def differences(found, model):
    """The sectors, by number, that are not as the model has them."""
    if found == model:
        return []
    return [
        at // 512
        for at in range(0, len(model), 512)
        if found[at : at + 512] != model[at : at + 512]
    ]


class Exchanged:
    """An image of some shape, made by one side and used by both."""

    def __init__(self, shape, folder, place, qemu_img, qemu_io):
        self.shape, self.place = shape, place
        self.qemu_img, self.qemu_io = qemu_img, qemu_io
        self.path, self.data = folder / "a.qcow2", folder / "a.data"
        self.model = bytearray(SIZE)
        self.objects = OBJECT if shape["encrypt"] else []

    def made_by_qemu(self):
        shape = self.shape
        words = [
            f"{k}={shape[k]}" for k in ("compat", "cluster_size", "refcount_bits",
                                        "compression_type")
        ]  # fmt: skip
        words += ["extended_l2=on"] if shape["extended_l2"] else []
        if shape["data"] != "inside":
            words += [f"data_file={self.data}"]
            words += ["data_file_raw=on"] if shape["data"] == "raw file" else []
        if shape["encrypt"]:
            words += [f"encrypt.format={shape['encrypt']}", "encrypt.key-secret=s"]
            words += ["encrypt.iter-time=1"] if shape["encrypt"] == "luks" else []
        self.qemu_img("create", "-q", "-f", "qcow2", *self.objects, "-o", ",".join(words),
                      self.path, SIZE)  # fmt: skip

    def made_by_us(self):
        shape = self.shape
        file = {"driver": "file", "filename": str(self.path)}
        self.path.touch()
        options = {
            "file": file, "size": SIZE, "version": "v2" if shape["compat"] == "0.10" else "v3",
            "cluster_size": shape["cluster_size"], "refcount_bits": shape["refcount_bits"],
            "compression_type": shape["compression_type"], "extended_l2": shape["extended_l2"],
        }  # fmt: skip
        if shape["data"] != "inside":
            self.data.touch()
            options["data_file"] = {"driver": "file", "filename": str(self.data)}
            options["data_file_raw"] = shape["data"] == "raw file"
        if shape["encrypt"]:
            luks = shape["encrypt"] == "luks"
            options["encrypt"] = {"format": "luks" if luks else "qcow", "key-secret": "s"}
            options["encrypt"] |= {"iter-time": 1} if luks else {}
        self.place.create("qcow2", **options)

    def theirs(self, *commands):
        """qemu-io with the key."""
        named = f"driver=qcow2,discard=unmap,file.driver=file,file.filename={self.path}"
        if self.shape["encrypt"]:
            named += f",encrypt.format={self.shape['encrypt']},encrypt.key-secret=s"
        said = self.qemu_io(named, *commands, options=[*self.objects, "--image-opts"])
        assert "failed" not in said, said

    def expect(self, offset, length, value):
        self.model[offset : offset + length] = bytes([value]) * length
        return f"{value} {offset} {length}"

    def fill(self):
        """QEMU's part: data, zeroes, compressed clusters."""
        # A raw data file of an encrypted image is full of zeroes that were never encrypted.
        commands = ["write -P " + self.expect(0, SIZE, 0)] if self.objects else []
        commands += [
            "write -P " + self.expect(1000 * 512, 700 * 512, 17),
            "write -P " + self.expect(3 * MIB, 64 * KIB, 18),
        ]
        if self.shape["data"] == "inside" and not self.shape["encrypt"]:
            commands.append("write -c -P " + self.expect(4 * MIB, MIB, 19))
        self.theirs(*commands, "write -z 700k 9k", "discard 3080k 2k")
        self.model[700 * KIB : 709 * KIB] = bytes(9 * KIB)

    def open(self):
        options = {
            "driver": "qcow2",
            "discard": "unmap",
            "file": {"driver": "file", "filename": str(self.path)},
        }
        if self.shape["encrypt"]:
            options["encrypt"] = {"format": self.shape["encrypt"], "key-secret": "s"}
        return self.place.open(options)

    def ours(self, image):
        """Our part: everything read, and written to over it."""
        ask = self.place.ask
        now = bytearray(ask(image.read, 0, SIZE))
        # What a discard leaves is up to the format.
        now[3080 * KIB : 3082 * KIB] = self.model[3080 * KIB : 3082 * KIB]
        assert differences(now, self.model) == []
        chance = random.Random(str(self.shape))
        for _ in range(12):
            length = chance.choice([512, 3000, 4096, 70000, 300000])
            offset = chance.randrange(0, SIZE - length)
            data = chance.randbytes(length)
            ask(image.write, offset, data)
            self.model[offset : offset + length] = data
        ask(image.write_zeroes, 100 * KIB, 333 * KIB, may_unmap=True)
        self.model[100 * KIB : 433 * KIB] = bytes(333 * KIB)
        ask(image.write, 3080 * KIB, bytes(2 * KIB))
        self.model[3080 * KIB : 3082 * KIB] = bytes(2 * KIB)
        assert differences(ask(image.read, 0, SIZE), self.model) == []

    def judged(self, raw):
        """QEMU finds no error, and reads what the model holds."""
        found = json.loads(
            self.qemu_img("check", *self.objects, "--output=json", *self.named(), ok=False).stdout
        )
        assert {found.get("corruptions"), found.get("leaks")} <= {None, 0}, found
        raw.write_bytes(self.model)
        self.qemu_img("compare", *self.objects, "--image-opts", self.named()[-1],
                      f"driver=raw,file.driver=file,file.filename={raw}")  # fmt: skip

    def named(self):
        words = f"driver=qcow2,file.driver=file,file.filename={self.path}"
        if self.shape["encrypt"]:
            words += f",encrypt.format={self.shape['encrypt']},encrypt.key-secret=s"
        return ["--image-opts", words]


@pytest.fixture(scope="module")
def keyed(place):
    """The place, with the secret."""
    place.add_object(qom_type="secret", id="s", data="correct horse")
    return place


@pytest.mark.parametrize("shape", chosen(), ids=name_of)
def test_images_are_exchanged(shape, tmp_path, keyed, qemu_img, qemu_io):
    found = Exchanged(shape, tmp_path, keyed, qemu_img, qemu_io)
    if random.Random(name_of(shape)).random() < 0.5:
        found.made_by_us()
    else:
        found.made_by_qemu()
    found.fill()
    with found.open() as image:
        found.ours(image)
    found.judged(tmp_path / "model.raw")
    found.theirs("write -P " + found.expect(9 * 512, 1100 * KIB, 20))
    with found.open() as image:
        assert differences(keyed.ask(image.read, 0, SIZE), found.model) == []
