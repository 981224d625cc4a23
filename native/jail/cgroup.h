/* Control groups of sandboxes, on cgroup v1, v2 and hybrid hosts.
 *
 * Everything is made under one folder, stoker.<instance>, below the jail's own group in each hierarchy, so that
 * an earlier life's leftovers are found. It must never touch a group outside that folder, nor any hierarchy's mount.
 */
#ifndef STOKER_JAIL_CGROUP_H
#define STOKER_JAIL_CGROUP_H

#include "protocol.h"

#include <sys/types.h>

/* Finds the hierarchies, makes the folder in each, and removes what an earlier life left, killing it first.
 * `state` is where it remembers them. With only_v1 a v2 hierarchy is left alone. Sets the JAIL_LIMITS_* and
 * JAIL_FREEZE_* features and the degraded bits. -errno only when leftovers stay. */
int cgroup_open(const char *state, const char *instance, int only_v1, uint32_t *features, uint32_t *degraded);

/* Bounds what all sandboxes together may take of what the host has only once: process numbers, socket buffers. And
 * says how much they weigh together where others want the CPU. */
void cgroup_limit_all(void);

#define CGROUP_JOINS_MAX 8

/* How a new process gets into its groups; every descriptor is the caller's to close, -1 where there is none. */
struct cgroup_entry {
    int into;                    /* v2: for CLONE_INTO_CGROUP */
    int joins[CGROUP_JOINS_MAX]; /* v1: `tasks` files the process itself writes "0" to: only a thread that moves
                                  * itself is spared the kernel's global lock, which can cost milliseconds */
};

/* One sandbox's. Where the CPU is shared out it is below a group of its cpu_group, elsewhere beside all others. */
struct cgroup {
    char name[16];
    uint64_t cpu_group; /* 0: of none yet */
};

/* Lets this group of users (zygotes, that have no way to name a control group) start processes in those they are
 * given: v2 asks for the right to write both to the new group and to what is above it and theirs. */
int cgroup_admit_all(gid_t users);
int cgroup_admit(const struct cgroup_entry *entry, gid_t users);

/* Makes the group with these limits. */
int cgroup_make(struct cgroup *group, const struct jail_limits *limits, struct cgroup_entry *entry);

/* Changes the limits; the first that name a cpu_group move a sandbox of none into it. Returns 1 when the descriptors
 * that cgroup_handles gave are of no use any more, 0 when they are, or -errno. */
int cgroup_limit(struct cgroup *group, const struct jail_limits *limits);

/* Opens what the service may hold: fds[JAIL_FD_FREEZE] and on; returns the mask of those that exist here. */
uint32_t cgroup_handles(const struct cgroup *group, int fds[JAIL_ANSWER_FDS_MAX]);

/* SIGKILL to all in the group, frozen or not. */
void cgroup_kill(const struct cgroup *group);

/* 0, or -EBUSY while a process is still leaving. */
int cgroup_remove(const struct cgroup *group);

/* Removes the folder itself. */
void cgroup_close(void);

#endif
