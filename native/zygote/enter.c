/* Three processes, one after the other, each with its part; see enter.h.
 *
 * The first is the zygote's fork: it joins control groups and namespaces. A pid namespace takes in only what is forked
 * from then on, and an orphan goes to the init of its *parent's* namespace: so the second exists to be a parent
 * inside, and ends at once. The third stays.
 */
#define _GNU_SOURCE
#include "enter.h"

#include "../init/control.h"
#include "../jail/seccomp.h"
#include "../jail/surrender.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALL_NAMESPACES \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define PASSING_PID 30000 /* any that the sandbox does not reach soon: the one that stays is to be 2, as if launched */
#define ORPHANED_WITHIN_US 5000000
#define LOOK_US 50

static _Noreturn void fail(const char *what)
{
    dprintf(STDERR_FILENO, "zygote: %s: %s\n", what, strerror(errno));
    _exit(ENTER_FAILED);
}

static void join_groups(const int *groups, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (write(groups[i], "0", 1) < 0)
            fail("joining a control group");
}

pid_t enter_fork(int group)
{
    struct clone_args arguments = {
        .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group};
    return group < 0 ? fork() : (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

/* Without its own number, where the kernel does not grant one, the next one will do. */
static pid_t fork_passing(void)
{
    pid_t wanted = PASSING_PID;
    struct clone_args arguments = {
        .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wanted, .set_tid_size = 1};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    return pid < 0 ? fork() : (pid_t)pid;
}

static _Noreturn void await(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            fail("waiting");
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : ENTER_FAILED);
}

static void await_init(void)
{
    for (unsigned waited_us = 0; getppid() != 1; waited_us += LOOK_US) {
        if (waited_us > ORPHANED_WITHIN_US) {
            errno = ETIMEDOUT;
            fail("becoming the init's child");
        }
        usleep(LOOK_US);
    }
}

/* As the init arranges them for what it launches. */
static void arrange(const int *fds)
{
    int input = open("/dev/null", O_RDONLY);
    if (input < 0 || dup2(input, STDIN_FILENO) < 0 || dup2(fds[ZYGOTE_FD_OUTPUT], STDOUT_FILENO) < 0 ||
        dup2(fds[ZYGOTE_FD_OUTPUT], STDERR_FILENO) < 0 || dup2(fds[ZYGOTE_FD_TELEMETRY], INIT_FD_TELEMETRY) < 0)
        fail("arranging descriptors");
    if (syscall(SYS_close_range, STDERR_FILENO + 1, INIT_FD_TELEMETRY - 1, 0) < 0 ||
        syscall(SYS_close_range, INIT_FD_TELEMETRY + 1, ~0u, 0) < 0)
        fail("closing descriptors"); /* the zygote's channel above all */
}

static void become(const struct zygote_request *request, const int *fds)
{
    const struct surrender_plan plan = {
        .open_files_max = request->open_files_max,
        .may_set_groups = (int)request->may_set_groups,
        .uid = request->uid,
        .gid = request->gid,
        .filter = seccomp_filter(),
    };
    const char *step = "";
    arrange(fds);
    if (setsid() < 0 || chdir("/") < 0)
        fail("new session");
    int error = surrender(&plan, &step);
    errno = -error;
    if (error)
        fail(step);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* cleared by the change of ids: /proc/self would be another's */
    if (kill(1, INIT_SIGNAL_ADOPT) < 0)
        fail("telling the init");
}

void enter(const struct zygote_request *request, const int *fds)
{
    join_groups(fds + ZYGOTE_FD_JOINS, request->joins); /* first: the copies of pages are the sandbox's */
    if (setns(fds[ZYGOTE_FD_INIT], ALL_NAMESPACES) < 0)
        fail("entering the namespaces");
    pid_t passing = fork_passing();
    if (passing < 0)
        fail("forking into the sandbox");
    if (passing)
        await(passing);
    pid_t staying = fork();
    if (staying < 0)
        fail("forking inside");
    if (staying)
        _exit(ENTER_DONE);
    await_init();
    become(request, fds);
}
