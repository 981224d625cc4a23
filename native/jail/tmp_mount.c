/* Detached mounts and loop devices for /tmp volumes; see tmp_kinds.h. */
#define _GNU_SOURCE
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define IMAGE "tmp.img"
#define LOOP_ATTEMPTS 32 /* another process may be quicker to a free device */

static int configure(int context, const char *type, const char *source,
                     const struct tmp_option *options, uint32_t count)
{
    if (source && fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0)
        return tmp_fail(-errno, "%s on %s", type, source);
    for (uint32_t i = 0; i < count; i++) {
        const struct tmp_option *o = &options[i];
        enum fsconfig_command command = o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        if (fsconfig(context, command, o->key, o->value, 0) < 0)
            return tmp_fail(-errno, "%s option %s", type, o->key);
    }
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return tmp_fail(-errno, "mount %s", type);
    return 0;
}

int tmp_mount(const char *type, const char *source, const struct tmp_option *options,
              uint32_t count)
{
    int context = fsopen(type, FSOPEN_CLOEXEC);
    if (context < 0)
        return tmp_fail(-errno, "the kernel's %s", type);
    int result = configure(context, type, source, options, count);
    if (result == 0) {
        result = fsmount(context, FSMOUNT_CLOEXEC,
                         MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
        if (result < 0)
            result = tmp_fail(-errno, "mount %s", type);
    }
    close(context);
    return result;
}

static int image(int state_fd, uint64_t size_bytes)
{
    if (unlinkat(state_fd, IMAGE, 0) < 0 && errno != ENOENT)
        return tmp_fail(-errno, "remove an old " IMAGE);
    int fd = openat(state_fd, IMAGE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return tmp_fail(-errno, "make " IMAGE);
    if (ftruncate(fd, (off_t)size_bytes) == 0)
        return fd;
    int error = errno;
    close(fd);
    return tmp_fail(-error, "size " IMAGE);
}

static int attach(int control, int file, char path[32])
{
    struct loop_config config = {
        .fd = (uint32_t)file, .block_size = 4096, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
    for (int attempt = 0; attempt < LOOP_ATTEMPTS; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return tmp_fail(-errno, "find a free loop device");
        snprintf(path, 32, "/dev/loop%d", number);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return tmp_fail(-errno, "open %s", path);
        if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
            return fd;
        int error = errno;
        close(fd);
        if (error != EBUSY)
            return tmp_fail(-error, "configure %s", path);
    }
    return tmp_fail(-EBUSY, "every free loop device was taken by others");
}

int tmp_image(int state_fd, uint64_t size_bytes)
{
    int file = image(state_fd, size_bytes);
    if (file >= 0 && unlinkat(state_fd, IMAGE, 0) < 0) {
        int error = errno;
        close(file);
        return tmp_fail(-error, "take the name from " IMAGE);
    }
    return file;
}

int tmp_loop_device(int file, char path[32])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return tmp_fail(-errno, "open /dev/loop-control");
    int device = attach(control, file, path);
    close(control);
    return device;
}

int tmp_loop_grow(int device, int file, uint64_t size_bytes)
{
    if (ftruncate(file, (off_t)size_bytes) < 0 || ioctl(device, LOOP_SET_CAPACITY) < 0)
        return tmp_fail(-errno, "grow a loop device");
    return 0;
}
