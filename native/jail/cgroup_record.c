/* One path a line in STATE/cgroups, written before anything is made there; see cgroup_record.h. */
#define _GNU_SOURCE
#include "cgroup_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void name_record(const char *state, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/cgroups", state);
}

void cgroup_record_read(const char *state, void (*each)(const char *path))
{
    char record[PATH_MAX], *line = NULL;
    size_t room = 0;
    name_record(state, record);
    FILE *file = fopen(record, "re");
    while (file && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '/')
            each(line);
    }
    free(line);
    if (file)
        fclose(file);
}

int cgroup_record_clear(const char *state)
{
    char record[PATH_MAX];
    name_record(state, record);
    return unlink(record) < 0 && errno != ENOENT ? -errno : 0;
}

int cgroup_record_add(const char *state, const char *path)
{
    char record[PATH_MAX];
    name_record(state, record);
    int fd = open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int error = dprintf(fd, "%s\n", path) < 0 ? -errno : 0;
    close(fd);
    return error;
}
