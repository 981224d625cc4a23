/* PID 1 of a sandbox: starts the one process it is told to, reaps everything, reports how that process ended,
 * and exits, which ends the pid namespace.
 *
 * It runs inside the sandbox with no privilege at all and is the only reader of launch records. It must never be
 * needed for safety: what it gets wrong harms this sandbox alone.
 */
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char record[INIT_RECORD_BYTES_MAX];
static char *strings[INIT_STRINGS_MAX + 2];
static pid_t launched;
static volatile bool misplaced; /* by the vforked child: it could not enter its folder */

static void report(enum init_report_kind kind, int value)
{
    struct init_report message = {.magic = INIT_MAGIC, .kind = kind, .value = value};
    send(INIT_FD_CONTROL, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What to start; the vforked child reads it while this process waits. */
static struct {
    char *folder, **argv, **environment;
} wanted;

/* Splits the body into argv and environment. NULL-terminated arrays share `strings`. False: malformed. */
static bool parse(const struct init_request *request, size_t body_bytes)
{
    char *at = record + sizeof *request, *end = at + body_bytes;
    size_t count = 1, taken = 0;
    if (request->argument < 1 || request->argument > INIT_STRINGS_MAX || request->environment > INIT_STRINGS_MAX)
        return false;
    count += request->argument + request->environment;
    if (count > INIT_STRINGS_MAX - 1)
        return false;
    for (size_t i = 0; i < count; i++) {
        char *nul = memchr(at, 0, (size_t)(end - at));
        if (!nul)
            return false;
        if (i == 0) {
            wanted.folder = at;
            wanted.argv = strings;
        } else {
            strings[taken++] = at;
        }
        if (i == request->argument) {
            strings[taken++] = NULL;
            wanted.environment = strings + taken;
        }
        at = nul + 1;
    }
    strings[taken] = NULL;
    return at == end;
}

/* The value of PATH in the environment that was asked for; empty without one. */
static const char *search_path(void)
{
    for (char **variable = wanted.environment; *variable; variable++)
        if (strncmp(*variable, "PATH=", 5) == 0)
            return *variable + 5;
    return "";
}

/* execve, after a search as execvp has it: one that may not be executed is remembered while others are tried. */
static int execute(void)
{
    static char candidate[PATH_MAX];
    int error = ENOENT;
    if (strchr(wanted.argv[0], '/')) {
        execve(wanted.argv[0], wanted.argv, wanted.environment);
        return errno;
    }
    size_t name = strlen(wanted.argv[0]);
    for (const char *at = search_path(), *end; name && *at; at = *end ? end + 1 : end) {
        end = strchrnul(at, ':');
        size_t folder = (size_t)(end - at);
        if (folder == 0 || folder + name + 2 > sizeof candidate)
            continue;
        memcpy(candidate, at, folder);
        candidate[folder] = '/';
        memcpy(candidate + folder + 1, wanted.argv[0], name + 1);
        execve(candidate, wanted.argv, wanted.environment);
        if (errno == EACCES)
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return error;
}

/* In the vforked child: only system calls, then exec. Returns the errno that stopped it. */
static int become(void)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &usual, NULL);
    int input = open("/dev/null", O_RDONLY);
    if (input < 0 || dup2(input, 0) < 0 || dup2(INIT_FD_OUTPUT, 1) < 0 || dup2(INIT_FD_OUTPUT, 2) < 0)
        return errno;
    if (fcntl(INIT_FD_TELEMETRY, F_SETFD, 0) < 0)
        return errno;
    close(input);
    if (setsid() < 0)
        return errno;
    if (chdir(wanted.folder) < 0) {
        misplaced = true;
        return errno;
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return execute();
}

/* From now on this process's end is the sandbox's. */
static void take_on(pid_t pid)
{
    launched = pid;
    close(INIT_FD_OUTPUT);
    close(INIT_FD_TELEMETRY);
    report(INIT_STARTED, 0);
}

static void launch(size_t bytes)
{
    struct init_request request;
    static volatile int error;
    error = 0;
    misplaced = false;
    memcpy(&request, record, sizeof request);
    if (launched || !parse(&request, bytes - sizeof request)) {
        report(INIT_REFUSED, launched ? EALREADY : EINVAL);
        return;
    }
    pid_t pid = vfork();
    if (pid == 0) {
        error = become();
        _exit(127);
    }
    if (pid < 0)
        error = errno;
    if (error) {
        report(misplaced ? INIT_MISPLACED : INIT_REFUSED, error);
        return;
    }
    take_on(pid);
}

static void obey(size_t bytes)
{
    struct init_request request;
    memcpy(&request, record, sizeof request);
    if (request.magic != INIT_MAGIC)
        return report(INIT_REFUSED, EPROTO);
    switch (request.operation) {
    case INIT_LAUNCH:
        return launch(bytes);
    case INIT_STOP:
        kill(-1, SIGSTOP);
        return;
    case INIT_CONTINUE:
        kill(-1, SIGCONT);
        return;
    case INIT_SIGNAL:
        if (launched && request.argument < NSIG)
            kill(launched, (int)request.argument);
        return;
    default:
        return report(INIT_REFUSED, EPROTO);
    }
}

/* Ends this init when the launched process has ended: the kernel then kills whatever it left running. */
static void reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (launched && pid != launched)
            continue; /* before anything was launched a child is one that a zygote forked, and that failed */
        if (WIFSIGNALED(status))
            report(INIT_SIGNALED, WTERMSIG(status));
        else
            report(INIT_EXITED, WEXITSTATUS(status));
        _exit(0);
    }
}

static int watch_signals(void)
{
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, INIT_SIGNAL_ADOPT);
    sigprocmask(SIG_SETMASK, &watched, NULL);
    return signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void take_signals(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == INIT_SIGNAL_ADOPT) {
            if (!launched)
                take_on((pid_t)info.ssi_pid);
        } else if (info.ssi_signo != SIGCHLD && launched) {
            kill(launched, (int)info.ssi_signo);
        }
    reap();
}

static void take_record(void)
{
    ssize_t bytes = recv(INIT_FD_CONTROL, record, sizeof record, MSG_DONTWAIT | MSG_TRUNC);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0)
        _exit(0); /* the service is gone: so is this sandbox */
    if ((size_t)bytes < sizeof(struct init_request) || (size_t)bytes > sizeof record)
        return report(INIT_REFUSED, EMSGSIZE);
    obey((size_t)bytes);
}

int main(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* neither ptrace nor /proc/1/mem for the function, which has our uid */
    prctl(PR_SET_NAME, "init");
    for (int fd = INIT_FD_CONTROL; fd <= INIT_FD_OUTPUT; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(INIT_FD_TELEMETRY, F_SETFD, FD_CLOEXEC);
    int signals = watch_signals();
    if (signals < 0) {
        report(INIT_BROKEN, errno);
        return 1;
    }
    struct pollfd watched[] = {{.fd = INIT_FD_CONTROL, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    for (;;) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (watched[1].revents)
            take_signals(signals);
        if (watched[0].revents)
            take_record();
    }
}
