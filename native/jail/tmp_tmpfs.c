/* /tmp volumes as tmpfs: for rootless hosts, where no file system image may be
 * mounted. Counts against the function's memory, and says so in the banner. */
#define _GNU_SOURCE
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#define BYTES_PER_INODE 16384 /* ext4's own ratio: an inode costs a kilobyte of memory */

static int open_none(int state_fd, const char *state_dir, uint64_t capacity_bytes)
{
    (void)state_fd, (void)state_dir, (void)capacity_bytes; /* memory needs no folder */
    return 0;
}

static void close_none(void)
{
}

static int make(struct tmp_volume *volume, uint64_t size_bytes)
{
    char size[32], inodes[32];
    struct tmp_option options[] = {{"size", size}, {"nr_inodes", inodes}, {"mode", "0700"}};
    snprintf(size, sizeof size, "%llu", (unsigned long long)size_bytes);
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)(size_bytes / BYTES_PER_INODE));
    int fd = tmp_mount("tmpfs", "tmp", options, sizeof options / sizeof *options);
    if (fd < 0)
        return fd;
    volume->root_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (volume->root_fd < 0) {
        int error = errno;
        close(fd);
        return tmp_fail(-error, "open a tmpfs");
    }
    volume->mount_fd = fd;
    return 0;
}

static int limit(struct tmp_volume *volume, uint64_t size_bytes)
{
    char size[32], inodes[32];
    snprintf(size, sizeof size, "%llu", (unsigned long long)size_bytes);
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)(size_bytes / BYTES_PER_INODE));
    int context = fspick(volume->root_fd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    if (context < 0)
        return tmp_fail(-errno, "pick a tmpfs");
    int result = 0;
    if (fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
        result = tmp_fail(-errno, "resize a tmpfs");
    close(context);
    return result;
}

static int discard(const struct tmp_volume *volume)
{
    (void)volume; /* went with its last mount */
    return 0;
}

const struct tmp_kind tmp_kind_tmpfs = {
    .spares = 4,
    .open = open_none,
    .make = make,
    .limit = limit,
    .discard = discard,
    .close = close_none,
};
