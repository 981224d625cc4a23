/* Ids for the jail of an ordinary user: newuidmap and newgidmap, else one id; see supervisor.h. */
#define _GNU_SOURCE
#include "supervisor.h"
#include "system_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_file(pid_t pid, const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t done = write(fd, text, strlen(text));
    int error = done < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* The first range of ours in /etc/subuid or /etc/subgid: "name-or-uid:first:count". */
static int subordinate(const char *path, unsigned long *first, unsigned long *count)
{
    char line[256], name[128], number[16];
    struct passwd *account = getpwuid(getuid());
    snprintf(number, sizeof number, "%u", getuid());
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int found = 0;
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "%127[^:]:%lu:%lu", name, first, count) == 3 &&
                (strcmp(name, number) == 0 || (account && strcmp(name, account->pw_name) == 0));
    fclose(file);
    return found;
}

static int map_range(const char *tool, const char *ranges, pid_t pid, unsigned outside)
{
    char process[16], own[16], start[24], size[24], said[256];
    unsigned long first, count;
    if (!subordinate(ranges, &first, &count))
        return -ENOENT;
    snprintf(process, sizeof process, "%d", pid);
    snprintf(own, sizeof own, "%u", outside);
    snprintf(start, sizeof start, "%lu", first);
    snprintf(size, sizeof size, "%lu", count);
    const char *const argv[] = {tool, process, "0", own, "1", "1", start, size, NULL};
    int result = system_tool_run(argv, NULL, said, sizeof said);
    if (result < 0 && result != -ENOENT)
        supervisor_say("%s: %.*s", tool, (int)strcspn(said, "\n"), said);
    return result;
}

static int map_one(const char *name, pid_t pid, unsigned outside)
{
    char text[64];
    snprintf(text, sizeof text, "0 %u 1\n", outside);
    return write_file(pid, name, text);
}

int supervisor_map_ids(pid_t pid)
{
    if (map_range("newuidmap", "/etc/subuid", pid, getuid()) == 0) {
        /* Both or neither: with uids only, setgroups would have to go. */
        int result = map_range("newgidmap", "/etc/subgid", pid, getgid());
        if (result < 0)
            supervisor_say("no group range in /etc/subgid beside the one in /etc/subuid");
        return result;
    }
    supervisor_say("no id range through newuidmap and /etc/subuid: all sandboxes share one uid");
    int result = map_one("uid_map", pid, getuid());
    if (result == 0)
        result = write_file(pid, "setgroups", "deny");
    return result == 0 ? map_one("gid_map", pid, getgid()) : result;
}
