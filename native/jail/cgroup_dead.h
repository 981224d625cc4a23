/* Folders stoker.* of jails that are gone for good, with their state folders: nobody else would ever remove them.
 *
 * A jail holds a lock on its folder, so that another can tell. Only what is empty is removed: nothing is killed.
 */
#ifndef STOKER_JAIL_CGROUP_DEAD_H
#define STOKER_JAIL_CGROUP_DEAD_H

#define CGROUP_FOLDER_PREFIX "stoker."

/* Claims the folder `name` of `parent` that is open as `base`, as long as the jail lives. 0; -ESTALE when it has
 * to be opened again. Does nothing where folders cannot be marked (rootless). */
int cgroup_claim(int parent, int base, const char *name);

/* Removes every folder of `parent` that was claimed once, is not now, and has no process in it. */
void cgroup_remove_dead(int parent);

#endif
