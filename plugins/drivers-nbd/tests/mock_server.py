# SPDX-License-Identifier: Apache-2.0
"""A server that says what a test tells it to say, right or wrong.

In the handshake ``answers`` maps an option's number to bytes, or to a function of the
option's data; options that it has not are unsupported.  In transmission ``serve`` is
called with each command, and what it answers is sent.
"""

import contextlib
import socket
import struct
import threading

import attrs

MAGIC, OPTION = b"NBDMAGIC", b"IHAVEOPT"
REPLY = 0x3E889045565A9
SIMPLE, CHUNK, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C
DONE = 1
#: HAS_FLAGS, flush, FUA, trim, zeroes, cache, fast zeroes.
FLAGS = 0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x400 | 0x800
SIZE = 1 << 20


def reply(option, kind, data=b"", *, magic=REPLY, length=None):
    """One reply to an option."""
    return struct.pack(">QIII", magic, option, kind, len(data) if length is None else length) + data


def ack(option):
    return reply(option, 1)


def export(size=SIZE, flags=FLAGS):
    return struct.pack(">HQH", 0, size, flags)


def blocks(minimum, preferred, maximum):
    return struct.pack(">HIII", 3, minimum, preferred, maximum)


def go(*infos):
    return b"".join(reply(7, 3, info) for info in infos or (export(),)) + ack(7)


def context(name=b"base:allocation", number=1):
    return reply(10, 4, struct.pack(">I", number) + name) + ack(10)


SIMPLE_MODE = {7: go()}
STRUCTURED = {8: ack(8), 10: context(), 7: go()}
EXTENDED_MODE = {11: ack(11), 10: context(), 7: go()}


class Last(bytes):
    """An answer behind which the server hangs up."""


@attrs.frozen
class Command:
    """One command as it came."""

    flags: int
    type: int
    cookie: int
    offset: int
    length: int
    payload: bytes = b""

    def simple(self, data=b"", error=0, *, magic=SIMPLE, cookie=None):
        cookie = self.cookie if cookie is None else cookie
        return struct.pack(">IIQ", magic, error, cookie) + data

    def chunk(self, kind, data=b"", *, flags=DONE, length=None, cookie=None):
        cookie = self.cookie if cookie is None else cookie
        length = len(data) if length is None else length
        return struct.pack(">IHHQI", CHUNK, flags, kind, cookie, length) + data

    def extended(self, kind, data=b"", *, flags=DONE, length=None):
        length = len(data) if length is None else length
        head = struct.pack(">IHHQQQ", EXTENDED, flags, kind, self.cookie, self.offset, length)
        return head + data

    def data(self, data, *, offset=None, flags=DONE):
        offset = self.offset if offset is None else offset
        return self.chunk(1, struct.pack(">Q", offset) + data, flags=flags)

    def hole(self, length, *, offset=None, flags=DONE):
        offset = self.offset if offset is None else offset
        return self.chunk(2, struct.pack(">QI", offset, length), flags=flags)

    def extents(self, *extents, number=1, flags=DONE):
        body = b"".join(struct.pack(">II", *extent) for extent in extents)
        return self.chunk(5, struct.pack(">I", number) + body, flags=flags)


class MockServer:
    """Listens on ``path`` until :meth:`close`; a thread for each client."""

    def __init__(self, path, answers=None, serve=None, *, flags=3, raw=None):
        self.path = str(path)
        self.answers = SIMPLE_MODE if answers is None else answers
        self.serve = serve or (lambda command: command.simple())
        self.flags = flags
        self.raw = raw
        self.commands = []
        self.clients = 0
        self._sockets = []
        self._threads = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def options(self, **more):
        return {"driver": "nbd", "server": {"type": "unix", "path": self.path}, **more}

    def close(self):
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self.clients += 1
            self._start(self._client, client)

    def _client(self, client):
        with contextlib.suppress(OSError, EOFError):
            if self.raw is not None:
                client.sendall(self.raw)
                client.shutdown(socket.SHUT_WR)
                client.recv(1)
                return
            extended = self._handshake(client)
            while command := _command(client, extended):
                self.commands.append(command)
                answer = self.serve(command)
                if answer is None:
                    break
                client.sendall(answer)
                if isinstance(answer, Last):
                    break
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _handshake(self, client):
        client.sendall(MAGIC + OPTION + struct.pack(">H", self.flags))
        _exactly(client, 4)
        agreed = False
        while True:
            _, option, length = struct.unpack(">8sII", _exactly(client, 16))
            data = _exactly(client, length)
            answer = self.answers.get(option, reply(option, 0x80000001))
            answer = answer(data) if callable(answer) else answer
            if not answer:
                raise EOFError
            client.sendall(answer)
            agreed = agreed or (option == 11 and answer == ack(11))
            if option == 1 or (option == 7 and answer.endswith(ack(7))):
                return agreed


def _exactly(client, count):
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _command(client, extended):
    if extended:
        fields = struct.unpack(">IHHQQQ", _exactly(client, 32))
    else:
        fields = struct.unpack(">IHHQQI", _exactly(client, 28))
    magic, flags, kind, cookie, offset, length = fields
    assert magic == (0x21E41C71 if extended else 0x25609513)
    if kind == 2:
        return None
    payload = _exactly(client, length) if kind == 1 else b""
    return Command(flags, kind, cookie, offset, length, payload)
