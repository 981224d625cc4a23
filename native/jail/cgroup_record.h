/* Remembers, in the jail's state folder, where its control groups are: the next jail may start in another group
 * of its own, and would not find there what a killed one left behind. */
#ifndef STOKER_JAIL_CGROUP_RECORD_H
#define STOKER_JAIL_CGROUP_RECORD_H

/* Calls `each` for every folder an earlier jail recorded. */
void cgroup_record_read(const char *state, void (*each)(const char *path));

/* Starts the record anew, and adds to it. 0 or -errno. */
int cgroup_record_clear(const char *state);
int cgroup_record_add(const char *state, const char *path);

#endif
