/* Shares the CPU out by function first, then by sandbox: where a hierarchy has the CPU controller, a sandbox's group
 * is below one of its cpu_group, so that a function with many sandboxes weighs no more than one with a single one.
 * Knows nothing of other limits. For cgroup.c alone. */
#ifndef STOKER_JAIL_CGROUP_SHARE_H
#define STOKER_JAIL_CGROUP_SHARE_H

#include "cgroup.h"
#include "cgroup_tree.h"

#define CGROUP_PATH_MAX 48
#define CGROUP_PERIOD_US 100000u

/* Where the sandbox's group is below our folder. Returns `path`. */
const char *cgroup_share_path(const struct hierarchy *hierarchy, const struct cgroup *group, char path[CGROUP_PATH_MAX]);

/* Makes the group of a cpu_group, unless it is there or this hierarchy has no use for one. */
int cgroup_share_make(const struct hierarchy *hierarchy, uint64_t cpu_group, const struct jail_limits *limits);

/* Removes it when nothing is left in it. */
void cgroup_share_leave(const struct hierarchy *hierarchy, uint64_t cpu_group);

/* Moves a sandbox of no cpu_group into that of its limits. 1: it is in another group now, 0: it stays, or -errno. */
int cgroup_share_join(const struct hierarchy *hierarchy, struct cgroup *group, const struct jail_limits *limits);

/* The weight of a group among its siblings: equal, or by the CPU it may have where the limits say so. */
int cgroup_share_weigh(int group, int v2, const struct jail_limits *limits);

#endif
