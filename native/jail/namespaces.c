/* clone3 and setns; see namespaces.h. */
#define _GNU_SOURCE
#include "namespaces.h"

#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int host_mounts = -1; /* where the service's descriptors come from; -1 when rootless */
static int own_mounts = -1;
static int parent_death; /* the signal asked for when the parent dies, and that parent */
static pid_t parent;

int namespaces_open(int rootless)
{
    int host = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (host < 0 || unshare(CLONE_NEWNS) < 0)
        return -errno;
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return -errno;
    own_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (own_mounts < 0)
        return -errno;
    if (rootless) {
        close(host); /* an ordinary user may not enter it again */
        return 0;
    }
    host_mounts = host;
    parent = getppid();
    /* Borrowing a sandbox's uid must not cost the jail its capabilities. */
    return prctl(PR_GET_PDEATHSIG, &parent_death) < 0 || prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 ? -errno
                                                                                                              : 0;
}

static void come_back(void)
{
    if (setns(own_mounts, CLONE_NEWNS) == 0)
        return;
    perror("stoker-jail: cannot leave a mount namespace");
    _exit(70);
}

int namespaces_be_owner(uid_t owner)
{
    if (host_mounts < 0)
        return 0;
    if (syscall(SYS_setresuid, -1, owner, -1) < 0)
        return -errno;
    prctl(PR_SET_DUMPABLE, 1); /* changing ids cleared it, and the child's /proc files must be ours to open */
    return 0;
}

void namespaces_be_root(void)
{
    if (host_mounts < 0)
        return;
    if (syscall(SYS_setresuid, -1, 0, -1) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0 &&
        prctl(PR_SET_PDEATHSIG, parent_death) == 0 && /* cleared as well */
        (!parent_death || getppid() == parent))
        return;
    perror("stoker-jail: cannot be root again");
    _exit(70);
}

/* Without the right to enter the service's mount namespace the folder is found by its name here, and must be the
 * same one. The jail has no more rights than the service then, so a wrong name gains nothing. */
static int clone_by_name(int folder)
{
    char link[40], path[PATH_MAX];
    struct stat wanted, found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || fstat(folder, &wanted) < 0)
        return -errno;
    path[length] = 0;
    int here = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (here < 0)
        return -errno;
    int mount = -ESTALE;
    if (fstat(here, &found) == 0 && found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino)
        mount = mounts_clone_folder(here);
    close(here);
    return mount;
}

int namespaces_clone_folder(int folder)
{
    if (host_mounts < 0)
        return clone_by_name(folder);
    if (setns(host_mounts, CLONE_NEWNS) < 0)
        return -errno;
    int mount = mounts_clone_folder(folder);
    come_back();
    return mount;
}

int namespaces_clone_file(int file)
{
    if (host_mounts < 0 || setns(host_mounts, CLONE_NEWNS) < 0)
        return host_mounts < 0 ? -EOPNOTSUPP : -errno;
    int mount = mounts_clone_file(file);
    come_back();
    return mount;
}

int namespaces_attach(int pidfd, int mount, const char *path)
{
    if (setns(pidfd, CLONE_NEWNS) < 0)
        return -errno;
    int error = mounts_attach(mount, path);
    come_back();
    return error;
}

int namespaces_map_owners(int mount, pid_t pid, uid_t owner)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int error = namespaces_be_owner(owner); /* whose the child's /proc files are */
    if (error)
        return error;
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    error = namespace < 0 ? -errno : 0;
    namespaces_be_root(); /* before the mount changes: that takes the file system's own rights */
    if (error)
        return error;
    error = mounts_map_owners(mount, namespace);
    close(namespace);
    return error;
}

static pid_t spawn(int template, int into, uid_t owner, uint64_t more, int *pidfd)
{
    struct clone_args wanted = {
        .flags = more | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    if (into >= 0) {
        wanted.flags |= CLONE_INTO_CGROUP;
        wanted.cgroup = (uint64_t)into;
    }
    if (template >= 0 && setns(template, CLONE_NEWNS) < 0)
        return -errno;
    int error = namespaces_be_owner(owner);
    pid_t pid = error ? error : (pid_t)syscall(SYS_clone3, &wanted, sizeof wanted);
    if (pid == 0)
        return 0;
    error = pid == -1 ? -errno : error;
    namespaces_be_root();
    come_back();
    return error ? error : pid;
}

pid_t namespaces_spawn(int template, int into, uid_t owner, int *pidfd)
{
    return spawn(template, into, owner, CLONE_NEWUSER | CLONE_NEWPID, pidfd);
}

pid_t namespaces_spawn_zygote(int template, int into, int *pidfd)
{
    return spawn(template, into, 0, 0, pidfd);
}

pid_t namespaces_spawn_vm(int into, int *pidfd)
{
    return spawn(-1, into, 0, CLONE_NEWPID, pidfd);
}
