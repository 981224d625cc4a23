/* Changes sandboxes and takes them apart; see sandbox.h. How one is made is in create.c. */
#define _GNU_SOURCE
#include "sandbox.h"

#include "cgroup.h"
#include "create.h"
#include "egress.h"
#include "images.h"
#include "mounts.h"
#include "namespaces.h"
#include "slots.h"
#include "tmp_volume.h"
#include "vm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sandbox_host host;
static sandbox_done on_done;
static sandbox_watch on_watch;
static sandbox_unwatch on_unwatch;

void sandbox_open(const struct sandbox_host *wanted)
{
    host = *wanted;
    slots_open();
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
    return slots_taken;
}

/* --- ending ------------------------------------------------------------------------------------------------------ */

/* Everything that a dead sandbox leaves; true once nothing is left. */
static int remove_remains(struct sandbox *sandbox)
{
    uint32_t slot = slot_of(sandbox);
    if (sandbox->pid)
        return 0;
    if (sandbox->has_cgroup && cgroup_remove(&sandbox->cgroup))
        return 0; /* a process is still leaving it: tried again soon */
    if (sandbox->has_tmp)
        tmp_volume_give(slot);
    if (sandbox->has_link)
        egress_give(&sandbox->link);
    slot_close_fd(&sandbox->pidfd);
    slot_close_fd(&sandbox->channel);
    uint64_t id = sandbox->destroy_id, handle = sandbox->handle;
    slot_free(sandbox);
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

static void kill_all_in(const struct sandbox *sandbox)
{
    syscall(SYS_pidfd_send_signal, sandbox->pidfd, SIGKILL, NULL, 0);
    if (sandbox->has_cgroup)
        cgroup_kill(&sandbox->cgroup); /* also what is frozen, and what no signal to PID 1 reaches */
}

static void start_end(struct sandbox *sandbox)
{
    if (sandbox->state == LIVE && (sandbox->pid || sandbox->zygote_uid)) /* a zygote's init is no PID 1 */
        kill_all_in(sandbox);
    slot_close_fd(&sandbox->channel); /* what a zygote has begun it ends by itself */
    slots_dying += sandbox->state == LIVE;
    sandbox->state = DYING;
    reap(sandbox);
    remove_remains(sandbox);
}

int sandbox_destroy(uint64_t handle, uint64_t id)
{
    struct sandbox *sandbox = slot_find(handle);
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
        slots[slot].destroy_id = 0; /* whoever asked is gone */
        if (slots[slot].state != LIVE)
            continue;
        start_end(&slots[slot]);
        count++;
    }
    return count;
}

void sandbox_ended(uint32_t slot)
{
    struct sandbox *sandbox = &slots[slot];
    reap(sandbox);
    if (sandbox->state == DYING)
        remove_remains(sandbox);
}

uint32_t sandbox_dying(void)
{
    return slots_dying;
}

void sandbox_insist(void)
{
    for (uint32_t slot = 0; slot < SANDBOXES_MAX && slots_dying; slot++)
        if (slots[slot].state == DYING && slots[slot].pid)
            kill_all_in(&slots[slot]);
}

uint32_t sandbox_retry(void)
{
    uint32_t waiting = 0;
    for (uint32_t slot = 0; slot < SANDBOXES_MAX && slots_dying; slot++) {
        if (slots[slot].state != DYING)
            continue;
        reap(&slots[slot]);
        waiting += !remove_remains(&slots[slot]) && !slots[slot].pid;
    }
    return waiting;
}

/* --- making ------------------------------------------------------------------------------------------------------ */

/* Watches what was made, or takes apart what was made half. */
static void settle_made(struct sandbox *sandbox, struct jail_answer *answer)
{
    if (sandbox && sandbox->pid)
        on_watch(sandbox->pidfd, slot_of(sandbox));
    if (answer->status == 0)
        answer->sandbox = sandbox->handle;
    else if (sandbox)
        start_end(sandbox);
}

void sandbox_create(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX])
{
    struct sandbox *sandbox = NULL;
    answer->status = create(&host, message, answer, fds, &sandbox);
    settle_made(sandbox, answer);
}

void sandbox_create_vm(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX])
{
    struct sandbox *sandbox = NULL;
    answer->status = vm_create(message, answer, fds, host.egress, &sandbox);
    settle_made(sandbox, answer);
}

/* --- changing ---------------------------------------------------------------------------------------------------- */

static int attach_one(const struct sandbox *sandbox, int folder, int point)
{
    int mount = images_clone_folder(folder);
    if (mount < 0)
        return mount;
    int error = namespaces_be_owner(sandbox->owner);
    if (!error) {
        error = namespaces_attach(sandbox->pidfd, mount, MOUNT_POINTS[point]);
        namespaces_be_root();
    }
    close(mount);
    return error;
}

void sandbox_add_files(const struct jail_message *message, struct jail_answer *answer)
{
    struct sandbox *sandbox = slot_find(message->request.sandbox);
    if (!sandbox || sandbox->state != LIVE || !sandbox->pid || !sandbox->is_vm)
        answer->status = -ESRCH;
    else
        vm_add_files(sandbox, message, answer);
}

void sandbox_mount(const struct jail_message *message, struct jail_answer *answer)
{
    struct sandbox *sandbox = slot_find(message->request.sandbox);
    unsigned next = 0;
    answer->status = !sandbox || sandbox->state != LIVE || !sandbox->pid ? -ESRCH
                     : sandbox->mounted & (message->request.mounts | 1u << JAIL_ROOT) /* its paths are a stranger's */
                         ? -EBUSY
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

void sandbox_limit(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX])
{
    struct sandbox *sandbox = slot_find(message->request.sandbox);
    const struct jail_limits *limits = &message->request.limits;
    struct rlimit files = {.rlim_cur = limits->open_files_max, .rlim_max = limits->open_files_max};
    if (!sandbox || sandbox->state != LIVE || !sandbox->pid) {
        answer->status = -ESRCH;
        return;
    }
    int moved = cgroup_limit(&sandbox->cgroup, limits);
    answer->status = moved < 0 ? moved : 0;
    if (moved > 0)
        answer->fds = cgroup_handles(&sandbox->cgroup, fds);
    if (sandbox->is_vm)
        return; /* its files and memory are what it was started with */
    if (!answer->status)
        answer->status = tmp_volume_resize(slot_of(sandbox), limits->tmp_bytes);
    if (!answer->status)
        answer->status = namespaces_be_owner(sandbox->owner);
    if (answer->status)
        return;
    answer->status = prlimit(sandbox->pid, RLIMIT_NOFILE, &files, NULL) < 0 ? -errno : 0;
    namespaces_be_root();
}
