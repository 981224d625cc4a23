/* A lock and a mark on the folder in each hierarchy; see cgroup_dead.h. */
#define _GNU_SOURCE
#include "cgroup_dead.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MARK "trusted.stoker.locked" /* made by a jail that locks it: no lock then means no jail */

int cgroup_claim(int parent, int base, const char *name)
{
    struct stat held, named;
    if (fsetxattr(base, MARK, "1", 1, 0) < 0)
        return 0;
    if (fchmod(base, 0700) < 0) /* whoever may open it may lock it */
        return -errno;
    if (flock(base, LOCK_EX | LOCK_NB) < 0) {
        usleep(1000); /* another jail that looks whether we are dead has it for an instant */
        return -ESTALE;
    }
    if (fstat(base, &held) < 0 || fstatat(parent, name, &named, AT_SYMLINK_NOFOLLOW) < 0 || held.st_ino != named.st_ino)
        return -ESTALE;
    return 0;
}

/* rmdir fails for a group with a process or another group in it, and that is all the care it takes. Those of a
 * sandbox may be one level down. */
static void remove_groups(int base, const char *name, int levels)
{
    int again = openat(base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *listing = again < 0 ? NULL : fdopendir(again);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        if (levels > 1)
            remove_groups(dirfd(listing), entry->d_name, levels - 1);
        unlinkat(dirfd(listing), entry->d_name, AT_REMOVEDIR);
    }
    if (listing)
        closedir(listing);
}

static void remove_if_dead(int parent, const char *name)
{
    char value[4];
    int base = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (base < 0)
        return;
    if (fgetxattr(base, MARK, value, sizeof value) > 0 && flock(base, LOCK_EX | LOCK_NB) == 0) {
        remove_groups(base, ".", 2);
        unlinkat(parent, name, AT_REMOVEDIR);
    }
    close(base);
}

void cgroup_remove_dead(int parent)
{
    int again = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = again < 0 ? NULL : fdopendir(again);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        if (entry->d_type == DT_DIR && !strncmp(entry->d_name, CGROUP_FOLDER_PREFIX, strlen(CGROUP_FOLDER_PREFIX)))
            remove_if_dead(parent, entry->d_name);
    if (listing)
        closedir(listing);
}
