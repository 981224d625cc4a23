/* Makes, limits, kills and removes the control groups of sandboxes; see cgroup.h. */
#define _GNU_SOURCE
#include "cgroup.h"

#include "cgroup_find.h"
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define LEFTOVER_WAIT_MS 10000
#define PERIOD_US 100000u

struct hierarchy {
    int parent; /* the group that holds our folder */
    int base;   /* our folder, stoker.<instance> */
    uint32_t controllers;
    int v2;
};

static struct hierarchy hierarchies[HIERARCHIES_MAX];
static int hierarchy_count;
static char folder[80];

static const struct {
    const char *name;
    uint32_t bit;
} V2_CONTROLLERS[] = {{"memory", CONTROLLER_MEMORY}, {"cpu", CONTROLLER_CPU}, {"pids", CONTROLLER_PIDS}};

/* --- v2: controllers must be handed down to our folder, which a group with processes in it may not do --------- */

static int move_all(int from, int to)
{
    char text[4096];
    for (int round = 0; round < 100; round++) {
        if (files_read(from, "cgroup.procs", text, sizeof text) <= 0)
            return 0;
        text[strcspn(text, "\n")] = 0;
        int error = files_write(to, "cgroup.procs", text);
        if (error && error != -ESRCH)
            return error;
    }
    return -EAGAIN;
}

static int is_delegated(int group)
{
    char value[4];
    return fgetxattr(group, "trusted.delegate", value, sizeof value) > 0 ||
           fgetxattr(group, "user.delegate", value, sizeof value) > 0;
}

static uint32_t hand_down(int group)
{
    char text[256], enable[32];
    uint32_t bits = 0;
    if (files_read(group, "cgroup.controllers", text, sizeof text) < 0)
        return 0;
    for (size_t i = 0; i < sizeof V2_CONTROLLERS / sizeof *V2_CONTROLLERS; i++) {
        if (!strstr(text, V2_CONTROLLERS[i].name))
            continue;
        snprintf(enable, sizeof enable, "+%s", V2_CONTROLLERS[i].name);
        if (files_write(group, "cgroup.subtree_control", enable) == 0)
            bits |= V2_CONTROLLERS[i].bit;
    }
    return bits;
}

/* A delegated group is ours alone: its processes move to a leaf and the controllers go down. */
static uint32_t hand_down_delegated(int group)
{
    uint32_t bits = hand_down(group);
    if (bits || !is_delegated(group))
        return bits;
    if (mkdirat(group, "service", 0755) < 0 && errno != EEXIST)
        return 0;
    int leaf = openat(group, "service", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (leaf < 0)
        return 0;
    int error = move_all(group, leaf);
    close(leaf);
    return error ? 0 : hand_down(group);
}

/* --- finding and opening --------------------------------------------------------------------------------------- */

static int make_base(struct hierarchy *hierarchy, const char *group)
{
    hierarchy->parent = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (hierarchy->parent < 0)
        return -errno;
    if (mkdirat(hierarchy->parent, folder, 0755) == 0 || errno == EEXIST) {
        hierarchy->base = openat(hierarchy->parent, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (hierarchy->base >= 0)
            return 0;
    }
    int error = -errno;
    close(hierarchy->parent);
    return error;
}

static void drop_base(struct hierarchy *hierarchy)
{
    unlinkat(hierarchy->parent, folder, AT_REMOVEDIR);
    close(hierarchy->base);
    close(hierarchy->parent);
}

/* On v2 first under our own group, then, as root outside any delegation, under the hierarchy's root. */
static int open_v2(struct hierarchy *hierarchy, const struct cgroup_location *location, uint32_t missing)
{
    const char *places[] = {location->own, location->mount};
    for (int i = 0; i < 2; i++) {
        if (make_base(hierarchy, places[i]))
            continue;
        if (!missing)
            return 0;
        uint32_t bits = hand_down_delegated(hierarchy->parent);
        if (bits) {
            hierarchy->controllers = hand_down(hierarchy->base) & missing;
            return 0;
        }
        if (i == 0 && strcmp(places[0], places[1]) != 0) {
            drop_base(hierarchy);
            continue;
        }
        return 0; /* no controllers, as on a hybrid host: still good for freezing and killing */
    }
    return make_base(hierarchy, location->own);
}

static void open_all(const struct cgroup_location *found, int count)
{
    uint32_t missing = CONTROLLERS_LIMITING;
    for (int pass = 0; pass < 2; pass++) { /* v1 first: what it has, v2 cannot have */
        for (int i = 0; i < count; i++) {
            struct hierarchy *hierarchy = &hierarchies[hierarchy_count];
            if (found[i].v2 != pass)
                continue;
            *hierarchy = (struct hierarchy){.controllers = found[i].controllers, .v2 = found[i].v2};
            int error = pass ? open_v2(hierarchy, &found[i], missing) : make_base(hierarchy, found[i].own);
            if (error)
                continue;
            missing &= ~hierarchy->controllers;
            hierarchy_count++;
        }
    }
}

static void kill_listed(int group)
{
    char text[65536];
    if (files_read(group, "cgroup.procs", text, sizeof text) <= 0)
        return;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        long pid = strtol(line, NULL, 10);
        if (pid > 1 && pid != getpid())
            kill((pid_t)pid, SIGKILL);
    }
}

static void kill_in(const struct hierarchy *hierarchy, const char *name)
{
    int group = openat(hierarchy->base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (group < 0)
        return;
    if (hierarchy->controllers & CONTROLLER_FREEZER)
        files_write(group, "freezer.state", "THAWED");
    if (!hierarchy->v2 || files_write(group, "cgroup.kill", "1"))
        kill_listed(group);
    close(group);
}

static int each_leftover(int remove)
{
    int left = 0;
    for (int i = hierarchy_count - 1; i >= 0; i--) { /* v2 first: it kills frozen tasks at once */
        DIR *listing = fdopendir(openat(hierarchies[i].base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        for (struct dirent *entry; listing && (entry = readdir(listing));) {
            if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                continue;
            if (!remove || unlinkat(hierarchies[i].base, entry->d_name, AT_REMOVEDIR)) {
                kill_in(&hierarchies[i], entry->d_name);
                left++;
            }
        }
        if (listing)
            closedir(listing);
    }
    return left;
}

static int remove_leftovers(void)
{
    each_leftover(0);
    for (int waited_ms = 0; each_leftover(1); waited_ms += 5) {
        if (waited_ms >= LEFTOVER_WAIT_MS)
            return -EBUSY;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return 0;
}

static int has_file(int base, const char *probe, const char *file)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", probe, file);
    return fstatat(base, path, &status, 0) == 0;
}

/* A group is made and removed again: some files exist only in groups other than the root. */
static void describe(uint32_t *features, uint32_t *degraded)
{
    uint32_t limited = 0;
    int peak = 0;
    for (int i = 0; i < hierarchy_count; i++) {
        const struct hierarchy *h = &hierarchies[i];
        if (mkdirat(h->base, "probe", 0755) < 0)
            continue;
        limited |= h->controllers;
        if (h->controllers & CONTROLLERS_LIMITING)
            *features |= h->v2 ? JAIL_LIMITS_V2 : JAIL_LIMITS_V1;
        if (h->v2 && has_file(h->base, "probe", "cgroup.freeze") && has_file(h->base, "probe", "cgroup.kill"))
            *features |= JAIL_FREEZE_V2;
        if (h->controllers & CONTROLLER_FREEZER)
            *features |= JAIL_FREEZE_V1;
        if (h->controllers & CONTROLLER_MEMORY)
            peak = has_file(h->base, "probe", h->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
        unlinkat(h->base, "probe", AT_REMOVEDIR);
    }
    if (*features & JAIL_FREEZE_V2)
        *features &= ~JAIL_FREEZE_V1;
    *degraded |= (limited & CONTROLLER_MEMORY ? 0 : JAIL_NO_MEMORY_LIMIT) |
                 (limited & CONTROLLER_CPU ? 0 : JAIL_NO_CPU_LIMIT) |
                 (limited & CONTROLLER_PIDS ? 0 : JAIL_NO_PIDS_LIMIT) | (peak ? 0 : JAIL_NO_MEMORY_PEAK) |
                 (*features & (JAIL_FREEZE_V1 | JAIL_FREEZE_V2) ? 0 : JAIL_NO_FREEZE);
}

/* The v1 freezer is used only where v2 cannot freeze. */
static void drop_unneeded(uint32_t features)
{
    for (int i = 0; i < hierarchy_count; i++) {
        if (!(features & JAIL_FREEZE_V2) || hierarchies[i].v2 || hierarchies[i].controllers & CONTROLLERS_LIMITING)
            continue;
        drop_base(&hierarchies[i]);
        hierarchies[i] = hierarchies[--hierarchy_count];
        i--;
    }
}

int cgroup_open(const char *instance, uint32_t *features, uint32_t *degraded)
{
    static struct cgroup_location found[HIERARCHIES_MAX];
    snprintf(folder, sizeof folder, "stoker.%s", instance);
    int count = cgroup_find(found);
    open_all(found, count < 0 ? 0 : count);
    int error = remove_leftovers();
    if (error)
        return error;
    describe(features, degraded);
    drop_unneeded(*features);
    return 0;
}

void cgroup_close(void)
{
    remove_leftovers();
    for (int i = 0; i < hierarchy_count; i++)
        drop_base(&hierarchies[i]);
    hierarchy_count = 0;
}

/* --- one sandbox ----------------------------------------------------------------------------------------------- */

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
    return error == -ENOENT || error == -EOPNOTSUPP ? 0 : error; /* no swap accounting, no swap to limit */
}

static unsigned clamp(unsigned long long value, unsigned low, unsigned high)
{
    return value < low ? low : value > high ? high : (unsigned)value;
}

static int limit_cpu(int group, int v2, const struct jail_limits *limits)
{
    char text[48];
    unsigned long long quota = limits->cpu_quota_us;
    int capped = quota && !limits->cpu_weight;
    if (v2) {
        snprintf(text, sizeof text, "%llu %u", quota, PERIOD_US);
        int error = files_write(group, "cpu.max", capped ? text : "max");
        if (error || !limits->cpu_weight || !quota)
            return error;
        return files_write_number(group, "cpu.weight", clamp(quota * 100 / PERIOD_US, 1, 10000));
    }
    snprintf(text, sizeof text, "%llu", quota);
    int error = files_write(group, "cpu.cfs_quota_us", capped ? text : "-1");
    if (error || !limits->cpu_weight || !quota)
        return error;
    return files_write_number(group, "cpu.shares", clamp(quota * 1024 / PERIOD_US, 2, 262144));
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

static int open_group(const struct hierarchy *hierarchy, const char *name)
{
    int group = openat(hierarchy->base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return group < 0 ? -errno : group;
}

int cgroup_make(const char *name, const struct jail_limits *limits, int *into)
{
    *into = -1;
    for (int i = 0; i < hierarchy_count; i++) {
        if (mkdirat(hierarchies[i].base, name, 0755) < 0)
            return -errno;
        int group = open_group(&hierarchies[i], name);
        if (group < 0)
            return group;
        int error = limit_group(group, &hierarchies[i], limits);
        if (hierarchies[i].v2 && !error)
            *into = group;
        else
            close(group);
        if (error)
            return error;
    }
    return 0;
}

int cgroup_join(const char *name, pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "%s/cgroup.procs", name);
    for (int i = 0; i < hierarchy_count; i++) {
        int error = hierarchies[i].v2 ? 0 : files_write_number(hierarchies[i].base, path, (unsigned)pid);
        if (error)
            return error;
    }
    return 0;
}

int cgroup_limit(const char *name, const struct jail_limits *limits)
{
    for (int i = 0; i < hierarchy_count; i++) {
        int group = open_group(&hierarchies[i], name);
        if (group < 0)
            return group;
        int error = limit_group(group, &hierarchies[i], limits);
        close(group);
        if (error)
            return error;
    }
    return 0;
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

uint32_t cgroup_handles(const char *name, int fds[JAIL_ANSWER_FDS_MAX])
{
    uint32_t mask = 0;
    for (int i = 0; i < hierarchy_count; i++) {
        int group = open_group(&hierarchies[i], name);
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

void cgroup_kill(const char *name)
{
    for (int i = hierarchy_count - 1; i >= 0; i--)
        if (hierarchies[i].v2 || hierarchies[i].controllers & CONTROLLER_FREEZER)
            kill_in(&hierarchies[i], name);
}

int cgroup_remove(const char *name)
{
    int error = 0;
    for (int i = 0; i < hierarchy_count; i++)
        if (unlinkat(hierarchies[i].base, name, AT_REMOVEDIR) && errno != ENOENT)
            error = -errno;
    return error;
}
