/* Groups of sandboxes that share the CPU as one; see cgroup_share.h. */
#define _GNU_SOURCE
#include "cgroup_share.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int shares(const struct hierarchy *hierarchy)
{
    if (!(hierarchy->controllers & CONTROLLER_CPU))
        return 0;
    return hierarchy->v2 || !(hierarchy->controllers & CONTROLLER_MEMORY); /* v1 moves no memory along */
}

static const char *share_name(uint64_t cpu_group, char name[CGROUP_PATH_MAX])
{
    snprintf(name, CGROUP_PATH_MAX, "%c%016" PRIx64, CGROUP_SHARE_LETTER, cpu_group);
    return name;
}

const char *cgroup_share_path(const struct hierarchy *hierarchy, const struct cgroup *group, char path[CGROUP_PATH_MAX])
{
    char name[CGROUP_PATH_MAX];
    if (group->cpu_group && shares(hierarchy))
        snprintf(path, CGROUP_PATH_MAX, "%.17s/%s", share_name(group->cpu_group, name), group->name);
    else
        snprintf(path, CGROUP_PATH_MAX, "%s", group->name);
    return path;
}

static unsigned clamp(unsigned long long value, unsigned low, unsigned high)
{
    return value < low ? low : value > high ? high : (unsigned)value;
}

int cgroup_share_weigh(int group, int v2, const struct jail_limits *limits)
{
    unsigned long long quota = limits->cpu_quota_us;
    if (!limits->cpu_weight || !quota)
        return 0;
    if (v2)
        return files_write_number(group, "cpu.weight", clamp(quota * 100 / CGROUP_PERIOD_US, 1, 10000));
    return files_write_number(group, "cpu.shares", clamp(quota * 1024 / CGROUP_PERIOD_US, 2, 262144));
}

int cgroup_share_make(const struct hierarchy *hierarchy, uint64_t cpu_group, const struct jail_limits *limits)
{
    char name[CGROUP_PATH_MAX];
    if (!cpu_group || !shares(hierarchy))
        return 0;
    int made = mkdirat(hierarchy->base, share_name(cpu_group, name), 0755) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    int share = openat(hierarchy->base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (share < 0)
        return -errno;
    if (made && hierarchy->v2)
        cgroup_hand_down(share);
    int error = cgroup_share_weigh(share, hierarchy->v2, limits);
    close(share);
    return error;
}

void cgroup_share_leave(const struct hierarchy *hierarchy, uint64_t cpu_group)
{
    char name[CGROUP_PATH_MAX];
    if (cpu_group && shares(hierarchy))
        unlinkat(hierarchy->base, share_name(cpu_group, name), AT_REMOVEDIR); /* fails while others are in it */
}

/* v2 has one tree for all: what a function uses must be counted in its own group from its first byte on. On v1 only
 * the CPU is concerned, which Init has without a limit; so the move, which can take the kernel milliseconds, waits for
 * the limits that follow Init, for which nobody waits. */
static int is_time(const struct hierarchy *hierarchy, const struct jail_limits *limits)
{
    return hierarchy->v2 || limits->cpu_quota_us;
}

int cgroup_share_join(const struct hierarchy *hierarchy, struct cgroup *group, const struct jail_limits *limits)
{
    char path[CGROUP_PATH_MAX];
    if (group->cpu_group || !limits->cpu_group || !shares(hierarchy) || !is_time(hierarchy, limits))
        return 0;
    int error = cgroup_share_make(hierarchy, limits->cpu_group, limits);
    if (error)
        return error;
    group->cpu_group = limits->cpu_group;
    if (mkdirat(hierarchy->base, cgroup_share_path(hierarchy, group, path), 0755) < 0)
        return -errno;
    int from = openat(hierarchy->base, group->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int to = openat(hierarchy->base, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    error = from < 0 || to < 0 ? -errno : cgroup_move_all(from, to);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    if (!error && unlinkat(hierarchy->base, group->name, AT_REMOVEDIR) < 0 && errno != EBUSY)
        error = -errno;
    return error ? error : 1;
}
