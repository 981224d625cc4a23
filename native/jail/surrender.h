/* How a process gives up every right it does not need: the end of the way into a sandbox, for the init that the
 * jail starts and for a process that a zygote forks into one. */
#ifndef STOKER_JAIL_SURRENDER_H
#define STOKER_JAIL_SURRENDER_H

#include <linux/filter.h>
#include <sys/types.h>

struct surrender_plan {
    unsigned open_files_max;
    int may_set_groups;
    uid_t uid;
    gid_t gid;
    const struct sock_fprog *filter;
};

/* 0, or -errno with *step naming what failed; the process is to end then. */
int surrender(const struct surrender_plan *plan, const char **step);

#endif
