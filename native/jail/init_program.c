/* Copies the init into a sealed memory file; see init_program.h. */
#define _GNU_SOURCE
#include "init_program.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

static int copy(int from, int to, off_t size)
{
    while (size > 0) {
        ssize_t sent = sendfile(to, from, NULL, (size_t)size);
        if (sent <= 0)
            return sent < 0 ? -errno : -EIO;
        size -= sent;
    }
    if (fchmod(to, 0555) < 0 || fcntl(to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return -errno;
    return 0;
}

int init_program_load(const char *path)
{
    struct stat status;
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0 || fstat(from, &status) < 0)
        return -errno;
    int to = memfd_create("stoker-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (to < 0)
        to = memfd_create("stoker-init", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* before Linux 6.3 */
    if (to < 0)
        return -errno;
    int error = copy(from, to, status.st_size);
    close(from);
    if (error) {
        close(to);
        return error;
    }
    return to;
}
