/* Composes a sandbox from ids, /tmp, control group, namespaces and network; see create.h. */
#define _GNU_SOURCE
#include "create.h"

#include "cgroup.h"
#include "child.h"
#include "files.h"
#include "identity.h"
#include "images.h"
#include "namespaces.h"
#include "passing.h"
#include "seccomp.h"
#include "tmp_volume.h"
#include "zygotes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SET_UP_WAIT_S 5 /* one sandbox that hangs must not stop the others for longer */
#define OOM_SCORE "500" /* the host's own out-of-memory killer takes sandboxes first */

struct making {
    const struct sandbox_host *host;
    const struct jail_message *message;
    struct sandbox *sandbox;
    struct sandbox *zygote; /* that forks the process of this one, or NULL */
    struct identity identity;
    struct child_plan plan;
    int notes;  /* the jail's end */
    int *fds;   /* for the answer */
    uint32_t mask;
    struct passed_note note;
};

static int is_zygote(const struct making *making)
{
    return (making->message->request.flags & JAIL_ZYGOTE) != 0;
}

static uid_t user_of(const struct jail_request *request)
{
    return request->uid ? request->uid : SANDBOX_UID;
}

static gid_t group_of(const struct jail_request *request)
{
    return request->uid ? request->gid : SANDBOX_GID;
}

/* Who is inside, and who owns the user namespace. */
static int identify(struct making *making)
{
    const struct jail_request *request = &making->message->request;
    struct sandbox *sandbox = making->sandbox;
    making->identity = is_zygote(making) ? identity_of_zygote() : identity_of(slot_of(sandbox));
    if (request->uid && !making->identity.whole)
        return -EOPNOTSUPP; /* there is one id only */
    making->plan.surrender = (struct surrender_plan){
        .open_files_max = request->limits.open_files_max,
        .may_set_groups = making->identity.may_set_groups,
        .uid = is_zygote(making) ? identity_uid(&making->identity, SANDBOX_UID) : user_of(request),
        .gid = is_zygote(making) ? identity_gid(&making->identity, SANDBOX_GID) : group_of(request),
        .filter = is_zygote(making) ? seccomp_zygote_filter() : seccomp_filter(),
    };
    if (is_zygote(making)) {
        sandbox->zygote_uid = making->plan.surrender.uid;
        return making->host->zygotes ? 0 : -EOPNOTSUPP;
    }
    sandbox->owner = making->identity.outside;
    if (!request->zygote)
        return 0;
    making->zygote = slot_find(request->zygote);
    if (!making->zygote || making->zygote->state != LIVE || !making->zygote->zygote_uid)
        return -ESRCH;
    sandbox->owner = making->zygote->zygote_uid;
    making->plan.siblings = 1;
    return 0;
}

static int take_slot(struct making *making)
{
    making->sandbox = slot_take();
    if (!making->sandbox)
        return -EMFILE;
    making->sandbox->mounted = making->message->request.mounts;
    making->plan.init = making->host->init;
    making->plan.leave_session = making->host->terminal;
    return 0;
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

static int open_zygote_channel(struct making *making)
{
    int pair[2];
    if (!is_zygote(making))
        return 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    making->sandbox->channel = pair[0];
    making->plan.channel = pair[1];
    return 0;
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
        int mount = images_clone_folder(making->message->fds[next++]);
        if (mount < 0)
            return mount;
        making->plan.folders[i] = mount;
    }
    return 0;
}

static int take_tmp(struct making *making)
{
    const struct identity *identity = &making->identity;
    const struct jail_request *request = &making->message->request;
    int mount = tmp_volume_take(slot_of(making->sandbox), identity_uid(identity, user_of(request)),
                                identity_gid(identity, group_of(request)), request->limits.tmp_bytes);
    if (mount < 0)
        return mount;
    making->sandbox->has_tmp = 1;
    making->plan.tmp = mount;
    return 0;
}

static int make_cgroup(struct making *making)
{
    making->sandbox->has_cgroup = 1; /* also when only some hierarchies got theirs */
    return cgroup_make(&making->sandbox->cgroup, &making->message->request.limits, &making->plan.entry);
}

static int spawn(struct making *making)
{
    struct sandbox *sandbox = making->sandbox;
    int template = making->host->template, into = making->plan.entry.into;
    pid_t pid = is_zygote(making) ? namespaces_spawn_zygote(template, into, &sandbox->pidfd)
                                  : namespaces_spawn(template, into, sandbox->owner, &sandbox->pidfd);
    if (pid == 0)
        child_run(&making->plan);
    if (pid < 0)
        return pid;
    sandbox->pid = pid;
    slot_close_fd(&making->plan.notes); /* so that its end shows as end of file */
    return 0;
}

static int map_ids(struct making *making)
{
    return is_zygote(making) ? 0 : identity_map(&making->identity, making->sandbox->pid);
}

/* A root's owners are numbers of its own world: they are to mean the ids inside, none of the host's. */
static int map_root(struct making *making)
{
    struct passed_note ready = {0};
    int root = making->plan.folders[JAIL_ROOT];
    if (root < 0)
        return 0;
    int error = making->identity.whole ? namespaces_map_owners(root, making->sandbox->pid, making->sandbox->owner) : 0;
    return error ? error : passing_send(making->notes, &ready, NULL, 0);
}

static int prefer_for_oom(struct making *making)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", making->sandbox->pid);
    return files_write(AT_FDCWD, path, OOM_SCORE);
}

static int open_handles(struct making *making)
{
    making->mask |= cgroup_handles(&making->sandbox->cgroup, making->fds);
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
    if (!(making->message->request.flags & JAIL_EGRESS) || !making->host->egress)
        return 0;
    int error = egress_take(&making->sandbox->link);
    if (error)
        return error;
    making->sandbox->has_link = 1;
    snprintf(path, sizeof path, "/proc/%d/ns/net", making->sandbox->pid);
    error = namespaces_be_owner(making->sandbox->owner);
    if (error)
        return error;
    int network = open(path, O_RDONLY | O_CLOEXEC);
    error = network < 0 ? -errno : 0;
    namespaces_be_root();
    if (error)
        return error;
    error = egress_attach(&making->sandbox->link, network);
    close(network);
    return error;
}

static int let_go(struct making *making)
{
    struct passed_note go = {0};
    return passing_send(making->notes, &go, NULL, 0);
}

/* The init shows that it runs by closing its end of the notes: before that nobody may look into it. */
static int have_forked(struct making *making)
{
    if (!making->zygote)
        return 0;
    struct passed_note last;
    int error = passing_receive(making->notes, &last, NULL, 0);
    if (error != -ECHILD)
        return error < 0 ? error : -EPROTO;
    error = cgroup_admit(&making->plan.entry, identity_zygotes());
    return error ? error : zygotes_ask(making->zygote->channel, making->sandbox->pidfd, &making->plan);
}

static int receive_listeners(struct making *making)
{
    int listeners[CHILD_LISTENERS] = {-1, -1, -1};
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
    {"finding the zygote", identify},
    {"opening the zygote's channel", open_zygote_channel},
    {"opening channels", open_channels},
    {"cloning folders", clone_folders},     /* here: only the jail may see the service's folders */
    {"taking /tmp", take_tmp},
    {"making the control group", make_cgroup}, /* before the process: v2 starts it inside */
    {"starting the process", spawn},
    {"mapping ids", map_ids},
    {"mapping the root's owners", map_root}, /* the child waits for it */
    {"setting the out-of-memory score", prefer_for_oom},
    {"opening handles", open_handles},
    {"attaching the network", attach_link},
    {"setting up inside", receive_listeners}, /* the child furnished itself meanwhile */
    {"letting go", let_go},                   /* from here on the sandbox goes its own way */
    {"asking the zygote", have_forked},       /* last: what it forks needs all of the sandbox */
};

static void drop_making(struct making *making)
{
    slot_close_fd(&making->notes);
    slot_close_fd(&making->plan.entry.into);
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        slot_close_fd(&making->plan.entry.joins[i]);
    slot_close_fd(&making->plan.notes);
    slot_close_fd(&making->plan.control);
    slot_close_fd(&making->plan.output);
    slot_close_fd(&making->plan.telemetry);
    slot_close_fd(&making->plan.channel);
    slot_close_fd(&making->plan.tmp);
    for (int i = 0; i < JAIL_MOUNT_POINTS; i++)
        slot_close_fd(&making->plan.folders[i]);
}

static void name_failure(const struct making *making, const char *step, struct jail_answer *answer)
{
    const char *inside = making->note.error ? making->note.step : NULL;
    snprintf(answer->stage, sizeof answer->stage, "%s", inside ? inside : step);
}

int create(const struct sandbox_host *host, const struct jail_message *message, struct jail_answer *answer,
           int fds[JAIL_ANSWER_FDS_MAX], struct sandbox **sandbox)
{
    struct making making = {.host = host, .message = message, .notes = -1, .fds = fds};
    making.plan = (struct child_plan){.notes = -1, .control = -1, .output = -1, .telemetry = -1, .tmp = -1, .init = -1, .channel = -1};
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
    answer->fds = making.mask;
    *sandbox = making.sandbox;
    return error;
}
