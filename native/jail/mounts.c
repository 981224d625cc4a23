/* Detached mounts through the new mount API; see mounts.h. */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

const char *const MOUNT_POINTS[] = {"/var/task", "/opt", "/var/runtime", "/var/lang", "/var/codecache", MOUNTS_NEW_ROOT};

static int open_tree_at(int folder, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, folder, path, flags);
}

static int set_attributes(int mount, unsigned flags, unsigned long long attributes)
{
    /* Private: what is mounted or unmounted where it was cloned from must not follow it inside. */
    struct mount_attr wanted = {.attr_set = attributes, .propagation = MS_PRIVATE};
    return (int)syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | flags, &wanted, sizeof wanted);
}

static int clone(int source, unsigned long long attributes)
{
    int mount = open_tree_at(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (mount < 0)
        return -errno;
    if (set_attributes(mount, 0, attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) < 0) {
        int error = -errno;
        close(mount);
        return error;
    }
    return mount;
}

int mounts_clone_folder(int folder)
{
    struct stat status;
    if (fstat(folder, &status) < 0)
        return -errno;
    return S_ISDIR(status.st_mode) ? clone(folder, MOUNT_ATTR_RDONLY) : -ENOTDIR;
}

int mounts_clone_file(int file)
{
    struct stat status;
    int flags = fcntl(file, F_GETFL);
    if (flags < 0 || fstat(file, &status) < 0)
        return -errno;
    int writable = (flags & O_ACCMODE) == O_RDWR && !(flags & O_PATH);
    return S_ISREG(status.st_mode) ? clone(file, MOUNT_ATTR_NOEXEC | (writable ? 0 : MOUNT_ATTR_RDONLY)) : -EINVAL;
}

int mounts_map_owners(int mount, int namespace)
{
    struct mount_attr wanted = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)namespace};
    return syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &wanted, sizeof wanted) < 0 ? -errno : 0;
}

int mounts_attach(int mount, const char *path)
{
    return syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

int mounts_bind(const char *source, const char *target, unsigned long long attributes)
{
    int mount = open_tree_at(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (mount < 0)
        return -errno;
    int error = set_attributes(mount, AT_RECURSIVE, attributes) < 0 ? -errno : mounts_attach(mount, target);
    close(mount);
    return error;
}

int mounts_restrict(const char *path, unsigned long long attributes)
{
    struct mount_attr wanted = {.attr_set = attributes};
    return syscall(SYS_mount_setattr, AT_FDCWD, path, 0, &wanted, sizeof wanted) < 0 ? -errno : 0;
}
