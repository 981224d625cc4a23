/* Puts the function's root together and enters it: the image below, a small memory file system above for what
 * every root must have, read-only as a whole; then the places, each from its block device. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define READ_ONLY (MS_RDONLY | MS_NOSUID | MS_NODEV)
#define HOST_NAME "169-254-100-6" /* as in native/jail/identity.h */

static const char *const PLACES[GUEST_PLACES] = {"/",       "/tmp",         "/var/task",     "/opt",
                                                 "/var/runtime", "/var/lang", "/var/codecache"};
static int devices = -1; /* the folder of the kernel's device nodes, which the function does not see */
static uint32_t mounted;

int places_open(void)
{
    devices = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return devices < 0 ? -errno : 0;
}

bool places_ready(void)
{
    return mounted & 1u << GUEST_ROOT;
}

/* The name of a place's device, below `devices`, which becomes the current folder. What the kernel read of a file
 * that was there before (for partitions) is dropped. -ENODATA: nothing is on it. */
static int device(enum guest_place place, char name[4], bool *ext4)
{
    unsigned char head[4096] = {0};
    snprintf(name, 4, "vd%c", 'a' + place);
    if (fchdir(devices) < 0)
        return -errno;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENXIO || errno == ENOENT ? -ENODATA : -errno;
    ioctl(fd, BLKFLSBUF, 0);
    ssize_t got = pread(fd, head, sizeof head, 0);
    close(fd);
    *ext4 = got == (ssize_t)sizeof head && head[1080] == 0x53 && head[1081] == 0xEF;
    bool erofs = got == (ssize_t)sizeof head && memcmp(head + 1024, "\xe2\xe1\xf5\xe0", 4) == 0;
    return *ext4 || erofs ? 0 : -ENODATA;
}

static int mount_erofs(enum guest_place place, const char *target)
{
    char name[4];
    bool ext4;
    int error = device(place, name, &ext4);
    if (error || ext4)
        return error ? error : -ENODATA;
    return mount(name, target, "erofs", READ_ONLY, NULL) < 0 ? -errno : 0;
}

static int mount_scratch(const char *target)
{
    char name[4];
    bool ext4 = false;
    int error = device(GUEST_SCRATCH, name, &ext4);
    if (error && error != -ENODATA)
        return error;
    if (!ext4)
        error = mount("tmp", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    else
        error = mount(name, target, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, "nobarrier");
    if (error < 0)
        return -errno;
    return chmod(target, 01777) < 0 ? -errno : 0;
}

struct entry {
    const char *path;
    const char *text; /* NULL: a folder; -> TEXT: a link */
    mode_t mode;
};

/* As native/jail/template.c has it for containers. An image's own files win, but for those that name host and
 * resolver. */
static const struct entry ENTRIES[] = {
    {"etc", NULL, 0755},
    {"etc/hosts", "127.0.0.1 localhost localhost.localdomain " HOST_NAME "\n", 0644},
    {"etc/hostname", HOST_NAME "\n", 0644},
    {"proc", NULL, 0555},
    {"sys", NULL, 0755},
    {"dev", NULL, 0755},
    {"tmp", NULL, 01777},
    {"var", NULL, 0755},
    {"var/task", NULL, 0755},
    {"var/runtime", NULL, 0755},
    {"var/lang", NULL, 0755},
    {"var/codecache", NULL, 0755},
    {"opt", NULL, 0755},
};

static int write_text(const char *path, const char *text)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    ssize_t wrote = write(fd, text, strlen(text));
    close(fd);
    return wrote == (ssize_t)strlen(text) ? 0 : -EIO;
}

/* In the new root, which is the current folder. A link of an image where a folder is needed is replaced: it must
 * lead nowhere while the root is put together. */
static int make(const struct entry *entry)
{
    struct stat status;
    if (entry->text)
        return write_text(entry->path, entry->text);
    if (lstat(entry->path, &status) == 0) {
        if (S_ISDIR(status.st_mode))
            return 0;
        if (unlink(entry->path) < 0)
            return -errno;
    }
    return mkdir(entry->path, entry->mode) < 0 || chmod(entry->path, entry->mode) < 0 ? -errno : 0;
}

static int make_devices(void)
{
    static const struct {
        const char *name;
        unsigned major, minor;
    } nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                           {"/proc/self/fd/0", "stdin"},
                                           {"/proc/self/fd/1", "stdout"},
                                           {"/proc/self/fd/2", "stderr"}};
    if (mount("dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0 || chdir("dev") < 0)
        return -errno;
    for (size_t i = 0; i < COUNT(nodes); i++)
        if (mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0 ||
            chmod(nodes[i].name, 0666) < 0)
            return -errno;
    for (size_t i = 0; i < COUNT(links); i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            return -errno;
    if (chdir("..") < 0)
        return -errno;
    return mount(NULL, "dev", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0 ? -errno : 0;
}

static int furnish(const char **step)
{
    int error = 0;
    for (size_t i = 0; i < COUNT(ENTRIES) && !error; i++) {
        *step = ENTRIES[i].path;
        error = make(&ENTRIES[i]);
    }
    *step = "/etc/resolv.conf";
    if (!error)
        error = write_text("etc/resolv.conf", machine_resolv_conf());
    *step = "/dev";
    return error ? error : make_devices();
}

static int enter_root(const char **step)
{
    *step = "mounting the root";
    mkdir("/lower", 0755);
    mkdir("/upper", 0755);
    mkdir("/root", 0755);
    int error = mount_erofs(GUEST_ROOT, "/lower");
    if (error)
        return error;
    *step = "layering the root";
    if (mount("upper", "/upper", "tmpfs", 0, "mode=0755,size=1m") < 0 || mkdir("/upper/d", 0755) < 0 ||
        mkdir("/upper/w", 0755) < 0 ||
        mount("root", "/root", "overlay", MS_NOSUID | MS_NODEV, "lowerdir=/lower,upperdir=/upper/d,workdir=/upper/w") < 0 ||
        chdir("/root") < 0)
        return -errno;
    if ((error = furnish(step)) != 0)
        return error;
    *step = "making the root read-only";
    if (mount(NULL, "/root", NULL, MS_REMOUNT | READ_ONLY, NULL) < 0)
        return -errno;
    *step = "mounting /tmp";
    if ((error = mount_scratch("/root/tmp")) != 0)
        return error;
    *step = "entering the root";
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return -errno;
    /* What is mounted later is to reach the function's own mount namespace. */
    return mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0 ? -errno : 0;
}

int places_mount(uint32_t bits, uid_t uid, gid_t gid, const char **step)
{
    (void)uid, (void)gid;
    int error = 0;
    *step = "places";
    if (bits >> GUEST_PLACES || bits & mounted || !((bits | mounted) & 1u << GUEST_ROOT))
        return -EINVAL;
    if (!places_ready() && (error = enter_root(step)) != 0)
        return error;
    mounted |= 1u << GUEST_ROOT | 1u << GUEST_SCRATCH;
    for (enum guest_place place = GUEST_TASK; place < GUEST_PLACES && !error; place++)
        if (bits & 1u << place) {
            *step = PLACES[place];
            error = mount_erofs(place, PLACES[place]);
            mounted |= 1u << place;
        }
    return error;
}
