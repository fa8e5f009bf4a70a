/* SPDX-License-Identifier: Apache-2.0 */
/* wait.c - requests that wait for a table, for room, or for each other. */
#include "image.h"

void q2_wait_add(struct q2_wait **list, struct q2_wait *wait)
{
    while (*list) {
        list = &(*list)->next; /* first come, first served */
    }
    wait->next = NULL;
    wait->result = 0;
    *list = wait;
}

void q2_wake(struct q2_wait **list, int result)
{
    struct q2_wait *wait = *list;

    *list = NULL;
    while (wait) {
        struct q2_wait *next = wait->next;

        wait->result = result;
        q2_api->loop_post(wait->loop, &wait->task);
        wait = next;
    }
}
