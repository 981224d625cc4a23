/* A size-limited, disk-backed /tmp for each sandbox.
 *
 * What the jail calls, and when:
 *   1. after it has unshared its mount namespace and made `/` MS_REC|MS_PRIVATE:
 *      tmp_volume_open(). The pool is mounted there only, never shows on the
 *      host, and goes when the jail (and the last sandbox) has gone.
 *   2. per sandbox: tmp_volume_take() gives a detached mount; move_mount(2) it
 *      onto the sandbox's /tmp (MOVE_MOUNT_F_EMPTY_PATH), then close the fd.
 *   3. once the sandbox's last process is gone: tmp_volume_give().
 *   4. whenever its poll loop is idle: tmp_volume_tick(). Each call does one
 *      bounded piece of work; tmp_volume_pending() says whether more is left.
 *   5. at the end: tmp_volume_close().
 *
 * All functions belong to one thread. Errors are negative errno numbers, and
 * tmp_volume_error() has the words. Knows nothing of sandboxes but a slot number.
 */
#ifndef STOKER_TMP_VOLUME_H
#define STOKER_TMP_VOLUME_H

#include <stdint.h>
#include <sys/types.h>

/* Slots are numbered 0 .. TMP_VOLUME_SLOTS - 1. */
#define TMP_VOLUME_SLOTS 4096

/* Lambda's ephemeral storage ends at 10,240 MB; nothing larger is handed out. */
#define TMP_VOLUME_MAX_BYTES (10240ULL << 20)

enum tmp_volume_kind {
    TMP_VOLUME_BTRFS = 1, /* one pool, a subvolume with a simple quota each */
    TMP_VOLUME_EXT4 = 2,  /* one loop-mounted ext4 file each, prepared ahead */
    TMP_VOLUME_TMPFS = 3, /* rootless: memory, limited by size= */
};

/* Makes the pool under state_dir (made 0700 if missing) and cleans what an
 * earlier life left there. Image files lose their name as soon as a loop device
 * holds them, and those clear themselves: a killed jail leaves nothing but at
 * most one file. capacity_bytes bounds the disk all sandboxes together may use
 * (and so does nine tenths of what is free). btrfs promises more than that, because few functions use their /tmp:
 * when it is really full, writers get EDQUOT or ENOSPC and take() -ENOSPC, but nobody can make the pool fail. Returns an enum tmp_volume_kind,
 * the best the host can do, or -errno; when that is not btrfs, tmp_volume_error()
 * says why. rootless: 1 goes straight to tmpfs. */
int tmp_volume_open(const char *state_dir, uint64_t capacity_bytes, int rootless);

/* Same, restricted to one kind (tests, and hosts where one misbehaves). */
int tmp_volume_open_kind(const char *state_dir, uint64_t capacity_bytes,
                         enum tmp_volume_kind kind);

/* A detached-mount fd (close-on-exec, nosuid, nodev) whose root folder is
 * 0700, owned by uid:gid and limited to size_bytes. -EBUSY: the slot was not given
 * back. -ENOSPC: the pool is full. Beyond the limit a writer gets EDQUOT (btrfs)
 * or ENOSPC; files count with their metadata, so a flood of empty ones ends too. */
int tmp_volume_take(uint32_t slot, uid_t uid, gid_t gid, uint64_t size_bytes);

/* Sets the limit of a taken slot: at assignment of a pooled sandbox. Never
 * deletes: with less than what is used, further writes fail (btrfs) or it is
 * refused (-EINVAL tmpfs; -EOPNOTSUPP ext4, which only grows). */
int tmp_volume_resize(uint32_t slot, uint64_t size_bytes);

/* The sandbox is gone: its contents are to be deleted. Deferred to tick. */
void tmp_volume_give(uint32_t slot);

/* Deletes one given volume or prepares one spare. Milliseconds, no more. */
void tmp_volume_tick(void);

/* 1 when tick has work to do, else 0: the jail's poll time-out depends on it. */
int tmp_volume_pending(void);

/* Looks after the pool, twice a second at most: call it whenever there is time. 1 when it has failed for good. */
int tmp_volume_broken(void);

void tmp_volume_close(void);

/* Words for the last error, with the step that failed; never NULL. */
const char *tmp_volume_error(void);

#endif
