/* Finds where the jail's own control group is in every hierarchy that is mounted. Reads only. */
#ifndef STOKER_JAIL_CGROUP_FIND_H
#define STOKER_JAIL_CGROUP_FIND_H

#include <limits.h>
#include <stdint.h>

#define CONTROLLER_MEMORY 1u
#define CONTROLLER_CPU 2u
#define CONTROLLER_PIDS 4u
#define CONTROLLER_FREEZER 8u
#define CONTROLLERS_LIMITING (CONTROLLER_MEMORY | CONTROLLER_CPU | CONTROLLER_PIDS)

#define HIERARCHIES_MAX 8

struct cgroup_location {
    char mount[PATH_MAX]; /* the hierarchy's root as mounted here */
    char own[PATH_MAX];   /* the jail's own group, absolute */
    uint32_t controllers; /* v1: those of this hierarchy; v2: 0 */
    int v2;
};

/* The number found, at most HIERARCHIES_MAX; or -errno. */
int cgroup_find(struct cgroup_location found[HIERARCHIES_MAX]);

#endif
