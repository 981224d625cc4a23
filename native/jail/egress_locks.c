/* Locks of the jails that have egress on this host; see egress_locks.h. */
#define _GNU_SOURCE
#include "egress_locks.h"

#include "egress_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 80
#define TRIES 100

static unsigned long network; /* inode of the network namespace */

int egress_locks_open(int netns_fd)
{
    struct stat status;
    if (fstat(netns_fd, &status) < 0)
        return egress_fail(-errno, "look at the network namespace");
    network = (unsigned long)status.st_ino;
    return 0;
}

static void instance_path(uint32_t instance, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "/run/stoker-egress-%lu-%u.lock", network, instance);
}

static void record_path(char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "/run/stoker-egress-%lu.uplinks", network);
}

/* Files are removed by who holds their lock: one that is gone or new by then is no lock. */
static int is_still(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

static int lock_file(const char *path, int how)
{
    for (int i = 0; i < TRIES; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return egress_fail(-errno, "open %s", path);
        int error = flock(fd, how) < 0 ? -errno : 0;
        if (error == 0 && is_still(fd, path))
            return fd;
        close(fd);
        if (error < 0 && error != -EINTR)
            return error;
    }
    return egress_fail(-EBUSY, "lock %s", path);
}

int egress_lock_instance(uint32_t instance)
{
    char path[PATH_BYTES];
    instance_path(instance, path);
    return lock_file(path, LOCK_EX | LOCK_NB);
}

void egress_unlock_instance(uint32_t instance, int fd)
{
    char path[PATH_BYTES];
    instance_path(instance, path);
    unlink(path);
    close(fd);
}

int egress_others_live(uint32_t instance)
{
    for (uint32_t i = 0; i < EGRESS_INSTANCES; i++) {
        if (i == instance)
            continue;
        int fd = egress_lock_instance(i);
        if (fd < 0)
            return 1; /* also when we cannot know */
        egress_unlock_instance(i, fd);
    }
    return 0;
}

int egress_lock_record(void)
{
    char path[PATH_BYTES];
    record_path(path);
    return lock_file(path, LOCK_EX);
}

void egress_remove_record(void)
{
    char path[PATH_BYTES];
    record_path(path);
    unlink(path);
}
