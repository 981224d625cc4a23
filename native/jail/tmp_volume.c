/* Hands out /tmp volumes of one kind, keeps spares, deletes later; see
 * tmp_volume.h. Knows no file system: those are tmp_btrfs.c, tmp_ext4.c, tmp_tmpfs.c. */
#define _GNU_SOURCE
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define SPARES_MAX 8
#define GIVEN_MAX TMP_VOLUME_SLOTS
#define WATCH_INTERVAL_MS 500

static const struct tmp_kind *const KINDS[] = {
    [TMP_VOLUME_BTRFS] = &tmp_kind_btrfs,
    [TMP_VOLUME_EXT4] = &tmp_kind_ext4,
    [TMP_VOLUME_TMPFS] = &tmp_kind_tmpfs,
};

static const struct tmp_kind *kind; /* NULL: closed */
static struct tmp_volume slots[TMP_VOLUME_SLOTS];
static unsigned char taken[TMP_VOLUME_SLOTS];
static struct tmp_volume spares[SPARES_MAX];
static uint32_t spare_count;
static int spares_fail; /* making one failed: no further try until something is given back */
static struct tmp_volume given[GIVEN_MAX]; /* a ring, oldest at given_first */
static uint32_t given_first, given_count;

static char words[512] = "no error";

const char *tmp_volume_error(void)
{
    return words;
}

int tmp_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof words)
        snprintf(words + used, sizeof words - (size_t)used, ": %s", strerror(-error));
    return error;
}

/* --- opening ----------------------------------------------------------------- */

static int open_state(const char *state_dir)
{
    struct stat found;
    if (mkdir(state_dir, 0700) < 0 && errno != EEXIST)
        return tmp_fail(-errno, "make %s", state_dir);
    int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return tmp_fail(-errno, "open %s", state_dir);
    int result = 0;
    if (fstat(fd, &found) < 0)
        result = tmp_fail(-errno, "look at %s", state_dir);
    else if (found.st_uid != geteuid())
        result = tmp_fail(-EPERM, "%s belongs to uid %u", state_dir, found.st_uid);
    else if (fchmod(fd, 0700) < 0)
        result = tmp_fail(-errno, "close %s to others", state_dir);
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

/* A sparse file larger than the disk would fail writers with EIO, and btrfs
 * would turn read-only for everybody. */
static int affordable(int state_fd, uint64_t *capacity_bytes)
{
    struct statvfs disk;
    if (fstatvfs(state_fd, &disk) < 0)
        return tmp_fail(-errno, "ask for the free disk space");
    uint64_t most = (uint64_t)disk.f_bavail * disk.f_frsize / 10 * 9;
    if (*capacity_bytes > most)
        *capacity_bytes = most;
    *capacity_bytes &= ~(uint64_t)0xfffff;
    return 0;
}

int tmp_volume_open_kind(const char *state_dir, uint64_t capacity_bytes,
                         enum tmp_volume_kind wanted)
{
    if (kind)
        return tmp_fail(-EALREADY, "the /tmp pool is open");
    int state = open_state(state_dir);
    if (state < 0)
        return state;
    int result = wanted == TMP_VOLUME_TMPFS ? 0 : affordable(state, &capacity_bytes);
    if (result == 0)
        result = KINDS[wanted]->open(state, state_dir, capacity_bytes);
    close(state);
    if (result < 0)
        return result;
    kind = KINDS[wanted];
    spares_fail = 0;
    return wanted;
}

int tmp_volume_open(const char *state_dir, uint64_t capacity_bytes, int rootless)
{
    if (rootless)
        return tmp_volume_open_kind(state_dir, capacity_bytes, TMP_VOLUME_TMPFS);
    char why_not[sizeof words];
    int result = tmp_volume_open_kind(state_dir, capacity_bytes, TMP_VOLUME_BTRFS);
    if (result != -EALREADY && result < 0) {
        memcpy(why_not, words, sizeof words);
        result = tmp_volume_open_kind(state_dir, capacity_bytes, TMP_VOLUME_EXT4);
        if (result < 0)
            result = tmp_volume_open_kind(state_dir, capacity_bytes, TMP_VOLUME_TMPFS);
        if (result > 0)
            memcpy(words, why_not, sizeof words);
    }
    return result;
}

/* --- volumes ----------------------------------------------------------------- */

static int make(struct tmp_volume *volume, uint64_t size_bytes)
{
    *volume = (struct tmp_volume){
        .size_bytes = size_bytes, .root_fd = -1, .mount_fd = -1, .device_fd = -1, .file_fd = -1};
    return kind->make(volume, size_bytes);
}

static void let_go(struct tmp_volume *volume)
{
    int *fds[] = {&volume->root_fd, &volume->mount_fd, &volume->device_fd, &volume->file_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

static int set_limit(struct tmp_volume *volume, uint64_t size_bytes)
{
    if (volume->size_bytes == size_bytes)
        return 0;
    int result = kind->limit(volume, size_bytes);
    if (result == 0)
        volume->size_bytes = size_bytes;
    return result;
}

static int hand_over(const struct tmp_volume *volume, uid_t uid, gid_t gid)
{
    if (fchown(volume->root_fd, uid, gid) < 0 || fchmod(volume->root_fd, 0700) < 0)
        return tmp_fail(-errno, "give a volume to uid %u", uid);
    return 0;
}

static int check(uint32_t slot, uint64_t size_bytes)
{
    if (!kind)
        return tmp_fail(-ENXIO, "the /tmp pool is closed");
    if (slot >= TMP_VOLUME_SLOTS)
        return tmp_fail(-EINVAL, "slot %u", slot);
    if (size_bytes == 0 || size_bytes > TMP_VOLUME_MAX_BYTES)
        return tmp_fail(-EINVAL, "a /tmp of %llu bytes", (unsigned long long)size_bytes);
    return 0;
}

static void discard_oldest(void)
{
    /* Nobody waits for this answer, so the log gets it. The next start makes the
     * pool anew. */
    let_go(&given[given_first]); /* closing may unmount: 15 ms for an ext4 */
    if (kind->discard(&given[given_first]) < 0)
        fprintf(stderr, "stoker-jail: /tmp: %s\n", words);
    given_first = (given_first + 1) % GIVEN_MAX;
    given_count--;
}

static void discard_later(struct tmp_volume *volume)
{
    if (given_count == GIVEN_MAX)
        discard_oldest();
    given[(given_first + given_count++) % GIVEN_MAX] = *volume;
    spares_fail = 0;
}

/* What was given back but not deleted yet may be what is missing. */
static int make_sure(struct tmp_volume *volume, uint64_t size_bytes)
{
    int result = make(volume, size_bytes);
    while (result == -ENOSPC && given_count > 0) {
        discard_oldest();
        result = make(volume, size_bytes);
    }
    return result;
}

int tmp_volume_broken(void)
{
    static int64_t watched_ms;
    static int broken;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (!kind || !kind->watch || (watched_ms && now_ms - watched_ms < WATCH_INTERVAL_MS))
        return kind && broken;
    watched_ms = now_ms;
    broken = kind->watch() == -EROFS;
    return broken;
}

/* A spare where it can have that limit, else a new one. */
static int obtain(struct tmp_volume *volume, uint64_t size_bytes)
{
    tmp_volume_broken(); /* a busy jail has no idle time to look in */
    int result = kind->room ? kind->room() : 0;
    if (result == -ENOSPC && kind->watch() == 0) /* or the host's disk has room again */
        result = kind->room();
    if (result < 0)
        return result;
    if (spare_count > 0) {
        *volume = spares[--spare_count];
        if (set_limit(volume, size_bytes) == 0)
            return 0;
        discard_later(volume);
    }
    return make_sure(volume, size_bytes);
}

int tmp_volume_take(uint32_t slot, uid_t uid, gid_t gid, uint64_t size_bytes)
{
    int result = check(slot, size_bytes);
    if (result < 0)
        return result;
    if (taken[slot])
        return tmp_fail(-EBUSY, "slot %u was not given back", slot);
    struct tmp_volume *volume = &slots[slot];
    result = obtain(volume, size_bytes);
    if (result < 0)
        return result;
    result = hand_over(volume, uid, gid);
    if (result < 0) {
        discard_later(volume);
        return result;
    }
    taken[slot] = 1;
    int mount_fd = volume->mount_fd;
    volume->mount_fd = -1;
    return mount_fd;
}

int tmp_volume_resize(uint32_t slot, uint64_t size_bytes)
{
    int result = check(slot, size_bytes);
    if (result == 0 && !taken[slot])
        result = tmp_fail(-EINVAL, "slot %u was not taken", slot);
    return result < 0 ? result : set_limit(&slots[slot], size_bytes);
}

void tmp_volume_give(uint32_t slot)
{
    if (!kind || slot >= TMP_VOLUME_SLOTS || !taken[slot])
        return;
    taken[slot] = 0;
    discard_later(&slots[slot]);
}

/* --- idle work --------------------------------------------------------------- */

int tmp_volume_pending(void)
{
    return kind && (given_count > 0 || (spare_count < kind->spares && !spares_fail));
}

void tmp_volume_tick(void)
{
    if (!tmp_volume_pending())
        return;
    if (given_count > 0)
        discard_oldest();
    else if (make(&spares[spare_count], TMP_SPARE_BYTES) == 0)
        spare_count++;
    else
        spares_fail = 1; /* take() will say why, if it still fails then */
}

void tmp_volume_close(void)
{
    if (!kind)
        return;
    while (spare_count > 0)
        discard_later(&spares[--spare_count]);
    for (uint32_t slot = 0; slot < TMP_VOLUME_SLOTS; slot++)
        tmp_volume_give(slot);
    while (given_count > 0)
        discard_oldest();
    kind->close();
    kind = NULL;
}
