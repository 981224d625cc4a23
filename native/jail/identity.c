/* Gives every slot its own ids; see identity.h. */
#define _GNU_SOURCE
#include "identity.h"

#include "files.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum { FULL, RANGE, SINGLE } mode;
static uint32_t base;
static uint32_t available; /* RANGE: ids above 0 that are mapped into the jail's own user namespace */
static int groups_allowed = 1;

/* How many ids from 1 on the jail may hand out: the extent of its own map that holds id 1. */
static uint32_t mapped_ids(const char *path)
{
    char text[4096];
    if (files_read(AT_FDCWD, path, text, sizeof text) <= 0)
        return 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned inside, outside, count;
        if (sscanf(line, "%u %u %u", &inside, &outside, &count) == 3 && inside <= 1 && inside + count > 1)
            return inside + count - 1;
    }
    return 0;
}

int identity_open(uint32_t id_base, int rootless)
{
    char text[16];
    base = id_base;
    if (!rootless)
        return 0;
    uint32_t users = mapped_ids("/proc/self/uid_map"), groups = mapped_ids("/proc/self/gid_map");
    available = users < groups ? users : groups;
    mode = available > 1 ? RANGE : SINGLE;
    groups_allowed = files_read(AT_FDCWD, "/proc/self/setgroups", text, sizeof text) > 0 && text[0] == 'a';
    return mode == SINGLE;
}

struct identity identity_of(uint32_t slot)
{
    struct identity identity = {.inside_uid = SANDBOX_UID, .inside_gid = SANDBOX_GID, .count = 1};
    identity.may_set_groups = groups_allowed;
    if (mode == FULL) {
        identity.inside_uid = identity.inside_gid = 0;
        identity.outside = base + slot * IDS_PER_SLOT;
        identity.count = IDS_PER_SLOT;
        identity.whole = 1;
    } else if (mode == RANGE) {
        identity.outside = 1 + slot % available;
    }
    identity.outside_gid = identity.outside;
    return identity;
}

gid_t identity_zygotes(void)
{
    return base + SANDBOXES_MAX * IDS_PER_SLOT + ZYGOTE_IDS;
}

struct identity identity_of_zygote(void)
{
    static uint32_t next;
    struct identity identity = {.inside_uid = SANDBOX_UID, .inside_gid = SANDBOX_GID, .count = 1};
    identity.outside = base + SANDBOXES_MAX * IDS_PER_SLOT + next++ % ZYGOTE_IDS;
    identity.outside_gid = identity_zygotes();
    identity.may_set_groups = groups_allowed;
    return identity;
}

uid_t identity_uid(const struct identity *identity, uid_t inside)
{
    return identity->outside + inside - identity->inside_uid;
}

gid_t identity_gid(const struct identity *identity, gid_t inside)
{
    return identity->outside_gid + inside - identity->inside_gid;
}

static int write_map(pid_t pid, const char *file, uint32_t inside, uint32_t outside, uint32_t count)
{
    char path[48], text[48];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    snprintf(text, sizeof text, "%u %u %u", inside, outside, count);
    return files_write(AT_FDCWD, path, text);
}

int identity_map(const struct identity *identity, pid_t pid)
{
    int error = write_map(pid, "uid_map", identity->inside_uid, identity->outside, identity->count);
    return error ? error : write_map(pid, "gid_map", identity->inside_gid, identity->outside_gid, identity->count);
}
