/* The folders stoker.<instance> that the jail keeps in each hierarchy. For cgroup.c alone. */
#ifndef STOKER_JAIL_CGROUP_TREE_H
#define STOKER_JAIL_CGROUP_TREE_H

#include "cgroup_find.h"

struct hierarchy {
    int parent; /* the group that holds our folder */
    int base;   /* our folder */
    char path[PATH_MAX + 128]; /* of our folder */
    uint32_t controllers;
    int v2;
};

#define CGROUP_SHARE_LETTER 'f' /* begins the name of a group of sandboxes; theirs begin otherwise */

extern struct hierarchy hierarchies[HIERARCHIES_MAX];
extern int hierarchy_count;

/* SIGKILL to all in the group `name` of our folder; on v1 thawed first. */
void cgroup_kill_in(const struct hierarchy *hierarchy, const char *name);

/* v2: hands the limiting controllers down to the groups below. Returns those that could be. */
uint32_t cgroup_hand_down(int group);

/* Moves every process from one group of a hierarchy to another. 0 or -errno. */
int cgroup_move_all(int from, int to);

#endif
