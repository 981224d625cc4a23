/* An ordered list of what goes from the template into a sandbox's own root; see root.h. */
#define _GNU_SOURCE
#include "root.h"

#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

enum kind {
    OWN,  /* the sandbox mounted it: it moves, with what is mounted on it */
    HOST, /* part of the template: a clone of it appears there */
};

static const struct {
    enum kind kind;
    const char *path;
    mode_t type; /* folders must be there; a file that is none, or that is missing, is passed over */
} PLACES[] = {
    {HOST, "/dev", S_IFDIR},
    {OWN, "/tmp", S_IFDIR},
    {HOST, "/etc/resolv.conf", S_IFREG},
    {HOST, "/etc/hosts", S_IFREG},
    {HOST, "/etc/hostname", S_IFREG},
    {OWN, "/proc", S_IFDIR}, /* last: nothing that is looked for in the root may end in it */
};

/* A place in the root itself: links stay inside it, and nothing mounted there meanwhile is entered. */
static int find(int root, const char *path, mode_t type)
{
    struct stat status;
    const struct open_how how = {
        .flags = O_PATH | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    int place = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    if (place < 0)
        return -errno;
    if (fstat(place, &status) == 0 && (status.st_mode & S_IFMT) == type)
        return place;
    close(place);
    return -ENOTDIR;
}

static int clone_of(const char *path)
{
    int mount = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    return mount < 0 ? -errno : mount;
}

static int put(enum kind kind, const char *path, int place)
{
    unsigned flags = MOVE_MOUNT_T_EMPTY_PATH;
    if (kind == OWN)
        return syscall(SYS_move_mount, AT_FDCWD, path, place, "", flags) < 0 ? -errno : 0;
    int mount = clone_of(path);
    if (mount < 0)
        return mount;
    int error = syscall(SYS_move_mount, mount, "", place, "", flags | MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
    close(mount);
    return error;
}

static int furnish(int root)
{
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        int place = find(root, PLACES[i].path, PLACES[i].type);
        if (place < 0 && PLACES[i].type == S_IFDIR)
            return place;
        if (place < 0)
            continue;
        int error = put(PLACES[i].kind, PLACES[i].path, place);
        close(place);
        if (error)
            return error;
    }
    return 0;
}

int root_enter(void)
{
    int root = open(MOUNTS_NEW_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -errno;
    int error = furnish(root);
    if (!error && (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
                   chdir("/") < 0))
        error = -errno;
    close(root);
    return error;
}
