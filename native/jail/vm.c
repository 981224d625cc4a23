/* Composes a VM from ids, control group, namespaces, network and files; see vm.h. */
#define _GNU_SOURCE
#include "vm.h"

#include "cgroup.h"
#include "egress.h"
#include "files.h"
#include "identity.h"
#include "namespaces.h"
#include "passing.h"
#include "vm_child.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define SET_UP_WAIT_S 5
#define OOM_SCORE "500"

static char base[PATH_MAX];
static const char *firecracker, *jailer;
static gid_t service;

struct vm_making {
    const struct jail_message *message;
    int egress;
    struct sandbox *sandbox;
    struct vm_plan plan;
    int notes;
    int *fds;
    uint32_t mask;
    struct passed_note note;
    struct jail_answer *answer;
};

/* What root executes must be nobody else's to change, nor any folder above it. */
static int is_roots(const char *path)
{
    char resolved[PATH_MAX];
    struct stat status;
    if (!path || path[0] != '/' || !realpath(path, resolved) || strcmp(path, resolved) || stat(path, &status) < 0)
        return 0;
    if (!S_ISREG(status.st_mode) || !(status.st_mode & 0100))
        return 0;
    for (char *end = resolved + strlen(resolved); end; end = strrchr(resolved, '/')) {
        *end = 0;
        int sticky = S_ISDIR(status.st_mode) && status.st_mode & S_ISVTX; /* others cannot rename what is in it */
        if (status.st_uid || (status.st_mode & 022 && !sticky) || stat(*resolved ? resolved : "/", &status) < 0)
            return 0;
        if (!*resolved)
            return 1;
    }
    return 0;
}

int vms_open(const struct options *options)
{
    if (options->rootless || !options->firecracker)
        return 0;
    if (!is_roots(options->firecracker) || !options->jailer || !is_roots(options->jailer)) {
        fprintf(stderr, "stoker-jail: no VMs: firecracker and jailer must be absolute paths without links, to programs "
                        "that only root can change\n");
        return 0;
    }
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        perror("stoker-jail: no VMs: /dev/kvm");
        return 0;
    }
    close(kvm);
    snprintf(base, sizeof base, "%s/vm", options->state);
    if (mkdir(base, 0700) < 0 && errno != EEXIST) {
        perror("stoker-jail: no VMs: their folder");
        return 0;
    }
    firecracker = options->firecracker;
    jailer = options->jailer;
    return 1;
}

void vms_serve(gid_t group)
{
    service = group;
}

/* --- making ------------------------------------------------------------------------------------------------------ */

static int take_slot(struct vm_making *making)
{
    if (!firecracker)
        return -EOPNOTSUPP;
    making->sandbox = slot_take();
    if (!making->sandbox)
        return -EMFILE;
    making->sandbox->is_vm = 1;
    making->sandbox->mounted = ~0u; /* it has no place for folders */
    struct identity identity = identity_of(slot_of(making->sandbox));
    struct vm_plan *plan = &making->plan;
    plan->firecracker = firecracker;
    plan->jailer = jailer;
    plan->base = base;
    plan->id_of_vm = identity_uid(&identity, SANDBOX_UID);
    plan->service = service;
    plan->largest_file_bytes = making->message->request.limits.tmp_bytes;
    plan->open_files_max = making->message->request.limits.open_files_max;
    snprintf(plan->id, sizeof plan->id, "vm-%" PRIx64, making->sandbox->handle);
    return 0;
}

static int open_channels(struct vm_making *making)
{
    int pair[2];
    struct timeval patience = {.tv_sec = SET_UP_WAIT_S};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    making->notes = making->plan.jail_notes = pair[0];
    making->plan.notes = pair[1];
    if (setsockopt(making->notes, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    making->plan.output = pair[1]; /* non-blocking: a VMM must not wait for who reads its words */
    making->fds[JAIL_FD_OUTPUT] = pair[0];
    making->mask |= 1u << JAIL_FD_OUTPUT;
    return 0;
}

static int clone_files(struct vm_making *making)
{
    for (unsigned i = 0; i < making->message->fd_count; i++) {
        int mount = namespaces_clone_file(making->message->fds[i]);
        if (mount < 0)
            return mount;
        making->plan.files[making->plan.file_count++] = mount;
    }
    making->sandbox->files = making->plan.file_count;
    return 0;
}

static int take_link(struct vm_making *making)
{
    struct in_addr address, gateway;
    if (!(making->message->request.flags & JAIL_EGRESS) || !making->egress)
        return 0;
    int error = egress_take(&making->sandbox->link);
    if (error)
        return error;
    making->sandbox->has_link = 1;
    making->plan.link = &making->sandbox->link;
    inet_pton(AF_INET, making->sandbox->link.address, &address);
    inet_pton(AF_INET, making->sandbox->link.gateway, &gateway);
    making->answer->address = ntohl(address.s_addr);
    making->answer->gateway = ntohl(gateway.s_addr);
    return 0;
}

static int make_cgroup(struct vm_making *making)
{
    making->sandbox->has_cgroup = 1;
    return cgroup_make(&making->sandbox->cgroup, &making->message->request.limits, &making->plan.entry);
}

static int spawn(struct vm_making *making)
{
    struct sandbox *sandbox = making->sandbox;
    pid_t pid = namespaces_spawn_vm(making->plan.entry.into, &sandbox->pidfd);
    if (pid == 0)
        vm_child_run(&making->plan);
    if (pid < 0)
        return pid;
    sandbox->pid = pid;
    slot_close_fd(&making->plan.notes);
    return 0;
}

static int prefer_for_oom(struct vm_making *making)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", making->sandbox->pid);
    return files_write(AT_FDCWD, path, OOM_SCORE);
}

static int open_handles(struct vm_making *making)
{
    making->mask |= cgroup_handles(&making->sandbox->cgroup, making->fds);
    int pidfd = fcntl(making->sandbox->pidfd, F_DUPFD_CLOEXEC, 3);
    if (pidfd < 0)
        return -errno;
    making->fds[JAIL_FD_PIDFD] = pidfd;
    making->mask |= 1u << JAIL_FD_PIDFD;
    return 0;
}

static int attach_link(struct vm_making *making)
{
    char path[48];
    struct passed_note attached = {0};
    if (!making->plan.link)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/ns/net", making->sandbox->pid);
    int network = open(path, O_RDONLY | O_CLOEXEC);
    if (network < 0)
        return -errno;
    int error = egress_attach_bare(&making->sandbox->link, network);
    close(network);
    return error ? error : passing_send(making->notes, &attached, NULL, 0);
}

static int receive_sockets(struct vm_making *making)
{
    int folder = -1, count = passing_receive(making->notes, &making->note, &folder, 1);
    if (folder >= 0) {
        making->fds[JAIL_FD_ROOT] = folder;
        making->mask |= 1u << JAIL_FD_ROOT;
    }
    if (count < 0)
        return count;
    return making->note.error ? making->note.error : count == 1 ? 0 : -EPROTO;
}

static int let_go(struct vm_making *making)
{
    struct passed_note go = {0};
    return passing_send(making->notes, &go, NULL, 0);
}

static const struct {
    const char *name;
    int (*run)(struct vm_making *making);
} STEPS[] = {
    {"taking a slot", take_slot},
    {"opening channels", open_channels},
    {"cloning files", clone_files},
    {"taking a link", take_link},              /* before the process, which has to know it */
    {"making the control group", make_cgroup}, /* before the process: v2 starts it inside */
    {"starting the process", spawn},
    {"setting the out-of-memory score", prefer_for_oom},
    {"opening handles", open_handles},
    {"attaching the network", attach_link},
    {"setting up inside", receive_sockets},
    {"letting go", let_go},
};

static void drop_making(struct vm_making *making)
{
    slot_close_fd(&making->notes);
    slot_close_fd(&making->plan.notes);
    slot_close_fd(&making->plan.output);
    slot_close_fd(&making->plan.entry.into);
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        slot_close_fd(&making->plan.entry.joins[i]);
    for (unsigned i = 0; i < making->plan.file_count; i++)
        slot_close_fd(&making->plan.files[i]);
}

int vm_create(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX],
              int egress, struct sandbox **sandbox)
{
    struct vm_making making = {.message = message, .egress = egress, .notes = -1, .fds = fds, .answer = answer};
    making.plan = (struct vm_plan){.notes = -1, .jail_notes = -1, .output = -1};
    making.plan.entry.into = -1;
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        making.plan.entry.joins[i] = -1;
    int error = 0;
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS && !error; i++) {
        error = STEPS[i].run(&making);
        if (error)
            snprintf(answer->stage, sizeof answer->stage, "%s", making.note.error ? making.note.step : STEPS[i].name);
    }
    drop_making(&making);
    answer->fds = making.mask;
    *sandbox = making.sandbox;
    return error;
}

/* --- changing ---------------------------------------------------------------------------------------------------- */

void vm_add_files(struct sandbox *sandbox, const struct jail_message *message, struct jail_answer *answer)
{
    char path[16];
    answer->count = sandbox->files;
    if (sandbox->files + message->fd_count > VM_FILES_MAX)
        answer->status = -ENOSPC;
    for (unsigned i = 0; i < message->fd_count && !answer->status; i++) {
        int mount = namespaces_clone_file(message->fds[i]);
        snprintf(path, sizeof path, "/f%u", sandbox->files);
        answer->status = mount < 0 ? mount : namespaces_attach(sandbox->pidfd, mount, path);
        slot_close_fd(&mount);
        sandbox->files += !answer->status;
    }
    if (answer->status)
        snprintf(answer->stage, sizeof answer->stage, "adding files");
}
