/* Finds and opens the hierarchies, hands v2 controllers down, and removes what an earlier life left; see cgroup.h. */
#define _GNU_SOURCE
#include "cgroup_tree.h"

#include "cgroup.h"
#include "cgroup_dead.h"
#include "cgroup_record.h"
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define LEFTOVER_WAIT_MS 10000
#define MOVES_MAX 200
#define MOVES_AT_ONCE 20
#define LEAF "service"
#define LEAF_WEIGHT 1000 /* ten times that of all sandboxes together */
#define CLAIMS 10 /* tries: another jail may take our new folder for a dead one's */

struct hierarchy hierarchies[HIERARCHIES_MAX];
int hierarchy_count;
#define EARLIER_MAX 32
static struct hierarchy earlier[EARLIER_MAX]; /* folders of a jail that ran elsewhere */
static int earlier_count;
static char folder[80];

static const struct {
    const char *name;
    uint32_t bit;
} V2_CONTROLLERS[] = {{"memory", CONTROLLER_MEMORY}, {"cpu", CONTROLLER_CPU}, {"pids", CONTROLLER_PIDS}};

/* --- v2: controllers must be handed down to our folder, which a group with processes in it may not do --------- */

int cgroup_move_all(int from, int to)
{
    char text[4096];
    for (int round = 0; round < MOVES_MAX; round++) {
        if (round >= MOVES_AT_ONCE) /* an exiting process is listed, cannot be moved and is gone soon */
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
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

uint32_t cgroup_hand_down(int group)
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
    uint32_t bits = cgroup_hand_down(group);
    if (bits || !is_delegated(group))
        return bits;
    if (mkdirat(group, LEAF, 0755) < 0 && errno != EEXIST)
        return 0;
    int leaf = openat(group, LEAF, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (leaf < 0)
        return 0;
    int error = cgroup_move_all(group, leaf);
    if (!error)
        bits = cgroup_hand_down(group);
    if (bits & CONTROLLER_CPU)
        files_write_number(leaf, "cpu.weight", LEAF_WEIGHT);
    close(leaf);
    return bits;
}

/* --- finding and opening --------------------------------------------------------------------------------------- */

static int open_base(struct hierarchy *hierarchy)
{
    if (mkdirat(hierarchy->parent, folder, 0755) < 0 && errno != EEXIST)
        return -errno;
    hierarchy->base = openat(hierarchy->parent, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (hierarchy->base < 0)
        return errno == ENOENT ? -ESTALE : -errno;
    int error = cgroup_claim(hierarchy->parent, hierarchy->base, folder);
    if (error)
        close(hierarchy->base);
    return error;
}

static int make_base(struct hierarchy *hierarchy, const char *group)
{
    hierarchy->parent = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (hierarchy->parent < 0)
        return -errno;
    snprintf(hierarchy->path, sizeof hierarchy->path, "%s/%s", group, folder);
    int error = -ESTALE;
    for (int i = 0; i < CLAIMS && error == -ESTALE; i++)
        error = open_base(hierarchy);
    if (error)
        close(hierarchy->parent);
    return error;
}

static void drop_base(struct hierarchy *hierarchy)
{
    unlinkat(hierarchy->parent, folder, AT_REMOVEDIR);
    close(hierarchy->base);
    close(hierarchy->parent);
}

/* A jail that is started again finds itself in the leaf that its predecessor moved everyone to. */
static void leave_leaf(char *own)
{
    char *last = strrchr(own, '/');
    if (!last || strcmp(last, "/" LEAF) != 0)
        return;
    *last = 0;
    int above = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (above < 0 || !is_delegated(above))
        *last = '/';
    if (above >= 0)
        close(above);
}

/* On v2 first under our own group, then, as root outside any delegation, under the hierarchy's root. */
static int open_v2(struct hierarchy *hierarchy, const struct cgroup_location *location, uint32_t missing)
{
    static char own[PATH_MAX];
    const char *places[] = {own, location->mount};
    snprintf(own, sizeof own, "%s", location->own);
    leave_leaf(own);
    for (int i = 0; i < 2; i++) {
        if (make_base(hierarchy, places[i]))
            continue;
        if (!missing)
            return 0;
        uint32_t bits = hand_down_delegated(hierarchy->parent);
        if (bits) {
            hierarchy->controllers = cgroup_hand_down(hierarchy->base) & missing;
            return 0;
        }
        if (i == 0 && strcmp(own, location->mount) != 0) {
            drop_base(hierarchy);
            continue;
        }
        return 0; /* no controllers, as on a hybrid host: still good for freezing and killing */
    }
    return make_base(hierarchy, own);
}

static void open_all(const struct cgroup_location *found, int count, int only_v1)
{
    uint32_t missing = CONTROLLERS_LIMITING;
    for (int pass = 0; pass < (only_v1 ? 1 : 2); pass++) { /* v1 first: what it has, v2 cannot have */
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

void cgroup_kill_in(const struct hierarchy *hierarchy, const char *name)
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

static int sweep_below(const struct hierarchy *hierarchy, const char *above, int remove)
{
    char path[80];
    int left = 0, folder_fd = openat(hierarchy->base, *above ? above : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = folder_fd < 0 ? NULL : fdopendir(folder_fd);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%.32s%s%.32s", above, *above ? "/" : "", entry->d_name);
        if (!*above && entry->d_name[0] == CGROUP_SHARE_LETTER)
            left += sweep_below(hierarchy, path, remove);
        if (!remove || unlinkat(hierarchy->base, path, AT_REMOVEDIR)) {
            cgroup_kill_in(hierarchy, path);
            left++;
        }
    }
    if (listing)
        closedir(listing);
    return left;
}

static int sweep(const struct hierarchy *hierarchy, int remove)
{
    return sweep_below(hierarchy, "", remove);
}

static int each_leftover(int remove)
{
    int left = 0;
    for (int i = hierarchy_count - 1; i >= 0; i--) /* v2 first: it kills frozen tasks at once */
        left += sweep(&hierarchies[i], remove);
    for (int i = 0; i < earlier_count; i++)
        left += sweep(&earlier[i], remove);
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

/* A folder of an earlier jail that is none of ours now. Whatever its hierarchy is: each way of killing that it
 * does not know fails harmlessly. */
static void open_earlier(const char *path)
{
    struct hierarchy *hierarchy = &earlier[earlier_count];
    for (int i = 0; i < hierarchy_count; i++)
        if (!strcmp(path, hierarchies[i].path))
            return;
    if (earlier_count == EARLIER_MAX || strlen(path) >= sizeof hierarchy->path)
        return;
    hierarchy->base = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (hierarchy->base < 0)
        return;
    hierarchy->controllers = CONTROLLER_FREEZER;
    hierarchy->v2 = 1;
    strcpy(hierarchy->path, path);
    earlier_count++;
}

static void drop_earlier(void)
{
    while (earlier_count > 0) {
        close(earlier[--earlier_count].base);
        rmdir(earlier[earlier_count].path);
    }
}

static int record(const char *state)
{
    int error = 0;
    for (int i = 0; i < hierarchy_count && !error; i++)
        error = cgroup_record_add(state, hierarchies[i].path);
    return error;
}

/* Ours is recorded before anything is made in it, and the record shortened only once the rest is gone. */
static int remove_earlier(const char *state)
{
    cgroup_record_read(state, open_earlier);
    int error = record(state);
    if (!error)
        error = remove_leftovers();
    drop_earlier();
    if (!error)
        error = cgroup_record_clear(state);
    return error ? error : record(state);
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

int cgroup_open(const char *state, const char *instance, int only_v1, uint32_t *features, uint32_t *degraded)
{
    static struct cgroup_location found[HIERARCHIES_MAX];
    snprintf(folder, sizeof folder, CGROUP_FOLDER_PREFIX "%s", instance);
    int count = cgroup_find(found);
    open_all(found, count < 0 ? 0 : count, only_v1);
    int error = remove_earlier(state);
    if (error)
        return error;
    for (int i = 0; i < hierarchy_count; i++)
        cgroup_remove_dead(hierarchies[i].parent);
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
