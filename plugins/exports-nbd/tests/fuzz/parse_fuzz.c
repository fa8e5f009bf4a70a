/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse_fuzz.c - the fuzz target of csrc/parse.c.
 *
 * With clang: -fsanitize=fuzzer,address,undefined -DNBD_LIBFUZZER.  Without,
 * main mutates commands of its own: parse_fuzz [inputs [seed]].
 *
 * An input is 16 bytes of rules and then a client's stream.  What is checked
 * is parse.h's promise: what leaves without an error is within the export,
 * allowed on it, and no longer than the maximum.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../csrc/parse.c"

#define REQUIRE(condition)                                              \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,          \
                    #condition);                                        \
            abort();                                                    \
        }                                                               \
    } while (0)

static bool writes(const struct nbd_command *command)
{
    return command->type == NBD_CMD_WRITE || command->type == NBD_CMD_TRIM ||
           command->type == NBD_CMD_WRITE_ZEROES;
}

static void check_good(const struct nbd_command *command,
                       const struct nbd_rules *rules)
{
    REQUIRE(command->type <= NBD_CMD_BLOCK_STATUS);
    REQUIRE(command->offset <= rules->size);
    REQUIRE(command->length <= rules->size - command->offset);
    REQUIRE(!rules->read_only || !writes(command));
    if (command->type == NBD_CMD_READ || command->type == NBD_CMD_WRITE ||
        command->type == NBD_CMD_CACHE) {
        REQUIRE(command->length <= rules->max_payload);
    }
    if (command->type == NBD_CMD_WRITE) {
        REQUIRE(command->payload == command->length);
    } else if (command->type != NBD_CMD_BLOCK_STATUS) {
        REQUIRE(!command->payload);
    } else {
        REQUIRE(command->length && command->contexts);
        REQUIRE(!(command->contexts & ~rules->contexts));
        REQUIRE(command->payload <= NBD_STATUS_PAYLOAD_MAX);
    }
}

static void check_command(const struct nbd_command *command,
                          const struct nbd_rules *rules)
{
    if (command->type == NBD_CMD_DISC) {
        return;
    }
    if (!command->error) {
        check_good(command, rules);
        return;
    }
    REQUIRE(command->length == 0);
    REQUIRE(command->message && command->message[0]);
    REQUIRE(command->hang_up == (command->payload > UINT32_MAX));
}

/* As receive.c: a status payload is parsed when all of it is there. */
static size_t take(const uint8_t *bytes, size_t left,
                   const struct nbd_rules *rules)
{
    struct nbd_command command;
    enum nbd_parsed parsed = nbd_parse(bytes, left, rules, &command);
    size_t used = nbd_header_bytes(rules);

    if (parsed != NBD_PARSED_COMMAND) {
        REQUIRE(parsed == NBD_PARSED_BROKEN || left < used);
        return left;
    }
    if (command.type == NBD_CMD_BLOCK_STATUS && !command.error &&
        command.payload) {
        REQUIRE(command.payload <= NBD_STATUS_PAYLOAD_MAX);
        if (left - used < command.payload) {
            return left;
        }
        nbd_parse_status_payload(bytes + used, rules, &command);
    }
    check_command(&command, rules);
    if (command.payload > left - used) {
        return left;
    }
    return used + command.payload;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nbd_rules rules;

    if (size < 16) {
        return 0;
    }
    rules.mode = data[0] % 3;
    rules.contexts = data[1] & 4 ? nbd_get64(data) : data[1] & 3;
    rules.read_only = data[2] & 1;
    rules.max_payload = nbd_get32(data + 4);
    rules.size = nbd_get64(data + 8) >> (data[3] & 63);
    data += 16;
    size -= 16;
    while (size) {
        /* A copy of its own, so that the sanitizer sees one byte too far. */
        uint8_t *exact = malloc(size);
        size_t used;

        memcpy(exact, data, size);
        used = take(exact, size, &rules);
        free(exact);
        data += used;
        size -= used;
    }
    return 0;
}

#ifndef NBD_LIBFUZZER

static uint64_t state = 88172645463325252ull;

static uint64_t roll(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Numbers near which lengths and offsets go wrong. */
static uint64_t interesting(void)
{
    static const uint64_t values[] = {
        0, 1, 8, 12, 16, 20, 511, 4096, 0x2000000, 0x2000001, 0x7fffffff,
        0xffffffff, 0x100000000, 1ull << 63, UINT64_MAX - 1, UINT64_MAX,
    };

    return values[roll() % (sizeof(values) / sizeof(*values))];
}

static size_t put_command(uint8_t *at, bool extended)
{
    nbd_put32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    nbd_put16(at + 4, roll() % 4 ? roll() % 64 : roll());
    nbd_put16(at + 6, roll() % 16 ? roll() % 9 : roll());
    nbd_put64(at + 8, roll());
    nbd_put64(at + 16, interesting());
    if (extended) {
        nbd_put64(at + 24, interesting());
        return 32;
    }
    nbd_put32(at + 24, (uint32_t)interesting());
    return 28;
}

static size_t make_input(uint8_t *input, size_t room)
{
    size_t size = 16;
    uint64_t noise;

    for (int i = 0; i < 16; i++) {
        input[i] = roll();
    }
    nbd_put64(input + 8, interesting());
    input[3] = roll() % 2 ? 0 : input[3];
    while (size + 64 < room && roll() % 8) {
        size += put_command(input + size, input[0] % 3 == NBD_MODE_EXTENDED);
        for (size_t n = roll() % 24; n; n--) {
            input[size++] = roll() % 3 ? 0 : roll() % 3;
        }
    }
    for (noise = roll() % 4; noise; noise--) {
        input[16 + roll() % (size - 15)] ^= 1 << roll() % 8;
    }
    return 16 + roll() % (size - 15);
}

int main(int argc, char **argv)
{
    long inputs = argc > 1 ? atol(argv[1]) : 1000000;
    uint8_t input[1024];

    state ^= argc > 2 ? strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull
                      : 0;
    for (long i = 0; i < inputs; i++) {
        LLVMFuzzerTestOneInput(input, make_input(input, sizeof(input)));
    }
    for (int error = -5; error < 140; error++) {
        nbd_error_of(error);
    }
    printf("%ld inputs\n", inputs);
    return 0;
}

#endif
