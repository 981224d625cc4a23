/* What each kind of /tmp volume can do; tmp_volume.c drives one of them.
 * Inside the jail's tmp code only.
 */
#ifndef STOKER_TMP_KINDS_H
#define STOKER_TMP_KINDS_H

#include "tmp_volume.h"

/* Spares are made for this; no EphemeralStorage is smaller. */
#define TMP_SPARE_BYTES (512ULL << 20)

struct tmp_volume {
    uint64_t id;         /* btrfs: of the subvolume; else a serial number */
    uint64_t size_bytes; /* the limit in force */
    int root_fd;         /* its root folder, open while the volume lives */
    int mount_fd;        /* the detached mount, until it is taken */
    int device_fd;       /* ext4: the loop device, and its file; else -1 */
    int file_fd;
};

struct tmp_kind {
    uint32_t spares; /* how many to keep ready */
    /* state_fd is the state folder. */
    int (*open)(int state_fd, const char *state_dir, uint64_t capacity_bytes);
    /* Fills in a volume of size_bytes; on -errno nothing of it is left. */
    int (*make)(struct tmp_volume *volume, uint64_t size_bytes);
    int (*limit)(struct tmp_volume *volume, uint64_t size_bytes);
    /* Its descriptors are closed already. */
    int (*discard)(const struct tmp_volume *volume);
    /* -ENOSPC when a new sandbox could write next to nothing, whatever was promised; NULL: make() knows. */
    int (*room)(void);
    /* Called now and then: adapts to the host's disk. -EROFS when nothing can be written any more; may be NULL. */
    int (*watch)(void);
    void (*close)(void);
};

extern const struct tmp_kind tmp_kind_btrfs;
extern const struct tmp_kind tmp_kind_ext4;
extern const struct tmp_kind tmp_kind_tmpfs;

/* Keeps the words and the errno's text for tmp_volume_error(); returns error. */
__attribute__((format(printf, 2, 3))) int tmp_fail(int error, const char *format, ...);

/* --- for the kinds -------------------------------------------------------- */

struct tmp_option {
    const char *key;
    const char *value; /* NULL: a flag */
};

/* A detached mount (nosuid, nodev, noatime, close-on-exec) of a file system; -errno. */
int tmp_mount(const char *type, const char *source, const struct tmp_option *options,
              uint32_t count);

/* A new sparse file in the state folder, whose name is gone again: whatever
 * happens, its blocks return with its last user. An fd or -errno. */
int tmp_image(int state_fd, uint64_t size_bytes);

/* A loop device over it that clears itself when its last user is gone; path
 * gets /dev/loopN. An fd or -errno. */
int tmp_loop_device(int file, char path[32]);

/* Grows the file and the device. */
int tmp_loop_grow(int device, int file, uint64_t size_bytes);

#endif
