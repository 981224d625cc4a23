/* Makes, limits, kills and removes the control group of one sandbox; see cgroup.h. */
#define _GNU_SOURCE
#include "cgroup.h"

#include "cgroup_share.h"
#include "cgroup_tree.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PERIOD_US CGROUP_PERIOD_US
#define SOCKETS_BYTES_MIN (16ull << 20)
#define SOCKETS_SHARE 4 /* of a sandbox's memory */

#define SOCKETS "memory.kmem.tcp.limit_in_bytes" /* of every kind, whatever its name says */

_Static_assert(CGROUP_JOINS_MAX == HIERARCHIES_MAX, "one way in for each hierarchy");

static int limit_memory(int group, int v2, unsigned long long bytes)
{
    if (v2) {
        files_write(group, "memory.swap.max", "0"); /* absent where swap is off */
        files_write(group, "memory.oom.group", "1"); /* any oom_kill ends the whole sandbox */
        return files_write_number(group, "memory.max", bytes);
    }
    files_write(group, "memory.memsw.limit_in_bytes", "-1"); /* it may never be below the other */
    int error = files_write_number(group, "memory.limit_in_bytes", bytes);
    if (error)
        return error;
    error = files_write_number(group, "memory.memsw.limit_in_bytes", bytes);
    if (error == -ENOENT || error == -EOPNOTSUPP)
        error = 0; /* no swap accounting, no swap to limit */
    if (error)
        return error;
    /* v1 counts socket buffers apart, and not at all until they have a limit. */
    unsigned long long sockets = bytes / SOCKETS_SHARE;
    error = files_write_number(group, SOCKETS, sockets < SOCKETS_BYTES_MIN ? SOCKETS_BYTES_MIN : sockets);
    return error == -ENOENT ? 0 : error;
}

static int limit_cpu(int group, int v2, const struct jail_limits *limits)
{
    char text[48];
    unsigned long long quota = limits->cpu_quota_us;
    int capped = quota && !limits->cpu_weight;
    snprintf(text, sizeof text, v2 ? "%llu %u" : "%llu", quota, PERIOD_US);
    int error = files_write(group, v2 ? "cpu.max" : "cpu.cfs_quota_us", capped ? text : v2 ? "max" : "-1");
    return error ? error : cgroup_share_weigh(group, v2, limits);
}

static int limit_group(int group, const struct hierarchy *hierarchy, const struct jail_limits *limits)
{
    int error = 0;
    if (hierarchy->controllers & CONTROLLER_MEMORY)
        error = limit_memory(group, hierarchy->v2, limits->memory_bytes);
    if (!error && hierarchy->controllers & CONTROLLER_CPU)
        error = limit_cpu(group, hierarchy->v2, limits);
    if (!error && hierarchy->controllers & CONTROLLER_PIDS)
        error = files_write_number(group, "pids.max", limits->pids_max + 1ull); /* PID 1 is ours */
    return error;
}

/* The number at `index` in a file of /proc/sys, or `otherwise`. */
static unsigned long long setting(const char *path, int index, unsigned long long otherwise)
{
    char text[96];
    unsigned long long numbers[3];
    if (files_read(AT_FDCWD, path, text, sizeof text) <= 0)
        return otherwise;
    int count = sscanf(text, "%llu %llu %llu", &numbers[0], &numbers[1], &numbers[2]);
    return index < count ? numbers[index] : otherwise;
}

static unsigned long long smaller(unsigned long long a, unsigned long long b)
{
    return a < b ? a : b;
}

/* On every CPU all sandboxes together weigh as much as one ordinary task beside them, the service nine times that.
 * Half of what the host has of the rest: a thousand sandboxes at their own limits would take all. */
void cgroup_limit_all(void)
{
    unsigned long long processes = smaller(setting("/proc/sys/kernel/pid_max", 0, 32768),
                                           setting("/proc/sys/kernel/threads-max", 0, 32768)) / 2;
    unsigned long long sockets = smaller(setting("/proc/sys/net/ipv4/tcp_mem", 1, 32768),
                                         setting("/proc/sys/net/ipv4/udp_mem", 1, 32768)) / 2; /* pages */
    for (int i = 0; i < hierarchy_count; i++) {
        const struct hierarchy *h = &hierarchies[i];
        if (h->controllers & CONTROLLER_CPU && !h->v2) /* v1 splits a group's weight between the CPUs it uses */
            files_write_number(h->base, "cpu.shares", 1024ull * (unsigned long long)sysconf(_SC_NPROCESSORS_ONLN));
        if (h->controllers & CONTROLLER_PIDS && files_write_number(h->base, "pids.max", processes))
            fprintf(stderr, "stoker-jail: cannot limit the processes of all sandboxes together\n");
        if (h->controllers & CONTROLLER_MEMORY && !h->v2) /* v2 counts them as memory; before 4.5 there was none */
            files_write_number(h->base, SOCKETS, sockets * (unsigned long long)sysconf(_SC_PAGESIZE));
    }
}

static int open_group(const struct hierarchy *hierarchy, const struct cgroup *which)
{
    char path[CGROUP_PATH_MAX];
    int group = openat(hierarchy->base, cgroup_share_path(hierarchy, which, path),
                       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return group < 0 ? -errno : group;
}

static int make_in(const struct hierarchy *hierarchy, const struct cgroup *which, const struct jail_limits *limits,
                   struct cgroup_entry *entry, int index)
{
    char path[CGROUP_PATH_MAX];
    int error = cgroup_share_make(hierarchy, which->cpu_group, limits);
    if (error)
        return error;
    if (mkdirat(hierarchy->base, cgroup_share_path(hierarchy, which, path), 0755) < 0)
        return -errno;
    int group = open_group(hierarchy, which);
    if (group < 0)
        return group;
    error = limit_group(group, hierarchy, limits);
    if (hierarchy->v2) {
        entry->into = group;
        return error;
    }
    entry->joins[index] = openat(group, "tasks", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (entry->joins[index] < 0 && !error)
        error = -errno;
    close(group);
    return error;
}

int cgroup_make(struct cgroup *group, const struct jail_limits *limits, struct cgroup_entry *entry)
{
    int error = 0;
    group->cpu_group = limits->cpu_group;
    for (int i = 0; i < hierarchy_count && !error; i++)
        error = make_in(&hierarchies[i], group, limits, entry, i);
    return error;
}

static int admit(int group, gid_t users)
{
    return fchownat(group, "cgroup.procs", (uid_t)-1, users, 0) < 0 || fchmodat(group, "cgroup.procs", 0664, 0) < 0
               ? -errno
               : 0;
}

int cgroup_admit_all(gid_t users)
{
    int error = 0;
    for (int i = 0; i < hierarchy_count && !error; i++)
        error = hierarchies[i].v2 ? admit(hierarchies[i].base, users) : 0;
    return error;
}

int cgroup_admit(const struct cgroup_entry *entry, gid_t users)
{
    return entry->into < 0 ? 0 : admit(entry->into, users);
}

int cgroup_limit(struct cgroup *group, const struct jail_limits *limits)
{
    int moved = 0;
    for (int i = 0; i < hierarchy_count; i++) {
        int error = cgroup_share_join(&hierarchies[i], group, limits);
        if (error < 0)
            return error;
        moved |= error && hierarchies[i].v2; /* what the service holds is of v2, or of v1 hierarchies without a CPU */
        int opened = open_group(&hierarchies[i], group);
        if (opened < 0)
            return opened;
        error = limit_group(opened, &hierarchies[i], limits);
        close(opened);
        if (error)
            return error;
    }
    return moved;
}

static uint32_t handle(int group, const char *file, int flags, enum jail_answer_fd which, int *fds)
{
    fds[which] = openat(group, file, flags | O_CLOEXEC | O_NOFOLLOW);
    return fds[which] < 0 ? 0 : 1u << which;
}

/* v1 tells of memory running out through an eventfd; v2 kills the group by itself (memory.oom.group). */
static uint32_t oom_event(int group, int oom_control, int *fds)
{
    char text[32];
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0)
        return 0;
    snprintf(text, sizeof text, "%d %d", event, oom_control);
    if (files_write(group, "cgroup.event_control", text)) {
        close(event);
        return 0;
    }
    fds[JAIL_FD_OOM_EVENT] = event;
    return 1u << JAIL_FD_OOM_EVENT;
}

static uint32_t memory_handles(int group, int v2, int *fds)
{
    const char *peak = v2 ? "memory.peak" : "memory.max_usage_in_bytes";
    const char *current = v2 ? "memory.current" : "memory.usage_in_bytes";
    uint32_t mask = handle(group, peak, O_RDONLY, JAIL_FD_MEMORY_PEAK, fds) |
                    handle(group, current, O_RDONLY, JAIL_FD_MEMORY_CURRENT, fds) |
                    handle(group, v2 ? "memory.events" : "memory.oom_control", O_RDONLY, JAIL_FD_OOM, fds);
    if (!v2 && mask & 1u << JAIL_FD_OOM)
        mask |= oom_event(group, fds[JAIL_FD_OOM], fds);
    return mask;
}

uint32_t cgroup_handles(const struct cgroup *which, int fds[JAIL_ANSWER_FDS_MAX])
{
    uint32_t mask = 0;
    for (int i = 0; i < hierarchy_count; i++) {
        int group = open_group(&hierarchies[i], which);
        if (group < 0)
            continue;
        if (hierarchies[i].controllers & CONTROLLER_MEMORY)
            mask |= memory_handles(group, hierarchies[i].v2, fds);
        if (hierarchies[i].v2)
            mask |= handle(group, "cgroup.freeze", O_WRONLY, JAIL_FD_FREEZE, fds) |
                    handle(group, "cgroup.kill", O_WRONLY, JAIL_FD_KILL, fds) |
                    handle(group, "cgroup.events", O_RDONLY, JAIL_FD_EVENTS, fds);
        if (hierarchies[i].controllers & CONTROLLER_FREEZER && !(mask & 1u << JAIL_FD_FREEZE))
            mask |= handle(group, "freezer.state", O_RDWR, JAIL_FD_FREEZE, fds);
        close(group);
    }
    return mask;
}

void cgroup_kill(const struct cgroup *group)
{
    char path[CGROUP_PATH_MAX];
    for (int i = hierarchy_count - 1; i >= 0; i--) {
        if (!hierarchies[i].v2 && !(hierarchies[i].controllers & CONTROLLER_FREEZER))
            continue;
        cgroup_kill_in(&hierarchies[i], cgroup_share_path(&hierarchies[i], group, path));
        cgroup_kill_in(&hierarchies[i], group->name); /* where a move that failed left it */
    }
}

static int remove_in(const struct hierarchy *hierarchy, const char *path)
{
    return unlinkat(hierarchy->base, path, AT_REMOVEDIR) && errno != ENOENT ? -errno : 0;
}

int cgroup_remove(const struct cgroup *group)
{
    char path[CGROUP_PATH_MAX];
    int error = 0;
    for (int i = 0; i < hierarchy_count; i++) {
        int failed = remove_in(&hierarchies[i], cgroup_share_path(&hierarchies[i], group, path));
        if (!failed)
            failed = remove_in(&hierarchies[i], group->name);
        if (!failed)
            cgroup_share_leave(&hierarchies[i], group->cpu_group);
        error = failed ? failed : error;
    }
    return error;
}
