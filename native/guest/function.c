/* The function's processes: a control group with its memory, a pid and mount namespace, and in it the very init
 * that containers have, started with no right at all. */
#define _GNU_SOURCE
#include "guest.h"

#include "../init/control.h"
#include "../jail/seccomp.h"
#include "../jail/surrender.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FD_INIT 60

static int group = -1, init_program = -1, reports = -1;
static pid_t process;

static int put(const char *name, const char *text)
{
    int fd = openat(group, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return error;
}

static int put_number(const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return put(name, text);
}

int function_open(void)
{
    init_program = open("/stoker-init", O_RDONLY | O_CLOEXEC);
    if (init_program < 0)
        return -errno;
    mkdir("/groups", 0755);
    if (mount("groups", "/groups", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return -errno;
    group = open("/groups", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (group < 0)
        return -errno;
    int error = put("cgroup.subtree_control", "+memory +pids");
    if (error)
        return error;
    if (mkdirat(group, "function", 0755) < 0)
        return -errno;
    int above = group;
    group = openat(above, "function", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(above);
    return group < 0 ? -errno : put("memory.oom.group", "1");
}

int function_limit(const struct guest_limits *limits)
{
    int error = put_number("memory.max", limits->memory_bytes);
    return error ? error : put_number("pids.max", limits->pids_max);
}

static _Noreturn void become_init(const struct guest_limits *limits, int control, int output, int telemetry)
{
    static char *const argv[] = {(char *)"init", NULL}, *const environment[] = {NULL};
    const struct surrender_plan plan = {.open_files_max = limits->open_files_max,
                                        .may_set_groups = 1,
                                        .uid = limits->uid,
                                        .gid = limits->gid,
                                        .filter = seccomp_filter()};
    const char *step;
    sigset_t none;
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 || setsid() < 0)
        _exit(126);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) < 0)
            _exit(126);
    /* All come from above FD_INIT, so none is in another's way. */
    if (dup2(control, INIT_FD_CONTROL) < 0 || dup2(output, INIT_FD_OUTPUT) < 0 ||
        dup2(telemetry, INIT_FD_TELEMETRY) < 0 || dup3(init_program, FD_INIT, O_CLOEXEC) < 0 ||
        syscall(SYS_close_range, INIT_FD_OUTPUT + 1, FD_INIT - 1, 0) < 0 ||
        syscall(SYS_close_range, FD_INIT + 1, INIT_FD_TELEMETRY - 1, 0) < 0 ||
        syscall(SYS_close_range, INIT_FD_TELEMETRY + 1, ~0u, 0) < 0)
        _exit(126);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (surrender(&plan, &step) != 0)
        _exit(126);
    syscall(SYS_execveat, FD_INIT, "", argv, environment, AT_EMPTY_PATH);
    _exit(127);
}

static int above(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    close(fd);
    return moved;
}

static pid_t start(const struct guest_limits *limits, int control, int output, int telemetry)
{
    struct clone_args {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
    } arguments = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWCGROUP | 0x200000000ull /* INTO_CGROUP */,
                   .exit_signal = SIGCHLD,
                   .cgroup = (uint64_t)group};
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        become_init(limits, control, output, telemetry);
    return pid;
}

int function_launch(const void *record, size_t bytes, const struct guest_limits *limits, const char **step)
{
    int pair[2], output[2], telemetry[2];
    *step = "a second launch";
    if (process)
        return -EALREADY;
    *step = "opening pipes";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(output, O_CLOEXEC) < 0 ||
        pipe2(telemetry, O_CLOEXEC) < 0)
        return -errno;
    int size = (int)GUEST_BODY_BYTES_MAX;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    pair[1] = above(pair[1]);
    output[1] = above(output[1]);
    telemetry[1] = above(telemetry[1]);
    init_program = fcntl(init_program, F_DUPFD_CLOEXEC, 100);
    *step = "starting the init";
    process = start(limits, pair[1], output[1], telemetry[1]);
    int error = process < 0 ? -errno : 0;
    close(pair[1]);
    close(output[1]);
    close(telemetry[1]);
    if (error)
        return error;
    reports = pair[0];
    fcntl(reports, F_SETFL, O_NONBLOCK);
    *step = "launching";
    if (send(reports, record, bytes, MSG_NOSIGNAL) < 0)
        return -errno;
    return relay_outputs(output[0], telemetry[0]);
}

/* Told through the init: it knows which process that is. */
void function_signal(int number)
{
    struct init_request request = {.magic = INIT_MAGIC, .operation = INIT_SIGNAL, .argument = (uint32_t)number};
    if (reports >= 0)
        send(reports, &request, sizeof request, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool function_launched(void)
{
    return process > 0;
}

int function_reports(void)
{
    return reports;
}

bool function_reaped(pid_t pid)
{
    return process > 0 && pid == process;
}

static uint64_t number_in(const char *name, const char *key)
{
    char text[512], *at = text;
    int fd = openat(group, name, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    if (key)
        at = strstr(text, key);
    return at ? strtoull(at + (key ? strlen(key) : 0), NULL, 10) : 0;
}

struct guest_memory function_memory(void)
{
    struct guest_memory memory = {.current_bytes = number_in("memory.current", NULL),
                                  .peak_bytes = number_in("memory.peak", NULL),
                                  .oom_kills = number_in("memory.events", "oom_kill ")};
    if (memory.peak_bytes < memory.current_bytes)
        memory.peak_bytes = memory.current_bytes; /* memory.peak came with Linux 5.19 */
    return memory;
}
