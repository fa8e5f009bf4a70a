/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half calls; cffi reads the declarations below,
 * so this file holds only comments, includes, plain structures and prototypes.
 *
 * A server is a budget of bytes that its connections share.  A connection is
 * one client in the transmission phase, carried by one loop until the event
 * BY_NBD_CLOSED; nothing here waits.  Any thread, but one thread at a time for
 * each object.
 */
#ifndef BY_NBD_CONTROL_H
#define BY_NBD_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum by_nbd_event {
    /* The client is gone and nothing of it is in flight: result 0 after DISC
     * or a shutdown, else a negative errno; a = requests, b = bytes. */
    BY_NBD_CLOSED = 1
};

struct by_bitmap;          /* core's; alive until BY_NBD_CLOSED */
/* The bytes at `offset`, at most `bytes`, that are alike: all dirty or none.
 * 0 past the bitmap's end. */
typedef uint64_t by_nbd_bitmap_status(struct by_bitmap *bitmap,
                                      uint64_t offset, uint64_t bytes,
                                      bool *dirty);

struct by_nbd_params {
    uint32_t mode;         /* 0 simple, 1 structured, 2 extended */
    uint32_t nbitmaps;     /* at most 62 */
    uint64_t contexts;     /* bit 0 base:allocation, 1 qemu:allocation-depth,
                              2 + i the i-th bitmap */
    uintptr_t bitmap_status;    /* a by_nbd_bitmap_status; 0: no bitmaps */
    const uintptr_t *bitmaps;   /* struct by_bitmap *; copied */
    uint32_t max_payload;  /* bytes */
    uint32_t max_requests; /* in flight, unsent replies among them */
    uint64_t size;         /* bytes, as the client was told */
    uint64_t budget;       /* bytes held for this client at most */
    bool read_only;
};

struct by_nbd_stats {
    uint64_t requests;
    uint64_t refused;      /* answered with an error before they ran */
    uint64_t failed;       /* answered with an error afterwards */
    uint64_t bytes_in;     /* from the socket */
    uint64_t bytes_out;
    uint64_t receives;     /* system calls' worth */
    uint64_t sends;
    uint64_t in_flight;
    uint64_t held;         /* bytes of memory for requests */
};

/* api: blockyard's table, as an integer (struct by_api). 0, or -EPROTO when
 * it is another version's. */
int by_nbd_check_api(uintptr_t api);

/* budget: bytes that all connections together hold; null: no memory. */
struct by_nbd_server *by_nbd_server_create(uint64_t budget);
uint64_t by_nbd_server_held(const struct by_nbd_server *server);
/* No connection is left. */
void by_nbd_server_free(struct by_nbd_server *server);

/*
 * Carry the client behind fd on the loop.  api, loop and root are blockyard's
 * pointers as integers.  `early` are bytes already received.  The descriptor
 * is the connection's from now on, unless null is returned (*error: -errno).
 */
struct by_nbd_connection *by_nbd_start(struct by_nbd_server *server,
                                       uintptr_t api, uintptr_t loop,
                                       uintptr_t root, int fd,
                                       const struct by_nbd_params *params,
                                       const void *early, size_t early_bytes,
                                       uint64_t tag, int *error);
/* soft: read no more, finish and answer what is in flight, at most bound_ns;
 * then, or when hard, cut the socket.  BY_NBD_CLOSED follows either way. */
void by_nbd_shutdown(struct by_nbd_connection *connection, bool hard,
                     uint64_t bound_ns);
void by_nbd_get_stats(const struct by_nbd_connection *connection,
                      struct by_nbd_stats *out);
/* BY_NBD_CLOSED has come. */
void by_nbd_free(struct by_nbd_connection *connection);

#endif /* BY_NBD_CONTROL_H */
