/* Composes a sandbox from ids, /tmp, control group, namespaces and network, and takes it apart; see sandbox.h. */
#define _GNU_SOURCE
#include "sandbox.h"

#include "cgroup.h"
#include "child.h"
#include "egress.h"
#include "files.h"
#include "identity.h"
#include "mounts.h"
#include "namespaces.h"
#include "passing.h"
#include "tmp_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SET_UP_WAIT_S 5 /* one sandbox that hangs must not stop the others for longer */
#define OOM_SCORE "500" /* the host's own out-of-memory killer takes sandboxes first */

enum state { FREE, LIVE, DYING };

struct sandbox {
    enum state state;
    uint64_t handle;
    uint64_t destroy_id; /* request to answer when it is gone; 0: nobody asked */
    pid_t pid;           /* of the init, until reaped; then 0 */
    int pidfd;
    int has_tmp, has_link, has_cgroup;
    uint32_t mounted; /* bits of mount points in use */
    struct egress_link link;
};

static struct sandbox sandboxes[SANDBOXES_MAX];
static struct sandbox_host host;
static uint32_t last_slot = SANDBOXES_MAX - 1, living, dying;
static uint64_t generation;
static sandbox_done on_done;
static sandbox_watch on_watch;
static sandbox_unwatch on_unwatch;

static const char *cgroup_name(uint32_t slot)
{
    static char name[16];
    snprintf(name, sizeof name, "s%u", slot);
    return name;
}

static uint32_t slot_of(const struct sandbox *sandbox)
{
    return (uint32_t)(sandbox - sandboxes);
}

static struct sandbox *find(uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    struct sandbox *sandbox = slot < SANDBOXES_MAX ? &sandboxes[slot] : NULL;
    return sandbox && sandbox->state != FREE && sandbox->handle == handle ? sandbox : NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void sandbox_open(const struct sandbox_host *wanted)
{
    struct timespec now;
    host = *wanted;
    clock_gettime(CLOCK_REALTIME, &now);
    generation = (uint64_t)now.tv_sec; /* an earlier jail's handles name nothing here */
}

void sandbox_on_done(sandbox_done done)
{
    on_done = done;
}

void sandbox_on_watch(sandbox_watch watch, sandbox_unwatch unwatch)
{
    on_watch = watch;
    on_unwatch = unwatch;
}

uint32_t sandbox_count(void)
{
    return living;
}

/* --- making: an ordered checklist -------------------------------------------------------------------------------- */

struct making {
    const struct jail_message *message;
    struct sandbox *sandbox;
    struct child_plan plan;
    int notes;  /* the jail's end */
    int *fds;   /* for the answer */
    uint32_t mask;
    struct passed_note note;
};

static int take_slot(struct making *making)
{
    for (uint32_t i = 0; i < SANDBOXES_MAX; i++) {
        last_slot = (last_slot + 1) % SANDBOXES_MAX; /* longest free first */
        struct sandbox *sandbox = &sandboxes[last_slot];
        if (sandbox->state != FREE)
            continue;
        *sandbox = (struct sandbox){.state = LIVE, .pidfd = -1, .handle = ++generation << 32 | last_slot};
        sandbox->mounted = making->message->request.mounts;
        making->sandbox = sandbox;
        making->plan.identity = identity_of(last_slot);
        making->plan.init = host.init;
        making->plan.leave_session = host.terminal;
        making->plan.open_files_max = making->message->request.limits.open_files_max;
        living++;
        return 0;
    }
    return -EMFILE;
}

/* `ours` goes to the service in the answer, non-blocking; the other end into the sandbox. */
static int give_end(struct making *making, enum jail_answer_fd which, int ours)
{
    making->fds[which] = ours;
    making->mask |= 1u << which;
    return fcntl(ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_pipe(struct making *making, enum jail_answer_fd which, int *inside)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0)
        return -errno;
    *inside = pair[1];
    return give_end(making, which, pair[0]);
}

static int open_channels(struct making *making)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    making->notes = making->plan.jail_notes = pair[0];
    making->plan.notes = pair[1];
    struct timeval patience = {.tv_sec = SET_UP_WAIT_S};
    if (setsockopt(making->notes, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    making->plan.control = pair[1];
    int error = give_end(making, JAIL_FD_CONTROL, pair[0]);
    if (!error)
        error = open_pipe(making, JAIL_FD_OUTPUT, &making->plan.output);
    return error ? error : open_pipe(making, JAIL_FD_TELEMETRY, &making->plan.telemetry);
}

static int clone_folders(struct making *making)
{
    unsigned next = 0;
    for (int i = 0; i < JAIL_MOUNT_POINTS; i++) {
        if (!(making->message->request.mounts & 1u << i))
            continue;
        int mount = namespaces_clone_folder(making->message->fds[next++]);
        if (mount < 0)
            return mount;
        making->plan.folders[i] = mount;
    }
    return 0;
}

static int take_tmp(struct making *making)
{
    const struct identity *identity = &making->plan.identity;
    int mount = tmp_volume_take(slot_of(making->sandbox), identity_uid(identity), identity_gid(identity),
                                making->message->request.limits.tmp_bytes);
    if (mount < 0)
        return mount;
    making->sandbox->has_tmp = 1;
    making->plan.tmp = mount;
    return 0;
}

static int make_cgroup(struct making *making)
{
    making->sandbox->has_cgroup = 1; /* also when only some hierarchies got theirs */
    return cgroup_make(cgroup_name(slot_of(making->sandbox)), &making->message->request.limits, &making->plan.entry);
}

static int spawn(struct making *making)
{
    pid_t pid = namespaces_spawn(host.template, making->plan.entry.into, &making->sandbox->pidfd);
    if (pid == 0)
        child_run(&making->plan);
    if (pid < 0)
        return pid;
    making->sandbox->pid = pid;
    on_watch(making->sandbox->pidfd, slot_of(making->sandbox));
    close_fd(&making->plan.notes); /* so that its end shows as end of file */
    return 0;
}

static int map_ids(struct making *making)
{
    return identity_map(&making->plan.identity, making->sandbox->pid);
}

static int prefer_for_oom(struct making *making)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", making->sandbox->pid);
    return files_write(AT_FDCWD, path, OOM_SCORE);
}

static int open_handles(struct making *making)
{
    making->mask |= cgroup_handles(cgroup_name(slot_of(making->sandbox)), making->fds);
    int pidfd = fcntl(making->sandbox->pidfd, F_DUPFD_CLOEXEC, 3);
    if (pidfd < 0)
        return -errno;
    making->fds[JAIL_FD_PIDFD] = pidfd;
    making->mask |= 1u << JAIL_FD_PIDFD;
    return 0;
}

static int attach_link(struct making *making)
{
    char path[48];
    if (!(making->message->request.flags & JAIL_EGRESS) || !host.egress)
        return 0;
    int error = egress_take(&making->sandbox->link);
    if (error)
        return error;
    making->sandbox->has_link = 1;
    snprintf(path, sizeof path, "/proc/%d/ns/net", making->sandbox->pid);
    int network = open(path, O_RDONLY | O_CLOEXEC);
    if (network < 0)
        return -errno;
    error = egress_attach(&making->sandbox->link, network);
    close(network);
    return error;
}

static int let_go(struct making *making)
{
    struct passed_note go = {0};
    return passing_send(making->notes, &go, NULL, 0);
}

static int receive_listeners(struct making *making)
{
    int listeners[CHILD_LISTENERS] = {-1, -1};
    int count = passing_receive(making->notes, &making->note, listeners, CHILD_LISTENERS);
    for (int i = 0; i < CHILD_LISTENERS; i++) {
        making->fds[JAIL_FD_RUNTIME_API + i] = listeners[i];
        making->mask |= listeners[i] < 0 ? 0 : 1u << (JAIL_FD_RUNTIME_API + i);
    }
    if (count < 0)
        return count;
    if (making->note.error)
        return making->note.error;
    return count == CHILD_LISTENERS ? 0 : -EPROTO;
}

static const struct {
    const char *name;
    int (*run)(struct making *making);
} STEPS[] = {
    {"taking a slot", take_slot},
    {"opening channels", open_channels},
    {"cloning folders", clone_folders},     /* here: only the jail may see the service's folders */
    {"taking /tmp", take_tmp},
    {"making the control group", make_cgroup}, /* before the process: v2 starts it inside */
    {"starting the process", spawn},
    {"mapping ids", map_ids},
    {"setting the out-of-memory score", prefer_for_oom},
    {"opening handles", open_handles},
    {"attaching the network", attach_link},
    {"setting up inside", receive_listeners}, /* the child furnished itself meanwhile */
    {"letting go", let_go},                   /* last: from here on the sandbox goes its own way */
};

static void drop_making(struct making *making)
{
    close_fd(&making->notes);
    close_fd(&making->plan.entry.into);
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        close_fd(&making->plan.entry.joins[i]);
    close_fd(&making->plan.notes);
    close_fd(&making->plan.control);
    close_fd(&making->plan.output);
    close_fd(&making->plan.telemetry);
    close_fd(&making->plan.tmp);
    for (int i = 0; i < JAIL_MOUNT_POINTS; i++)
        close_fd(&making->plan.folders[i]);
}

static void name_failure(const struct making *making, const char *step, struct jail_answer *answer)
{
    const char *inside = making->note.error ? making->note.step : NULL;
    snprintf(answer->stage, sizeof answer->stage, "%s", inside ? inside : step);
}

static void start_end(struct sandbox *sandbox);

void sandbox_create(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX])
{
    struct making making = {.message = message, .notes = -1, .fds = fds};
    making.plan = (struct child_plan){.notes = -1, .control = -1, .output = -1, .telemetry = -1, .tmp = -1, .init = -1};
    making.plan.entry.into = -1;
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        making.plan.entry.joins[i] = -1;
    for (int i = 0; i < JAIL_MOUNT_POINTS; i++)
        making.plan.folders[i] = -1;
    int error = 0;
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS && !error; i++) {
        error = STEPS[i].run(&making);
        if (error)
            name_failure(&making, STEPS[i].name, answer);
    }
    drop_making(&making);
    answer->status = error;
    answer->fds = making.mask;
    if (error) {
        if (making.sandbox)
            start_end(making.sandbox);
        return;
    }
    answer->sandbox = making.sandbox->handle;
}

/* --- changing ---------------------------------------------------------------------------------------------------- */

static int attach_one(const struct sandbox *sandbox, int folder, int point)
{
    int mount = namespaces_clone_folder(folder);
    if (mount < 0)
        return mount;
    int error = namespaces_attach(sandbox->pidfd, mount, MOUNT_POINTS[point]);
    close(mount);
    return error;
}

void sandbox_mount(const struct jail_message *message, struct jail_answer *answer)
{
    struct sandbox *sandbox = find(message->request.sandbox);
    unsigned next = 0;
    answer->status = !sandbox || sandbox->state != LIVE || !sandbox->pid ? -ESRCH
                     : sandbox->mounted & message->request.mounts        ? -EBUSY
                                                                         : 0;
    for (int i = 0; i < JAIL_MOUNT_POINTS && !answer->status; i++) {
        if (!(message->request.mounts & 1u << i))
            continue;
        answer->status = attach_one(sandbox, message->fds[next++], i);
        if (!answer->status)
            sandbox->mounted |= 1u << i;
        else
            snprintf(answer->stage, sizeof answer->stage, "mounting %s", MOUNT_POINTS[i]);
    }
}

void sandbox_limit(const struct jail_message *message, struct jail_answer *answer)
{
    struct sandbox *sandbox = find(message->request.sandbox);
    const struct jail_limits *limits = &message->request.limits;
    struct rlimit files = {.rlim_cur = limits->open_files_max, .rlim_max = limits->open_files_max};
    if (!sandbox || sandbox->state != LIVE || !sandbox->pid) {
        answer->status = -ESRCH;
        return;
    }
    answer->status = cgroup_limit(cgroup_name(slot_of(sandbox)), limits);
    if (!answer->status)
        answer->status = tmp_volume_resize(slot_of(sandbox), limits->tmp_bytes);
    if (!answer->status && prlimit(sandbox->pid, RLIMIT_NOFILE, &files, NULL) < 0)
        answer->status = -errno;
}

/* --- ending ------------------------------------------------------------------------------------------------------ */

/* Everything that a dead sandbox leaves; true once nothing is left. */
static int remove_remains(struct sandbox *sandbox)
{
    uint32_t slot = slot_of(sandbox);
    if (sandbox->pid)
        return 0;
    if (sandbox->has_cgroup && cgroup_remove(cgroup_name(slot)))
        return 0; /* a process is still leaving it: tried again soon */
    if (sandbox->has_tmp)
        tmp_volume_give(slot);
    if (sandbox->has_link)
        egress_give(&sandbox->link);
    close_fd(&sandbox->pidfd);
    uint64_t id = sandbox->destroy_id, handle = sandbox->handle;
    sandbox->state = FREE;
    living--;
    dying--;
    if (id)
        on_done(id, handle, 0);
    return 1;
}

static void reap(struct sandbox *sandbox)
{
    siginfo_t info;
    if (sandbox->pid && waitid(P_PID, (id_t)sandbox->pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid) {
        sandbox->pid = 0;
        on_unwatch(sandbox->pidfd); /* it stays readable for ever */
    }
}

static void start_end(struct sandbox *sandbox)
{
    if (sandbox->state == LIVE && sandbox->pid) {
        syscall(SYS_pidfd_send_signal, sandbox->pidfd, SIGKILL, NULL, 0);
        if (sandbox->has_cgroup)
            cgroup_kill(cgroup_name(slot_of(sandbox))); /* also what is frozen, and what no signal to PID 1 reaches */
    }
    dying += sandbox->state == LIVE;
    sandbox->state = DYING;
    reap(sandbox);
    remove_remains(sandbox);
}

int sandbox_destroy(uint64_t handle, uint64_t id)
{
    struct sandbox *sandbox = find(handle);
    if (!sandbox || (sandbox->state == DYING && sandbox->destroy_id))
        return -ESRCH;
    sandbox->destroy_id = id;
    start_end(sandbox);
    return 0;
}

uint32_t sandbox_destroy_all(void)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < SANDBOXES_MAX; slot++) {
        sandboxes[slot].destroy_id = 0; /* whoever asked is gone */
        if (sandboxes[slot].state != LIVE)
            continue;
        start_end(&sandboxes[slot]);
        count++;
    }
    return count;
}

void sandbox_ended(uint32_t slot)
{
    struct sandbox *sandbox = &sandboxes[slot];
    reap(sandbox);
    if (sandbox->state == DYING)
        remove_remains(sandbox);
}

uint32_t sandbox_retry(void)
{
    uint32_t waiting = 0;
    for (uint32_t slot = 0; slot < SANDBOXES_MAX && dying; slot++) {
        if (sandboxes[slot].state != DYING)
            continue;
        reap(&sandboxes[slot]);
        waiting += !remove_remains(&sandboxes[slot]) && !sandboxes[slot].pid;
    }
    return waiting;
}
