# SPDX-License-Identifier: Apache-2.0
"""An NBD client that says exactly what a test wants said."""

import itertools
import socket
import struct

import attrs

from blockyard_exports_nbd.wire import Mode, Option, Reply

SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C
REQUEST, EXTENDED_REQUEST = 0x25609513, 0x21E41C71
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))


@attrs.frozen
class Chunk:
    """One reply, or one chunk of it."""

    cookie: int
    type: int = 0
    data: bytes = b""
    done: bool = True
    error: int = 0
    message: str = ""


class RawClient:
    def __init__(self, address, *, family=socket.AF_UNIX, flags=3, timeout=20.0):
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.mode = Mode.SIMPLE
        self.cookies = itertools.count(1)
        self.reads = {}
        if flags is not None:
            self.greeting = self.recv(18)
            self.send(struct.pack(">I", flags))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def recv(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError(f"{len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def at_end(self):
        """Whether the server has closed; whatever it said before is thrown away."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    # -- options

    def send_option(self, option, data=b"", *, length=None):
        size = len(data) if length is None else length
        self.send(struct.pack(">8sII", b"IHAVEOPT", option, size) + data)

    def option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.recv(20))
        assert magic == 0x3E889045565A9
        return option, kind, self.recv(length)

    def option(self, option, data=b"", *, length=None):
        """Send an option; its replies as (type, data), the final one last."""
        self.send_option(option, data, length=length)
        replies = []
        while not replies or replies[-1][0] in (Reply.SERVER, Reply.INFO, Reply.META_CONTEXT):
            answered, kind, found = self.option_reply()
            assert answered == option
            replies.append((kind, found))
        return replies

    @staticmethod
    def name_data(name):
        raw = name if isinstance(name, bytes) else name.encode()
        return struct.pack(">I", len(raw)) + raw

    def info_data(self, name, *requests):
        return self.name_data(name) + struct.pack(f">H{len(requests)}H", len(requests), *requests)

    def meta_data(self, name, *queries):
        parts = [self.name_data(name), struct.pack(">I", len(queries))]
        return b"".join([*parts, *map(self.name_data, queries)])

    def negotiate(self, mode):
        if mode != Mode.SIMPLE:
            option = Option.STRUCTURED_REPLY if mode == Mode.STRUCTURED else Option.EXTENDED_HEADERS
            assert self.option(option)[-1][0] == Reply.ACK
        self.mode = mode

    def go(self, name, mode=Mode.SIMPLE, contexts=(), requests=()):
        """To the transmission phase; answers size and flags."""
        self.negotiate(mode)
        if contexts:
            replies = self.option(Option.SET_META_CONTEXT, self.meta_data(name, *contexts))
            assert replies[-1][0] == Reply.ACK
        replies = self.option(Option.GO, self.info_data(name, *requests))
        assert replies[-1][0] == Reply.ACK, replies
        info = {struct.unpack(">H", data[:2])[0]: data[2:] for _, data in replies[:-1]}
        self.size, self.flags = struct.unpack(">QH", info[0])
        return self.size, self.flags

    # -- commands

    def header(self, kind, offset=0, length=0, flags=0, cookie=None):
        """The bytes of a request, and its cookie."""
        cookie = next(self.cookies) if cookie is None else cookie
        if kind == READ:
            self.reads[cookie] = length
        if self.mode == Mode.EXTENDED:
            return struct.pack(
                ">IHHQQQ", EXTENDED_REQUEST, flags, kind, cookie, offset, length
            ), cookie
        return struct.pack(">IHHQQI", REQUEST, flags, kind, cookie, offset, length), cookie

    def request(self, kind, offset=0, length=0, flags=0, payload=b"", cookie=None):
        header, cookie = self.header(kind, offset, length, flags, cookie)
        self.send(header + payload)
        return cookie

    def chunk(self):
        """The next reply chunk off the wire."""
        (magic,) = struct.unpack(">I", self.recv(4))
        if magic == SIMPLE:
            assert self.mode != Mode.EXTENDED
            error, cookie = struct.unpack(">IQ", self.recv(12))
            length = self.reads.pop(cookie, 0)
            return Chunk(cookie, data=self.recv(0 if error else length), error=error)
        if magic == STRUCTURED:
            assert self.mode == Mode.STRUCTURED
            flags, kind, cookie, length = struct.unpack(">HHQI", self.recv(16))
        else:
            assert (magic, self.mode) == (EXTENDED, Mode.EXTENDED)
            flags, kind, cookie, _, length = struct.unpack(">HHQQQ", self.recv(28))
        data = self.recv(length)
        if kind & 0x8000:
            error, size = struct.unpack(">IH", data[:6])
            return Chunk(cookie, kind, data, bool(flags & 1), error, data[6 : 6 + size].decode())
        return Chunk(cookie, kind, data, bool(flags & 1))

    def reply(self):
        """All chunks of the next reply; replies must not be mixed."""
        chunks = [self.chunk()]
        while not chunks[-1].done:
            chunks.append(self.chunk())
        return chunks

    def call(self, kind, offset=0, length=0, flags=0, payload=b""):
        """A command and its last chunk."""
        cookie = self.request(kind, offset, length, flags, payload)
        chunk = self.reply()[-1]
        assert chunk.cookie == cookie
        return chunk

    def read(self, offset, length, flags=0):
        """Data, whatever chunks it comes in; an error raises."""
        self.request(READ, offset, length, flags)
        data = bytearray(length)
        for chunk in self.reply():
            if chunk.error:
                raise OSError(chunk.error, chunk.message)
            if self.mode == Mode.SIMPLE:
                return chunk.data
            if chunk.type == 1:
                (at,) = struct.unpack(">Q", chunk.data[:8])
                data[at - offset : at - offset + len(chunk.data) - 8] = chunk.data[8:]
        return bytes(data)

    def write(self, offset, data, flags=0):
        if self.mode == Mode.EXTENDED:
            flags |= PAYLOAD_LEN
        return self.call(WRITE, offset, len(data), flags, data).error

    def status(self, offset, length, flags=0, payload=b""):
        """{context id: [(length, state)...]}."""
        self.request(BLOCK_STATUS, offset, length, flags, payload)
        found = {}
        for chunk in self.reply():
            if chunk.error:
                raise OSError(chunk.error, chunk.message)
            if chunk.type == 5:
                (context,) = struct.unpack(">I", chunk.data[:4])
                found[context] = list(struct.iter_unpack(">II", chunk.data[4:]))
            else:
                context, count = struct.unpack(">II", chunk.data[:8])
                found[context] = list(struct.iter_unpack(">QQ", chunk.data[8:]))
                assert count == len(found[context])
        return found
