/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instant.c - an NBD server without a disk: the most that one client can get.
 *
 * Answers every request at once with simple replies and zeroes, all that one
 * receive brought by one send.  One process per connection.  No checks: it
 * measures its client.   cc -O2 -o instant instant.c && ./instant SOCKET
 */
#include <endian.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SIZE_GIB = 1, ROOM = 64 << 20, IN_ROOM = 4 << 20 };

struct request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t handle, offset;
    uint32_t bytes;
} __attribute__((packed));

struct reply {
    uint32_t magic, error;
    uint64_t handle;
} __attribute__((packed));

static char in[IN_ROOM], *out;

static void get(int fd, void *to, size_t bytes)
{
    /* A receive of nothing waits for something. */
    if (bytes && recv(fd, to, bytes, MSG_WAITALL) != (ssize_t)bytes) {
        _exit(0);
    }
}

static void put(int fd, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(fd, (const char *)from + done, bytes - done, 0);

        if (n <= 0) {
            _exit(0);
        }
        done += n;
    }
}

static void answer_option(int fd, uint32_t option, uint32_t type,
                          const void *data, uint32_t bytes)
{
    struct {
        uint64_t magic;
        uint32_t option, type, bytes;
    } __attribute__((packed)) head = {htobe64(0x3e889045565a9), htobe32(option),
                                      htobe32(type), htobe32(bytes)};

    put(fd, &head, sizeof(head));
    put(fd, data, bytes);
}

/* Refuses every option but GO and EXPORT_NAME. */
static void handshake(int fd)
{
    uint64_t greeting[2] = {htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054)};
    uint16_t flags = htobe16(3);
    struct {
        uint64_t magic;
        uint32_t option, bytes;
    } __attribute__((packed)) head;
    struct {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } __attribute__((packed)) info = {
        0, htobe64((uint64_t)SIZE_GIB << 30), htobe16(1 | 4 | 256)};

    put(fd, greeting, sizeof(greeting));
    put(fd, &flags, sizeof(flags));
    get(fd, in, 4);
    for (;;) {
        get(fd, &head, sizeof(head));
        get(fd, in, be32toh(head.bytes));
        switch (be32toh(head.option)) {
        case 1:
            put(fd, &info.size, 10);
            return;
        case 7:
            answer_option(fd, 7, 3, &info, sizeof(info));
            answer_option(fd, 7, 1, NULL, 0);
            return;
        default:
            answer_option(fd, be32toh(head.option), 0x80000001u, NULL, 0);
        }
    }
}

/* Everything that lies whole in in[0, have); answers the bytes used. */
static size_t answer(int fd, size_t have)
{
    size_t used = 0, filled = 0;
    struct request req;

    while (have - used >= sizeof(req)) {
        uint32_t bytes;
        uint16_t type;

        memcpy(&req, in + used, sizeof(req));
        bytes = be32toh(req.bytes);
        type = be16toh(req.type);
        if (type == 2) {
            _exit(0);
        }
        if (type == 1 && have - used - sizeof(req) < bytes) {
            break;
        }
        used += sizeof(req) + (type == 1 ? bytes : 0);
        *(struct reply *)(out + filled) =
            (struct reply){htobe32(0x67446698), 0, req.handle};
        filled += sizeof(struct reply);
        if (type == 0) {
            memset(out + filled, 0, bytes);
            filled += bytes;
        }
    }
    put(fd, out, filled);
    return used;
}

static void serve(int fd)
{
    size_t have = 0;

    out = malloc(ROOM);
    handshake(fd);
    for (;;) {
        ssize_t n = recv(fd, in + have, sizeof(in) - have, 0);
        size_t used;

        if (n <= 0) {
            _exit(0);
        }
        have += n;
        used = answer(fd, have);
        memmove(in, in + used, have - used);
        have -= used;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc != 2) {
        return 2;
    }
    signal(SIGCHLD, SIG_IGN);
    strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
        listen(listener, 16)) {
        return 1;
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fork() == 0) {
            close(listener);
            serve(fd);
        }
        close(fd);
    }
}
