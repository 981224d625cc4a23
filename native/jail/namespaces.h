/* Starts a process in new namespaces, and carries the jail's own thread into a mount namespace and back.
 *
 * Between entering and leaving nothing but descriptors and fixed paths may be used. A failure to come back ends the
 * jail: it must never go on in a sandbox's namespace.
 */
#ifndef STOKER_JAIL_NAMESPACES_H
#define STOKER_JAIL_NAMESPACES_H

#include <sys/types.h>

/* Gives the jail a mount namespace of its own (unmounts still arrive from the host's). -errno on failure. */
int namespaces_open(int rootless);

/* In the mount namespace the service lives in: a detached read-only clone of the folder behind `folder`. */
int namespaces_clone_folder(int folder);

/* Attaches a detached mount at a fixed path inside the mount namespace of the process behind `pidfd`. */
int namespaces_attach(int pidfd, int mount, const char *path);

/* clone3 into new user, pid, mount (a copy of `template`), network, ipc and uts namespaces. 0 in the child, its pid
 * in the jail with *pidfd set, or -errno. `into`: a v2 control group, or -1. `owner` will own the user namespace:
 * what the kernel counts for each user (inotify, queued signals, processes) it counts for the owner too, and were
 * that root for all, one sandbox could use up what the host's own daemons need. Without effect when rootless. */
pid_t namespaces_spawn(int template, int into, uid_t owner, int *pidfd);

/* The same in the jail's own user and pid namespaces: those of others can only be entered from above them. */
pid_t namespaces_spawn_zygote(int template, int into, int *pidfd);

/* Into new pid, mount (a copy of the jail's), network, ipc and uts namespaces, as the jail's own user: a VMM's. */
pid_t namespaces_spawn_vm(int into, int *pidfd);

/* A detached nosuid,nodev,noexec clone of the regular file behind `file`, writable if that is open for both. */
int namespaces_clone_file(int file);

/* Has a detached mount show its owners, id for id, as those of the user namespace of `pid`, which `owner` owns. */
int namespaces_map_owners(int mount, pid_t pid, uid_t owner);

/* Takes the owner's effective uid, and with it every right over the sandbox's user namespace, also those that root
 * of a confined host lacks (CAP_SYS_RESOURCE, CAP_SYS_PTRACE); the jail keeps its own. 0 or -errno. And back. */
int namespaces_be_owner(uid_t owner);
void namespaces_be_root(void);

#endif
