/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inflate_fuzz.c - the fuzz target of csrc/inflate.c: inflate_fuzz [inputs
 * [seed]].  With clang: -fsanitize=fuzzer,address,undefined
 * -DQCOW2_LIBFUZZER.
 *
 * An input is a byte for the kind of stream and the size of the cluster, and
 * the stream.  Every buffer ends where its memory does.
 */
#include "world.h"

#include "compressed.h"

static void one_input(const uint8_t *input, size_t bytes)
{
    uint32_t kind = bytes ? input[0] & 1 : 0;
    size_t cluster = 512u << (bytes ? (input[0] >> 1) % 13 : 0);
    unsigned char *in, *out;
    int result;

    if (bytes < 2) {
        return;
    }
    in = malloc(bytes - 1);
    out = malloc(cluster);
    memcpy(in, input + 1, bytes - 1);
    result = q2_inflate(kind, in, bytes - 1, out, cluster);
    CHECK(result == 0 || result == -EIO || result == -ENOMEM);
    free(in);
    free(out);
}

#ifdef QCOW2_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    one_input(input, bytes);
    return 0;
}
#else
static uint8_t plain[2 << 20], input[1 + (2 << 20)];

/* A good stream of a cluster of few different bytes. */
static int64_t good(uint64_t *chance, uint32_t kind, size_t cluster)
{
    uint32_t values = 1 + chance_below(chance, 40);

    for (size_t i = 0; i < cluster; i++) {
        plain[i] = chance_below(chance, values);
    }
    return q2_deflate(kind, plain, cluster, input + 1, cluster - 1);
}

static void spoil(uint64_t *chance, uint64_t bytes)
{
    for (uint64_t n = chance_below(chance, 6); n; n--) {
        uint64_t at = 1 + (chance_below(chance, 2)
            ? chance_below(chance, bytes)
            : chance_below(chance, bytes < 24 ? bytes : 24));

        input[at] = chance_below(chance, 2) ? chance_next(chance)
                                            : input[at] ^ 1u << (at & 7);
    }
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000;
    uint64_t chance = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t kind = chance_below(&chance, 2);
        uint32_t order = chance_below(&chance, i % 64 ? 6 : 13);
        int64_t bytes = good(&chance, kind, 512u << order);

        if (bytes <= 0) {
            continue;
        }
        input[0] = order << 1 | kind;
        one_input(input, 1 + bytes);
        spoil(&chance, bytes);
        one_input(input, 1 + bytes);
        one_input(input, 2 + chance_below(&chance, bytes));
    }
    return 0;
}
#endif
