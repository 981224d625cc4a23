/* /tmp volumes as ext4 on a loop device each: where btrfs or its simple quotas
 * are missing. Mounting one takes 10 ms, so spares are prepared, copies of a blank of
 * the smallest size. Growing one online needs CAP_SYS_RESOURCE, which many
 * containers lack: without it a larger one is formatted when it is asked for.
 */
#define _GNU_SOURCE
#include "system_tool.h"
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK_BYTES 4096
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t) /* fs/ext4/ext4.h; not in the uapi headers */

static int state = -1;
static int blank = -1; /* a formatted image that volumes start as copies of */
static uint64_t capacity;
static uint64_t committed; /* nothing but this bounds the sum of sparse files */
static uint64_t serial;

static const struct tmp_option OPTIONS[] = {
    {"nobarrier", NULL}, /* it must not survive a power cut: fsync is cheap */
    {"errors", "continue"}, /* a full host disk is the function's error, not a dead volume */
};

/* What ext4 keeps for itself: inode tables (one inode per 16 KiB, 256 bytes
 * each), bitmaps, room to grow. The function gets what was promised. */
static uint64_t with_overhead(uint64_t size_bytes)
{
    uint64_t bytes = size_bytes + size_bytes / 48 + (8ULL << 20);
    return bytes & ~(uint64_t)(BLOCK_BYTES - 1);
}

static int format(int file)
{
    char path[64], said[256], resize[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), file);
    snprintf(resize, sizeof resize, "lazy_itable_init=1,nodiscard,resize=%llu",
             (unsigned long long)(with_overhead(TMP_VOLUME_MAX_BYTES) / BLOCK_BYTES));
    const char *const argv[] = {"mkfs.ext4", "-q", "-F", "-b", "4096", "-i", "16384", "-m", "0",
                                "-O", "^has_journal", "-E", resize, path, NULL};
    int result = system_tool_run(argv, NULL, said, sizeof said);
    if (result == -ENOENT)
        return tmp_fail(result, "mkfs.ext4 is missing (package e2fsprogs)");
    if (result < 0)
        return tmp_fail(result, "mkfs.ext4: %.*s", (int)strcspn(said, "\n"), said);
    return 0;
}

static void close_all(void)
{
    if (blank >= 0)
        close(blank);
    if (state >= 0)
        close(state);
    blank = state = -1;
}

static int open_all(int state_fd, const char *state_dir, uint64_t capacity_bytes)
{
    if (capacity_bytes < TMP_SPARE_BYTES)
        return tmp_fail(-ENOSPC, "an ext4 volume needs 512 MB in %s", state_dir);
    capacity = capacity_bytes;
    committed = 0;
    state = fcntl(state_fd, F_DUPFD_CLOEXEC, 3);
    if (state < 0)
        return tmp_fail(-errno, "keep the state folder");
    blank = tmp_image(state, with_overhead(TMP_SPARE_BYTES));
    int result = blank < 0 ? blank : format(blank);
    if (result < 0)
        close_all();
    return result;
}

/* Only the few megabytes that mkfs wrote; the rest stays a hole. */
static int copy_blank(int file)
{
    off_t end = 0;
    for (;;) {
        off_t at = lseek(blank, end, SEEK_DATA);
        if (at < 0)
            return errno == ENXIO ? 0 : tmp_fail(-errno, "read the blank image");
        end = lseek(blank, at, SEEK_HOLE);
        for (off_t to = at; at < end;) {
            ssize_t copied = copy_file_range(blank, &at, file, &to, (size_t)(end - at), 0);
            if (copied <= 0)
                return tmp_fail(copied < 0 ? -errno : -EIO, "copy the blank image");
        }
    }
}

static int grow(struct tmp_volume *volume, uint64_t size_bytes)
{
    uint64_t bytes = with_overhead(size_bytes), blocks = bytes / BLOCK_BYTES;
    int result = tmp_loop_grow(volume->device_fd, volume->file_fd, bytes);
    if (result == 0 && ioctl(volume->root_fd, EXT4_IOC_RESIZE_FS, &blocks) < 0)
        result = tmp_fail(-errno, "grow an ext4 (needs CAP_SYS_RESOURCE)");
    return result;
}

static int limit(struct tmp_volume *volume, uint64_t size_bytes)
{
    uint64_t now = volume->size_bytes;
    if (size_bytes == now)
        return 0;
    if (size_bytes < now)
        return tmp_fail(-EOPNOTSUPP, "an ext4 volume only grows, from %llu MB",
                        (unsigned long long)(now >> 20));
    if (size_bytes - now > capacity - committed)
        return tmp_fail(-ENOSPC, "the disk set aside for /tmp is promised already");
    int result = grow(volume, size_bytes);
    if (result == 0)
        committed += size_bytes - now;
    return result;
}

static int mount_device(struct tmp_volume *volume)
{
    char device[32];
    volume->device_fd = tmp_loop_device(volume->file_fd, device);
    if (volume->device_fd < 0)
        return volume->device_fd;
    volume->mount_fd =
        tmp_mount("ext4", device, OPTIONS, sizeof OPTIONS / sizeof *OPTIONS);
    if (volume->mount_fd < 0)
        return volume->mount_fd;
    volume->root_fd = openat(volume->mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (volume->root_fd < 0)
        return tmp_fail(-errno, "open an ext4");
    if (unlinkat(volume->root_fd, "lost+found", AT_REMOVEDIR) < 0)
        return tmp_fail(-errno, "empty an ext4");
    return 0;
}

static void undo(struct tmp_volume *volume)
{
    int fds[] = {volume->root_fd, volume->mount_fd, volume->device_fd, volume->file_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int make(struct tmp_volume *volume, uint64_t size_bytes)
{
    if (size_bytes > capacity - committed)
        return tmp_fail(-ENOSPC, "the disk set aside for /tmp is promised already");
    volume->id = ++serial;
    volume->file_fd = tmp_image(state, with_overhead(size_bytes));
    int result = volume->file_fd;
    if (result >= 0)
        result = size_bytes == TMP_SPARE_BYTES ? copy_blank(volume->file_fd)
                                               : format(volume->file_fd);
    if (result == 0)
        result = mount_device(volume);
    if (result < 0)
        undo(volume);
    else
        committed += size_bytes;
    return result;
}

static int discard(const struct tmp_volume *volume)
{
    committed -= volume->size_bytes; /* the file itself went with its last descriptor */
    return 0;
}

const struct tmp_kind tmp_kind_ext4 = {
    .spares = 4,
    .open = open_all,
    .make = make,
    .limit = limit,
    .discard = discard,
    .close = close_all,
};
