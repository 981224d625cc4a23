/* Furnishes a sandbox from inside and gives up every right; see child.h. Order matters: each line of the
 * checklists says why it is where it is. */
#define _GNU_SOURCE
#include "child.h"

#include "files.h"
#include "identity.h"
#include "mounts.h"
#include "passing.h"
#include "root.h"
#include "zygotes.h"

#include "../init/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

#define RUNTIME_API_PORT 9001
#define RUNTIME_SOCKET_NAME "stoker-runtime"
#define SERVICE_API_PORT 9797
#define LISTEN_BACKLOG 128
#define FD_NOTES 5
#define FD_INIT 63
#define FD_ABOVE_ALL 100

static const char *const MASKED_FILES[] = {"/proc/kcore",         "/proc/keys",          "/proc/key-users",
                                           "/proc/timer_list",    "/proc/sched_debug",   "/proc/sysrq-trigger",
                                           "/proc/latency_stats", "/proc/kallsyms",      "/proc/modules"};
static const char *const MASKED_FOLDERS[] = {"/proc/acpi", "/proc/scsi", "/proc/asound"};
static const char *const READ_ONLY[] = {"/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int listeners[CHILD_LISTENERS] = {-1, -1, -1};

static int result(long value)
{
    return value < 0 ? -errno : 0;
}

static int missing_is_fine(int error)
{
    return error == -ENOENT ? 0 : error;
}

/* --- while still privileged inside ------------------------------------------------------------------------------ */

static int join_cgroups(const struct child_plan *plan)
{
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        if (plan->entry.joins[i] >= 0 && write(plan->entry.joins[i], "0", 1) < 0)
            return -errno;
    return 0;
}

static int hide_cgroup(const struct child_plan *plan)
{
    /* A zygote starts processes in groups that would lie outside; it sees no group anyway. */
    return plan->channel >= 0 ? 0 : result(unshare(CLONE_NEWCGROUP));
}

static int furnish_proc(const struct child_plan *plan)
{
    if (plan->channel >= 0) /* a zygote is one of the host's processes, and is to see none of them */
        return result(mount("/var/empty", "/proc", NULL, MS_BIND, NULL));
    return result(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static int mask_proc(const struct child_plan *plan)
{
    (void)plan;
    int error = 0;
    for (size_t i = 0; i < COUNT(MASKED_FILES) && !error; i++)
        error = missing_is_fine(result(mount("/dev/null", MASKED_FILES[i], NULL, MS_BIND, NULL)));
    for (size_t i = 0; i < COUNT(MASKED_FOLDERS) && !error; i++)
        error = missing_is_fine(result(mount("/var/empty", MASKED_FOLDERS[i], NULL, MS_BIND, NULL)));
    for (size_t i = 0; i < COUNT(READ_ONLY) && !error; i++)
        error = missing_is_fine(mounts_bind(READ_ONLY[i], READ_ONLY[i], MOUNT_ATTR_RDONLY));
    return error;
}

/* The kernel counts these for the owner of the user namespace too: nobody may take what is meant for all. */
static int share_with_siblings(const struct child_plan *plan)
{
    int error = 0;
    for (int i = 0; i < ZYGOTES_SHARED && plan->siblings && !error; i++)
        error = files_write_number(AT_FDCWD, ZYGOTES_SHARED_PATHS[i], zygotes_share(i));
    return missing_is_fine(error);
}

static int attach_tmp(const struct child_plan *plan)
{
    return mounts_attach(plan->tmp, "/tmp");
}

/* Its owners can only be mapped once the jail has written the id maps, and only while it is attached nowhere. */
static int await_root(const struct child_plan *plan)
{
    struct passed_note note;
    if (plan->folders[JAIL_ROOT] < 0)
        return 0;
    int error = passing_receive(plan->notes, &note, NULL, 0);
    return error < 0 ? error : note.error;
}

static int enter_root(const struct child_plan *plan)
{
    return plan->folders[JAIL_ROOT] < 0 ? 0 : root_enter();
}

static int attach_folders(const struct child_plan *plan)
{
    int error = 0;
    for (int i = 0; i < JAIL_MOUNT_POINTS && !error; i++)
        if (plan->folders[i] >= 0)
            error = mounts_attach(plan->folders[i], MOUNT_POINTS[i]);
    return error;
}

static int raise_loopback(const struct child_plan *plan)
{
    (void)plan;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = result(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
    return error;
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    return fd;
}

/* Unix sockets cost half of what loopback does. Abstract names belong to the network namespace. */
static int listen_by_name(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0" RUNTIME_SOCKET_NAME};
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + sizeof RUNTIME_SOCKET_NAME;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    return fd;
}

static int open_listeners(const struct child_plan *plan)
{
    (void)plan;
    listeners[CHILD_RUNTIME_API] = listen_on(RUNTIME_API_PORT);
    listeners[CHILD_SERVICE_API] = listen_on(SERVICE_API_PORT);
    listeners[CHILD_RUNTIME_SOCKET] = listen_by_name();
    for (int i = 0; i < CHILD_LISTENERS; i++)
        if (listeners[i] < 0)
            return listeners[i];
    return 0;
}

static int set_host_name(const struct child_plan *plan)
{
    (void)plan;
    return result(sethostname(SANDBOX_HOST_NAME, sizeof SANDBOX_HOST_NAME - 1));
}

/* --- giving up ---------------------------------------------------------------------------------------------------- */

static int leave_session(const struct child_plan *plan)
{
    return plan->leave_session ? result(setsid()) : 0;
}

static int arrange_descriptors(const struct child_plan *plan)
{
    const struct {
        int from, to;
    } wanted[] = {{plan->control, INIT_FD_CONTROL},
                  {plan->output, INIT_FD_OUTPUT},
                  {plan->notes, FD_NOTES},
                  {plan->telemetry, INIT_FD_TELEMETRY},
                  {plan->init, FD_INIT},
                  {plan->channel, INIT_FD_CHANNEL}};
    const size_t count = plan->channel < 0 ? COUNT(wanted) - 1 : COUNT(wanted);
    int moved[COUNT(wanted)], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        if (dup2(null, i) < 0)
            return -errno;
    for (size_t i = 0; i < count; i++) /* out of each other's way first */
        if ((moved[i] = fcntl(wanted[i].from, F_DUPFD_CLOEXEC, FD_ABOVE_ALL)) < 0)
            return -errno;
    for (size_t i = 0; i < count; i++)
        if (dup3(moved[i], wanted[i].to, wanted[i].to == FD_INIT || wanted[i].to == FD_NOTES ? O_CLOEXEC : 0) < 0)
            return -errno;
    if (syscall(SYS_close_range, FD_NOTES + 1, plan->channel < 0 ? INIT_FD_CHANNEL : INIT_FD_CHANNEL - 1, 0) < 0)
        return -errno;
    return result(syscall(SYS_close_range, FD_INIT + 1, ~0u, 0));
}

static int reset_signals(const struct child_plan *plan)
{
    (void)plan;
    sigset_t kept;
    sigemptyset(&kept);
    sigaddset(&kept, INIT_SIGNAL_ADOPT); /* it may come before the init watches: blocked, it waits */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    return result(sigprocmask(SIG_SETMASK, &kept, NULL));
}

struct step {
    const char *name;
    int (*run)(const struct child_plan *plan);
};

/* Needs no ids yet: runs while the jail writes the id maps. */
static const struct step FURNISH[] = {
    {"joining the control groups", join_cgroups}, /* first: all that follows is charged to the sandbox */
    {"cgroup namespace", hide_cgroup},          /* after that: its root is where we are now */
    {"mounting /proc", furnish_proc},           /* of this pid namespace, over the template's empty one */
    {"sharing with siblings", share_with_siblings}, /* while /proc/sys can be written */
    {"masking /proc", mask_proc},               /* before anything else could open what is below */
    {"attaching /tmp", attach_tmp},
    {"awaiting the root", await_root},
    {"attaching folders", attach_folders},      /* read-only since the jail cloned them */
    {"entering the root", enter_root},          /* after all that is made from the template */
    {"raising loopback", raise_loopback},       /* before the listeners: they need its address */
    {"opening listeners", open_listeners},      /* before anyone inside could take the ports */
    {"naming the host", set_host_name},
};

/* Not before the jail said that the ids are in place; the rest is in surrender.c. */
static const struct step PREPARE[] = {
    {"new session", leave_session},             /* the jail's terminal must not be /dev/tty here */
    {"arranging descriptors", arrange_descriptors}, /* before the limit on files; closes all of the jail's */
    {"resetting signals", reset_signals},
};

static void run(const struct step *steps, size_t count, const struct child_plan *plan, int notes)
{
    for (size_t i = 0; i < count; i++) {
        struct passed_note note = {.error = steps[i].run(plan)};
        if (!note.error)
            continue;
        snprintf(note.step, sizeof note.step, "%s", steps[i].name);
        passing_send(notes, &note, NULL, 0);
        _exit(126);
    }
}

/* The jail answered already: what fails now is told to the service. */
static _Noreturn void break_off(int control, int error)
{
    struct init_report report = {.magic = INIT_MAGIC, .kind = INIT_BROKEN, .value = -error};
    send(control, &report, sizeof report, MSG_NOSIGNAL | MSG_DONTWAIT);
    _exit(126);
}

static void give_up(const struct child_plan *plan)
{
    const char *step;
    int control = plan->control;
    for (size_t i = 0; i < COUNT(PREPARE); i++) {
        int error = PREPARE[i].run(plan);
        if (error)
            break_off(control, error);
        if (PREPARE[i].run == arrange_descriptors)
            control = INIT_FD_CONTROL;
    }
    int error = surrender(&plan->surrender, &step);
    if (error)
        break_off(control, error);
}

_Noreturn void child_run(const struct child_plan *plan)
{
    static char *const argv[] = {(char *)"init", NULL};
    static char *const environment[] = {NULL};
    struct passed_note note = {0};
    close(plan->jail_notes);
    run(FURNISH, COUNT(FURNISH), plan, plan->notes);
    if (passing_send(plan->notes, &note, listeners, CHILD_LISTENERS) < 0)
        _exit(126);
    if (passing_receive(plan->notes, &note, NULL, 0) < 0 || note.error)
        _exit(126); /* the jail failed or is gone */
    give_up(plan);
    syscall(SYS_execveat, FD_INIT, "", argv, environment, AT_EMPTY_PATH);
    _exit(127);
}
