/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - what the Python half calls. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "client.h"

static const struct by_api *api;

static const struct by_node_ops common_ops = {
    .size = sizeof(common_ops),
    .abi = BY_ABI_VERSION,
    .name = "nbd",
    .submit = nbd_submit,
    .drain_end = nbd_drain_end,
};

int by_nbdc_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    api = table;
    return 0;
}

struct by_nbdc *by_nbdc_create(uintptr_t loop,
                               const struct by_nbdc_facts *facts,
                               uint64_t tag)
{
    struct by_nbdc *client = calloc(1, sizeof(*client));

    if (!client) {
        return NULL;
    }
    client->api = api;
    client->tag = tag;
    client->facts = *facts;
    client->ops = common_ops;
    nbd_set_abilities(client);
    nbd_owner_init(client, (struct by_loop *)loop);
    return client;
}

uintptr_t by_nbdc_ops(struct by_nbdc *client)
{
    return (uintptr_t)&client->ops;
}

void by_nbdc_set_patient(struct by_nbdc *client, bool patient)
{
    nbd_give_order(client, (struct nbd_order) {
        .kind = NBD_PATIENT, .patient = patient,
    });
}

int by_nbdc_add(struct by_nbdc *client, int fd,
                const struct by_nbdc_facts *facts)
{
    int result = nbd_give_order(client, (struct nbd_order) {
        .kind = NBD_ADD, .fd = fd, .facts = *facts,
    });

    if (result < 0) {
        close(fd);
    }
    return result;
}

void by_nbdc_cut(struct by_nbdc *client)
{
    nbd_give_order(client, (struct nbd_order) { .kind = NBD_CUT });
}

int by_nbdc_stop(struct by_nbdc *client)
{
    return nbd_give_order(client, (struct nbd_order) { .kind = NBD_STOP });
}

void by_nbdc_free(struct by_nbdc *client)
{
    nbd_owner_end(client);
    free(client);
}

static uint64_t read_count(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void by_nbdc_get_stats(const struct by_nbdc *client,
                       struct by_nbdc_stats *out)
{
    const uint64_t *from = (const uint64_t *)&client->stats;
    uint64_t *to = (uint64_t *)out;

    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++) {
        to[i] = read_count(from + i);
    }
}
