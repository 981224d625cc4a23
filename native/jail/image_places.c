/* Places for mounts; see image_places.h. */
#define _GNU_SOURCE
#include "image_places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int image_has_file_system(const char *name)
{
    int context = fsopen(name, FSOPEN_CLOEXEC);
    if (context < 0)
        return 0;
    close(context);
    return 1;
}

/* Mount points on a file system of the jail's own: nothing of them stays on disk, and nobody else may pass. */
int image_places_open(const char *state)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/mounts", state);
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return -errno;
    if (mount("stoker-mounts", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=1m,nr_inodes=4096") < 0)
        return -errno;
    int places = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return places < 0 ? -errno : places;
}

static int make(int places, const char *name, int is_folder)
{
    if (is_folder)
        return mkdirat(places, name, 0700) < 0 ? -errno : 0;
    int file = openat(places, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (file < 0)
        return -errno;
    close(file);
    return 0;
}

int image_place_fill(int places, const char *name, int mount, int is_folder)
{
    int error = make(places, name, is_folder);
    if (error)
        return error;
    return move_mount(mount, "", places, name, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

void image_place_abort(int places, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", places, name);
    umount2(path, MNT_FORCE | UMOUNT_NOFOLLOW); /* that it is busy, and stays mounted, is no matter */
}

int image_place_remove(int places, const char *name, int is_folder)
{
    return unlinkat(places, name, is_folder ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT ? -errno : 0;
}
