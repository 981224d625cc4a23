/* Reads /proc/self/mountinfo and /proc/self/cgroup; changes nothing. */
#define _GNU_SOURCE
#include "cgroup_find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t bit;
} CONTROLLERS[] = {
    {"memory", CONTROLLER_MEMORY},
    {"cpu", CONTROLLER_CPU},
    {"pids", CONTROLLER_PIDS},
    {"freezer", CONTROLLER_FREEZER},
};

/* Those of ours in a comma-separated list. */
static uint32_t controllers_in(const char *list)
{
    uint32_t bits = 0;
    for (const char *at = list; *at;) {
        size_t length = strcspn(at, ",\n");
        for (size_t i = 0; i < sizeof CONTROLLERS / sizeof *CONTROLLERS; i++)
            if (length == strlen(CONTROLLERS[i].name) && !strncmp(at, CONTROLLERS[i].name, length))
                bits |= CONTROLLERS[i].bit;
        at += length;
        at += *at != 0;
    }
    return bits;
}

/* One line: "36 35 98:0 /root /mount/point options [tags] - type source super-options". */
static int parse_mount(char *line, struct cgroup_location *location, char root[PATH_MAX])
{
    char type[32], super[512], *tail = strstr(line, " - ");
    if (!tail || sscanf(line, "%*s %*s %*s %4095s %4095s", root, location->mount) != 2)
        return 0;
    if (sscanf(tail, " - %31s %*s %511s", type, super) != 2)
        return 0;
    location->v2 = !strcmp(type, "cgroup2");
    location->controllers = location->v2 ? 0 : controllers_in(super);
    return location->v2 || (!strcmp(type, "cgroup") && location->controllers);
}

/* The jail's group in that hierarchy, from a line "4:memory:/path" or "0::/path". */
static int own_path(const struct cgroup_location *location, char path[PATH_MAX])
{
    char *line = NULL;
    size_t room = 0;
    int found = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return 0;
    while (!found && getline(&line, &room, file) > 0) {
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at)
            continue;
        *at++ = 0;
        at[strcspn(at, "\n")] = 0;
        found = location->v2 ? list[1] == 0 : (controllers_in(list + 1) & location->controllers) != 0;
        if (found)
            found = snprintf(path, PATH_MAX, "%s", at) < PATH_MAX;
    }
    free(line);
    fclose(file);
    return found;
}

static int locate(struct cgroup_location *location, const char *root)
{
    char path[PATH_MAX];
    if (!own_path(location, path))
        return 0;
    const char *below = path;
    size_t length = strlen(root);
    if (length > 1 && !strncmp(path, root, length))
        below += length; /* the mount shows only this part of the hierarchy */
    if (!strcmp(below, "/"))
        below = "";
    return snprintf(location->own, PATH_MAX, "%s%s", location->mount, below) < PATH_MAX;
}

int cgroup_find(struct cgroup_location found[HIERARCHIES_MAX])
{
    static char root[PATH_MAX];
    char *line = NULL;
    size_t room = 0;
    int count = 0;
    uint32_t seen = 0;
    int seen_v2 = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    while (count < HIERARCHIES_MAX && getline(&line, &room, file) > 0) {
        struct cgroup_location *location = &found[count];
        if (!parse_mount(line, location, root) || !locate(location, root))
            continue;
        if (location->v2 ? seen_v2 : (seen & location->controllers) != 0)
            continue; /* mounted twice */
        seen |= location->controllers;
        seen_v2 |= location->v2;
        count++;
    }
    free(line);
    fclose(file);
    return count;
}
