/* Mounts EROFS and FUSE through the new mount API; see image_child.h. */
#define _GNU_SOURCE
#include "image_child.h"

#include "passing.h"
#include "tmp_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ATTRIBUTES (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static int set(int context, const char *key, const char *value)
{
    enum fsconfig_command command = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
    return fsconfig(context, command, key, value, 0) < 0 ? -errno : 0;
}

static int finish(int context)
{
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int mount = fsmount(context, FSMOUNT_CLOEXEC, ATTRIBUTES);
    return mount < 0 ? -errno : mount;
}

static int mount_from(const char *source)
{
    int context = fsopen("erofs", FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    int result = set(context, "source", source);
    if (result == 0)
        result = set(context, "ro", NULL);
    if (result == 0)
        result = finish(context);
    close(context);
    return result;
}

/* The device ends with its last user, which is the mount. */
static int mount_by_loop(int source)
{
    char own[40], device[32];
    snprintf(own, sizeof own, "/proc/self/fd/%d", source);
    int file = open(own, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    int loop = tmp_loop_device(file, device);
    close(file);
    if (loop < 0)
        return loop;
    int mount = mount_from(device);
    close(loop);
    return mount;
}

static _Noreturn void mount_image(int source, int by_loop, int notes)
{
    struct passed_note note = {.step = "mounting the image"};
    char own[40];
    snprintf(own, sizeof own, "/proc/self/fd/%d", source);
    int mount = by_loop ? mount_by_loop(source) : mount_from(own);
    if (mount == -ENOTBLK) /* a kernel that mounts block devices only */
        mount = mount_by_loop(source);
    note.error = mount < 0 ? mount : 0;
    passing_send(notes, &note, &mount, mount < 0 ? 0 : 1);
    _exit(0);
}

static _Noreturn void unmount_image(int mounts, const char *image, const char *volume)
{
    if (fchdir(mounts) == 0) {
        umount2(image, MNT_DETACH | UMOUNT_NOFOLLOW);
        umount2(volume, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    _exit(0);
}

/* In the child: what the jail has open must not live as long as a child that hangs. */
static void keep_two(int one, int other)
{
    unsigned low = (unsigned)(one < other ? one : other), high = (unsigned)(one < other ? other : one);
    if (low > 3)
        close_range(3, low - 1, 0);
    if (high > low + 1)
        close_range(low + 1, high - 1, 0);
    close_range(high + 1, ~0U, 0);
}

/* 0 in the child, whose end of the notes replaces *notes. */
static pid_t start(int kept, int *notes)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t jail = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != jail)
            _exit(1);
        keep_two(kept, pair[1]);
        *notes = pair[1];
        return 0;
    }
    int error = -errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return error;
    }
    *notes = pair[0];
    return pid;
}

pid_t image_child_mount(int source, int by_loop, int *notes)
{
    pid_t pid = start(source, notes);
    if (pid == 0)
        mount_image(source, by_loop, *notes);
    return pid;
}

pid_t image_child_unmount(int mounts, const char *image, const char *volume, int *notes)
{
    pid_t pid = start(mounts, notes);
    if (pid == 0)
        unmount_image(mounts, image, volume);
    return pid;
}

static int configure_volume(int context, int device)
{
    char number[16];
    snprintf(number, sizeof number, "%d", device);
    const char *const options[][2] = {
        {"fd", number},
        {"rootmode", "100444"}, /* the root is the file */
        {"user_id", "0"},       /* nobody but the jail may even look at it */
        {"group_id", "0"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int error = set(context, options[i][0], options[i][1]);
        if (error)
            return error;
    }
    return finish(context);
}

int image_volume_mount(int *device)
{
    int context = fsopen("fuse", FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    *device = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int result = *device < 0 ? -errno : configure_volume(context, *device);
    close(context);
    if (result < 0 && *device >= 0) {
        close(*device);
        *device = -1;
    }
    return result;
}
