/* Small reads and writes of kernel files; see files.h. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int files_write(int folder, const char *path, const char *text)
{
    int fd = openat(folder, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, strlen(text));
    int error = written < 0 ? -errno : 0;
    close(fd);
    return error;
}

int files_write_number(int folder, const char *path, unsigned long long number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", number);
    return files_write(folder, path, text);
}

ssize_t files_read(int folder, const char *path, char *text, size_t room)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, text, room - 1);
    ssize_t result = got < 0 ? -errno : got;
    text[got < 0 ? 0 : got] = 0;
    close(fd);
    return result;
}
