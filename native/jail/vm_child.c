/* Furnishes a VM's root and becomes its jailer; see vm_child.h. Runs in new pid, mount, network, ipc and uts
 * namespaces, still root: the jailer gives that up. Each line of the checklist says why it is where it is. */
#define _GNU_SOURCE
#include "vm_child.h"

#include "mounts.h"
#include "passing.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define ROOT_OPTIONS "mode=0711,size=32m,nr_inodes=512" /* the VMM's program, sockets, device nodes */

static char root[PATH_MAX];
static int sockets_folder = -1;

static int result(long value)
{
    return value < 0 ? -errno : 0;
}

static int join_cgroups(const struct vm_plan *plan)
{
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        if (plan->entry.joins[i] >= 0 && write(plan->entry.joins[i], "0", 1) < 0)
            return -errno;
    return 0;
}

static int part_mounts(const struct vm_plan *plan)
{
    (void)plan;
    return result(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int furnish_proc(const struct vm_plan *plan)
{
    (void)plan;
    return result(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static int mount_base(const struct vm_plan *plan)
{
    return result(mount("stoker-vm", plan->base, "tmpfs", MS_NOSUID, ROOT_OPTIONS));
}

/* The jailer's own layout: BASE/PROGRAM/ID/root. */
static int make_root(const struct vm_plan *plan)
{
    char program[PATH_MAX];
    snprintf(program, sizeof program, "%s", plan->firecracker);
    const char *parts[] = {basename(program), plan->id, "root"};
    int used = snprintf(root, sizeof root, "%s", plan->base);
    for (size_t i = 0; i < COUNT(parts); i++) {
        used += snprintf(root + used, sizeof root - (size_t)used, "/%s", parts[i]);
        if (used >= (int)sizeof root - 16)
            return -ENAMETOOLONG;
        if (mkdir(root, 0711) < 0)
            return -errno;
    }
    return 0;
}

/* Not the root's /run: the jailer shuts that to everybody but the VM. */
static int make_sockets(const struct vm_plan *plan)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/sockets", root);
    if (mkdir(path, 0) < 0 || chown(path, plan->id_of_vm, plan->service) < 0 || chmod(path, 02770) < 0)
        return -errno;
    sockets_folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return result(sockets_folder);
}

static int attach_files(const struct vm_plan *plan)
{
    char path[PATH_MAX + 16];
    int error = 0;
    for (unsigned i = 0; i < VM_FILES_MAX && !error; i++) {
        snprintf(path, sizeof path, "%s/f%u", root, i);
        int place = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
        error = result(place);
        if (place >= 0)
            close(place);
        if (!error && i < plan->file_count)
            error = mounts_attach(plan->files[i], path);
    }
    return error;
}

static int make_tap(const struct vm_plan *plan)
{
    struct passed_note note;
    if (!plan->link)
        return 0;
    int error = passing_receive(plan->notes, &note, NULL, 0);
    return error < 0 ? error : tap_make(plan->id_of_vm, plan->link);
}

static int arrange_descriptors(const struct vm_plan *plan)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    return result(null < 0 || dup2(null, 0) < 0 || dup2(plan->output, 1) < 0 || dup2(plan->output, 2) < 0 ? -1 : 0);
}

static int leave_session(const struct vm_plan *plan)
{
    (void)plan;
    return result(setsid());
}

static int reset_signals(const struct vm_plan *plan)
{
    (void)plan;
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    return result(sigprocmask(SIG_SETMASK, &none, NULL));
}

static const struct {
    const char *name;
    int (*run)(const struct vm_plan *plan);
} STEPS[] = {
    {"joining the control groups", join_cgroups}, /* first: all that follows is charged to the VM */
    {"parting the mounts", part_mounts},          /* before the first of its own: the host must not see them */
    {"mounting /proc", furnish_proc},             /* of this pid namespace: the jailer looks at itself there */
    {"mounting the VM's root", mount_base},
    {"making the VM's root", make_root},
    {"making the folder of its sockets", make_sockets},
    {"attaching files", attach_files},            /* before the jailer binds the root, with all below it */
    {"making the tap device", make_tap},          /* when the jail has put the link's end here: it has a fixed number */
    {"new session", leave_session},
    {"arranging descriptors", arrange_descriptors},
    {"resetting signals", reset_signals},
};

static void become_jailer(const struct vm_plan *plan)
{
    char uid[16], gid[16], file_size[40], open_files[40];
    snprintf(uid, sizeof uid, "%u", plan->id_of_vm);
    snprintf(gid, sizeof gid, "%u", plan->id_of_vm);
    snprintf(file_size, sizeof file_size, "fsize=%" PRIu64, plan->largest_file_bytes);
    snprintf(open_files, sizeof open_files, "no-file=%u", plan->open_files_max);
    const char *const argv[] = {
        "jailer", "--id", plan->id, "--exec-file", plan->firecracker, "--uid", uid, "--gid", gid,
        "--chroot-base-dir", plan->base, "--resource-limit", file_size, "--resource-limit", open_files,
        "--", "--api-sock", "/sockets/api.sock", NULL};
    static char *const environment[] = {NULL};
    umask(0007); /* the service's group may use the sockets, nobody else */
    execve(plan->jailer, (char *const *)(uintptr_t)argv, environment);
}

_Noreturn void vm_child_run(const struct vm_plan *plan)
{
    struct passed_note note = {0};
    close(plan->jail_notes);
    for (size_t i = 0; i < COUNT(STEPS); i++) {
        note.error = STEPS[i].run(plan);
        if (!note.error)
            continue;
        snprintf(note.step, sizeof note.step, "%s", STEPS[i].name);
        passing_send(plan->notes, &note, NULL, 0);
        _exit(126);
    }
    if (passing_send(plan->notes, &note, &sockets_folder, 1) < 0)
        _exit(126);
    if (passing_receive(plan->notes, &note, NULL, 0) < 0 || note.error)
        _exit(126); /* the jail failed or is gone */
    become_jailer(plan);
    _exit(127);
}
