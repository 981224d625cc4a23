/* /tmp volumes as btrfs subvolumes with simple quotas in one loop-mounted pool.
 *
 * Simple quotas charge a subvolume for the extents and tree blocks it allocates, at
 * once and without scanning, so that the limit also ends a flood of empty files.
 * The pool is formatted anew at each start: /tmp outlives no sandbox.
 *
 * A btrfs that cannot write its metadata turns read-only for everybody. So all subvolumes are in one group whose
 * limit ends before the pool does, and before the host's disk does, which others fill as well.
 */
#define _GNU_SOURCE
#include "system_tool.h"
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define POOL "tmp-pool"
#define POOL_MIN_BYTES (256ULL << 20)
/* linux/btrfs.h of 6.7; older headers lack it. */
#define QUOTA_ENABLE_SIMPLE 4
#define GROUP (1ULL << 48) /* level 1, number 0 */
#define RESERVE_SHARE 16     /* of the pool, for its own metadata */
#define HOST_SHARE 20        /* of the pool's capacity, left free on the host's disk */
#define ROOM_BYTES (64ULL << 20) /* not all that was promised: space of deleted volumes returns later */
#define GROUP_STEP_BYTES (16ULL << 20)
#define ROOT_OBJECT 256 /* BTRFS_FIRST_FREE_OBJECTID: a subvolume's root folder */

static int state = -1;
static int pool = -1;
static uint64_t capacity;
static uint64_t group_limit; /* in force */
static uint64_t serial;

static const struct tmp_option OPTIONS[] = {
    {"nodatasum", NULL}, /* nobody asks an ephemeral file for its checksums */
    {"nobarrier", NULL}, /* nor must it survive a power cut: fsync is cheap */
    {"commit", "5"}, /* deleted volumes' space returns after two commits */
    {"discard", "async"}, /* deleted data leaves holes in the image */
};

static int format(const char *device)
{
    const char *const argv[] = {"mkfs.btrfs", "-q", "-f", "-K", "-m", "single",
                                "-d", "single", device, NULL};
    char said[256];
    int result = system_tool_run(argv, NULL, said, sizeof said);
    if (result == -ENOENT)
        return tmp_fail(result, "mkfs.btrfs is missing (package btrfs-progs)");
    if (result < 0)
        return tmp_fail(result, "mkfs.btrfs: %.*s", (int)strcspn(said, "\n"), said);
    return 0;
}

/* Subvolumes can only be cloned out of an attached mount: attach it, in the
 * jail's own mount namespace. */
static int attach(int mounted, const char *state_dir)
{
    if (mkdirat(state, POOL, 0700) < 0 && errno != EEXIST)
        return tmp_fail(-errno, "make %s/" POOL, state_dir);
    if (move_mount(mounted, "", state, POOL, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return tmp_fail(-errno, "attach the pool to %s/" POOL, state_dir);
    pool = openat(state, POOL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return pool < 0 ? tmp_fail(-errno, "open the pool") : 0;
}

static int enable_quotas(void)
{
    struct btrfs_ioctl_quota_ctl_args args = {.cmd = QUOTA_ENABLE_SIMPLE};
    struct btrfs_ioctl_qgroup_create_args group = {.create = 1, .qgroupid = GROUP};
    if (ioctl(pool, BTRFS_IOC_QUOTA_CTL, &args) < 0)
        return tmp_fail(-errno, "btrfs simple quotas (kernel 6.7 or newer)");
    if (ioctl(pool, BTRFS_IOC_QGROUP_CREATE, &group) < 0)
        return tmp_fail(-errno, "make the group of all subvolumes");
    return 0;
}

static int limit_group(uint64_t id, uint64_t size_bytes)
{
    struct btrfs_ioctl_qgroup_limit_args args = {
        .qgroupid = id,
        .lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_RFER, .max_rfer = size_bytes},
    };
    return ioctl(pool, BTRFS_IOC_QGROUP_LIMIT, &args) < 0 ? tmp_fail(-errno, "limit a subvolume") : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What all may use: the pool less its reserve, and no more than the host's disk can still take. */
static int watch(void)
{
    struct statvfs inside, host;
    if (fstatvfs(pool, &inside) < 0 || fstatvfs(state, &host) < 0)
        return tmp_fail(-errno, "ask for the free space");
    if (inside.f_flag & ST_RDONLY)
        return tmp_fail(-EROFS, "the pool");
    uint64_t used = (uint64_t)(inside.f_blocks - inside.f_bfree) * inside.f_frsize;
    uint64_t left = (uint64_t)host.f_bavail * host.f_frsize, kept = capacity / HOST_SHARE;
    uint64_t most = smaller(capacity - capacity / RESERVE_SHARE, used + (left > kept ? left - kept : 0));
    if (most / GROUP_STEP_BYTES == group_limit / GROUP_STEP_BYTES)
        return 0;
    group_limit = most;
    return limit_group(GROUP, most);
}

static int room(void)
{
    struct statvfs inside;
    if (fstatvfs(pool, &inside) < 0)
        return tmp_fail(-errno, "ask for the free space");
    uint64_t used = (uint64_t)(inside.f_blocks - inside.f_bfree) * inside.f_frsize;
    return used + ROOM_BYTES > group_limit ? tmp_fail(-ENOSPC, "the disk set aside for /tmp is full") : 0;
}

static void close_pool(void)
{
    if (pool >= 0)
        close(pool);
    if (state >= 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d/" POOL, state);
        umount2(path, MNT_DETACH);
        unlinkat(state, POOL, AT_REMOVEDIR);
        close(state);
    }
    pool = state = -1;
    group_limit = 0;
}

static int open_pool(int state_fd, const char *state_dir, uint64_t capacity_bytes)
{
    char device[32];
    if (capacity_bytes < POOL_MIN_BYTES)
        return tmp_fail(-ENOSPC, "a btrfs pool needs 256 MB in %s", state_dir);
    state = fcntl(state_fd, F_DUPFD_CLOEXEC, 3);
    if (state < 0)
        return tmp_fail(-errno, "keep the state folder");
    int file = tmp_image(state, capacity_bytes);
    int loop = file < 0 ? file : tmp_loop_device(file, device);
    int result = loop < 0 ? loop : format(device);
    int mounted = -1;
    if (result == 0)
        result = mounted = tmp_mount("btrfs", device, OPTIONS, sizeof OPTIONS / sizeof *OPTIONS);
    if (mounted >= 0)
        result = attach(mounted, state_dir);
    if (result == 0)
        result = enable_quotas();
    capacity = capacity_bytes;
    if (result == 0)
        result = watch();
    if (mounted >= 0)
        close(mounted);
    if (loop >= 0)
        close(loop);
    if (file >= 0)
        close(file);
    if (result < 0)
        close_pool();
    return result;
}

static int set_limit(struct tmp_volume *volume, uint64_t size_bytes)
{
    return limit_group(volume->id, size_bytes);
}

static int clone_mount(int root_fd)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    int fd = open_tree(root_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return tmp_fail(-errno, "clone a subvolume's mount");
    if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0)
        return fd;
    int error = errno;
    close(fd);
    return tmp_fail(-error, "restrict a subvolume's mount");
}

static int create(char name[32])
{
    struct {
        struct btrfs_qgroup_inherit inherit;
        uint64_t groups[1];
    } member = {.inherit.num_qgroups = 1, .groups = {GROUP}};
    struct btrfs_ioctl_vol_args_v2 args = {
        .flags = BTRFS_SUBVOL_QGROUP_INHERIT, .size = sizeof member, .qgroup_inherit = &member.inherit};
    snprintf(name, 32, "v%llu", (unsigned long long)++serial);
    strcpy(args.name, name);
    if (ioctl(pool, BTRFS_IOC_SUBVOL_CREATE_V2, &args) < 0)
        return tmp_fail(-errno, "make a subvolume");
    int fd = openat(pool, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? tmp_fail(-errno, "open a subvolume") : fd;
}

static int destroy(uint64_t id)
{
    struct btrfs_ioctl_vol_args_v2 args = {.flags = BTRFS_SUBVOL_SPEC_BY_ID, .subvolid = id};
    if (ioctl(pool, BTRFS_IOC_SNAP_DESTROY_V2, &args) < 0)
        return tmp_fail(-errno, "delete subvolume %llu", (unsigned long long)id);
    return 0;
}

static int make(struct tmp_volume *volume, uint64_t size_bytes)
{
    char name[32];
    struct btrfs_ioctl_ino_lookup_args lookup = {.objectid = ROOT_OBJECT};
    volume->root_fd = create(name);
    if (volume->root_fd < 0)
        return volume->root_fd;
    int result = 0;
    if (ioctl(volume->root_fd, BTRFS_IOC_INO_LOOKUP, &lookup) < 0)
        result = tmp_fail(-errno, "identify a subvolume");
    volume->id = lookup.treeid;
    if (result == 0)
        result = set_limit(volume, size_bytes);
    if (result == 0)
        result = volume->mount_fd = clone_mount(volume->root_fd);
    if (result >= 0)
        return 0;
    close(volume->root_fd);
    if (volume->id)
        destroy(volume->id);
    return result;
}

/* The space returns in the background, when the kernel's cleaner has seen a commit. Asking for one
 * (BTRFS_IOC_START_SYNC) can stall this thread for all of the commit interval: its wake-up gets lost
 * while the commit thread is about to sleep. */
static int discard(const struct tmp_volume *volume)
{
    return destroy(volume->id);
}

const struct tmp_kind tmp_kind_btrfs = {
    .spares = 8,
    .open = open_pool,
    .make = make,
    .limit = set_limit,
    .discard = discard,
    .room = room,
    .watch = watch,
    .close = close_pool,
};
