/* Detached mounts: read-only clones of folders the service handed over, and the set-up of a template tree.
 *
 * Only descriptors and the fixed paths of template.c are used. It must never resolve a path that a sandbox or the
 * service can change.
 */
#ifndef STOKER_JAIL_MOUNTS_H
#define STOKER_JAIL_MOUNTS_H

/* An empty folder of the template where a sandbox's own root waits until it takes the template's place. */
#define MOUNTS_NEW_ROOT "/run"

/* Where each bit of jail_request.mounts appears inside. */
extern const char *const MOUNT_POINTS[];

/* A detached ro,nosuid,nodev clone of the folder that `folder` is open on; -ENOTDIR for anything else. */
int mounts_clone_folder(int folder);

/* The same of a regular file, noexec too, and writable if `file` is open for reading and writing. */
int mounts_clone_file(int file);

/* Has a detached mount show its owners, id for id, as those of the user namespace. 0 or -errno. */
int mounts_map_owners(int mount, int namespace);

/* Attaches a detached mount at a fixed path of the caller's mount namespace. 0 or -errno. */
int mounts_attach(int mount, const char *path);

/* Attaches a clone of `source` with all below it at `target`, with attributes (MOUNT_ATTR_*) set first. */
int mounts_bind(const char *source, const char *target, unsigned long long attributes);

/* Sets attributes on the mount at `path` alone. */
int mounts_restrict(const char *path, unsigned long long attributes);

#endif
