/* Hands out slots and finds sandboxes by their handles; see slots.h. Does nothing to a sandbox. */
#define _GNU_SOURCE
#include "slots.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct sandbox slots[SANDBOXES_MAX];
uint32_t slots_taken, slots_dying;
static uint32_t last_slot = SANDBOXES_MAX - 1;
static uint64_t generation;

void slots_open(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    generation = (uint64_t)now.tv_sec;
}

struct sandbox *slot_take(void)
{
    for (uint32_t i = 0; i < SANDBOXES_MAX; i++) {
        last_slot = (last_slot + 1) % SANDBOXES_MAX; /* longest free first */
        struct sandbox *sandbox = &slots[last_slot];
        if (sandbox->state != FREE)
            continue;
        *sandbox = (struct sandbox){.state = LIVE, .pidfd = -1, .channel = -1, .handle = ++generation << 32 | last_slot};
        snprintf(sandbox->cgroup.name, sizeof sandbox->cgroup.name, "s%u", last_slot);
        slots_taken++;
        return sandbox;
    }
    return NULL;
}

void slot_free(struct sandbox *sandbox)
{
    slots_dying -= sandbox->state == DYING;
    slots_taken--;
    sandbox->state = FREE;
}

struct sandbox *slot_find(uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    struct sandbox *sandbox = slot < SANDBOXES_MAX ? &slots[slot] : NULL;
    return sandbox && sandbox->state != FREE && sandbox->handle == handle ? sandbox : NULL;
}

uint32_t slot_of(const struct sandbox *sandbox)
{
    return (uint32_t)(sandbox - slots);
}

void slot_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
