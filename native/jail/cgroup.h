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
 * Sets the JAIL_LIMITS_* and JAIL_FREEZE_* features and the degraded bits. -errno only when leftovers stay. */
int cgroup_open(const char *instance, uint32_t *features, uint32_t *degraded);

/* Makes the group `name` with these limits. On v2, *into is a descriptor for CLONE_INTO_CGROUP, else -1. */
int cgroup_make(const char *name, const struct jail_limits *limits, int *into);

/* Moves a process into the v1 groups. Nothing to do on pure v2. */
int cgroup_join(const char *name, pid_t pid);

int cgroup_limit(const char *name, const struct jail_limits *limits);

/* Opens what the service may hold: fds[JAIL_FD_FREEZE] and on; returns the mask of those that exist here. */
uint32_t cgroup_handles(const char *name, int fds[JAIL_ANSWER_FDS_MAX]);

/* SIGKILL to all in the group, frozen or not. */
void cgroup_kill(const char *name);

/* 0, or -EBUSY while a process is still leaving. */
int cgroup_remove(const char *name);

/* Removes the folder itself. */
void cgroup_close(void);

#endif
