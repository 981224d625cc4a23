/* stoker-supervisor: starts the jail (root, or a user namespace's root) and the
 * service (never root), keeps both running, and stops both.
 *
 *   stoker-supervisor --uid N --gid N --data DIR --run-dir DIR --jail FILE
 *       [--jail-arg ARG]... -- COMMAND [ARG]...
 *
 * Exits with 0 when told to stop or when the service ends with 0; 70 when a child keeps
 * failing, 75 when the data folder is in use, 78 when configuration is wrong.
 */
#define _GNU_SOURCE
#include "supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STABLE_MS 10000       /* a run this long was no failure to start */
#define FAILURES_MAX 6        /* in a row, before giving up */
#define BACK_OFF_FIRST_MS 100 /* doubles with each failure */
#define BACK_OFF_MAX_MS 5000
#define SERVICE_GRACE_MS 30000 /* Lambda lets functions finish: so does the service */
#define JAIL_GRACE_MS 10000

enum { JAIL, SERVICE, CHILDREN };

struct child {
    const char *name;
    pid_t (*start)(const struct supervisor *s);
    pid_t pid; /* 0: not running */
    int64_t started_ms;
    int64_t start_at_ms; /* when not running; INT64_MAX: never again */
    uint32_t failures;
};

static struct child children[CHILDREN] = {
    [JAIL] = {.name = "jail", .start = supervisor_start_jail},
    [SERVICE] = {.name = "service", .start = supervisor_start_service},
};
static int stopping;      /* a signal or an end asked for it */
static int exit_status;   /* what the supervisor will say */
static int64_t kill_at_ms; /* when the child being stopped is killed */

static void say(int error, const char *format, va_list arguments)
{
    char line[1024];
    int used = vsnprintf(line, sizeof line, format, arguments);
    if (error && used >= 0 && (size_t)used < sizeof line)
        snprintf(line + used, sizeof line - (size_t)used, ": %s", strerror(error));
    dprintf(STDERR_FILENO, "stoker-supervisor: %s\n", line);
}

void supervisor_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(0, format, arguments);
    va_end(arguments);
}

void supervisor_die(int status, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(error, format, arguments);
    va_end(arguments);
    exit(status);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- command line ------------------------------------------------------------ */

static const struct option OPTIONS[] = {
    {"uid", required_argument, NULL, 'u'},     {"gid", required_argument, NULL, 'g'},
    {"data", required_argument, NULL, 'd'},    {"run-dir", required_argument, NULL, 'r'},
    {"jail", required_argument, NULL, 'j'},    {"jail-arg", required_argument, NULL, 'a'},
    {0},
};

static uint32_t id(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || value >= UINT32_MAX)
        supervisor_die(EXIT_USAGE, 0, "'%s' is no user or group id", text);
    return (uint32_t)value;
}

static void take(struct supervisor *s, int option)
{
    switch (option) {
    case 'u': s->uid = id(optarg); return;
    case 'g': s->gid = id(optarg); return;
    case 'd': s->data = optarg; return;
    case 'r': s->run_dir = optarg; return;
    case 'j': s->jail = optarg; return;
    case 'a':
        if (s->jail_argument_count == SUPERVISOR_ARGUMENTS_MAX)
            supervisor_die(EXIT_USAGE, 0, "more than %d --jail-arg", SUPERVISOR_ARGUMENTS_MAX);
        s->jail_arguments[s->jail_argument_count++] = optarg;
        return;
    default:
        supervisor_die(EXIT_USAGE, 0, "usage: stoker-supervisor --uid N --gid N --data DIR "
                                      "--run-dir DIR --jail FILE [--jail-arg ARG]... -- COMMAND ...");
    }
}

static void parse(struct supervisor *s, int argc, char **argv)
{
    *s = (struct supervisor){.uid = (uid_t)-1, .gid = (gid_t)-1, .rootless = geteuid() != 0};
    for (int option; (option = getopt_long(argc, argv, "+", OPTIONS, NULL)) != -1;)
        take(s, option);
    if (s->uid == (uid_t)-1 || s->gid == (gid_t)-1 || !s->data || !s->run_dir || !s->jail ||
        optind == argc)
        take(s, '?');
    s->service = argv + optind;
    if (!s->rootless && (s->uid == 0 || s->gid == 0))
        supervisor_die(EXIT_USAGE, 0, "the service never runs as root: --uid and --gid");
    if (s->rootless && (s->uid != getuid() || s->gid != getgid()))
        supervisor_die(EXIT_USAGE, 0, "an ordinary user's service runs as that user: --uid %u --gid %u",
                       getuid(), getgid());
    if (s->data[0] != '/' || s->run_dir[0] != '/' || s->jail[0] != '/')
        supervisor_die(EXIT_USAGE, 0, "--data, --run-dir and --jail are absolute paths");
}

/* --- children ---------------------------------------------------------------- */

static void stop(int status)
{
    if (!stopping)
        exit_status = status;
    stopping = 1;
}

static void failed(struct child *child)
{
    int64_t delay = BACK_OFF_FIRST_MS << child->failures;
    if (delay > BACK_OFF_MAX_MS)
        delay = BACK_OFF_MAX_MS;
    if (++child->failures >= FAILURES_MAX) {
        supervisor_say("the %s failed %d times in a row, each within %d s of its start: giving up",
                       child->name, FAILURES_MAX, STABLE_MS / 1000);
        stop(EXIT_KEPT_FAILING);
        return;
    }
    child->start_at_ms = now_ms() + delay;
    supervisor_say("starting the %s again in %lld ms", child->name, (long long)delay);
}

static void describe(const struct child *child, int status)
{
    if (WIFSIGNALED(status))
        supervisor_say("the %s was killed by signal %d (%s)", child->name, WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        supervisor_say("the %s ended with status %d", child->name, WEXITSTATUS(status));
}

static void ended(struct child *child, int status)
{
    child->pid = 0;
    child->start_at_ms = INT64_MAX;
    if (stopping)
        return;
    describe(child, status);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CONFIGURATION) {
        stop(EXIT_CONFIGURATION);
        return;
    }
    if (child == &children[SERVICE] && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        stop(0);
        return;
    }
    if (now_ms() - child->started_ms >= STABLE_MS)
        child->failures = 0;
    failed(child);
}

/* 1 and the status when the child has ended. What the service started and left
 * goes with it, while its number cannot be anybody else's yet. */
static int has_ended(const struct child *child, int *status)
{
    siginfo_t info = {0};
    if (child->pid <= 0 ||
        waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
        return 0;
    if (child == &children[SERVICE])
        kill(-child->pid, SIGKILL);
    return waitpid(child->pid, status, 0) == child->pid;
}

static void reap(void)
{
    int status;
    for (int i = 0; i < CHILDREN; i++)
        if (has_ended(&children[i], &status))
            ended(&children[i], status);
}

static void start_due(const struct supervisor *s)
{
    for (int i = 0; i < CHILDREN && !stopping; i++) {
        struct child *child = &children[i];
        if (child->pid > 0 || now_ms() < child->start_at_ms)
            continue;
        child->started_ms = now_ms();
        child->pid = child->start(s);
        if (child->pid > 0)
            continue;
        supervisor_say("start the %s: %s", child->name, strerror(-child->pid));
        child->pid = 0;
        failed(child);
    }
}

/* --- signals and the loop ---------------------------------------------------- */

static int open_signals(void)
{
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &watched, NULL) < 0)
        supervisor_die(EXIT_FAILED, errno, "block signals");
    signal(SIGPIPE, SIG_IGN); /* a log reader that went away stops nobody */
    int fd = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        supervisor_die(EXIT_FAILED, errno, "signalfd");
    return fd;
}

static void take_signals(int fd)
{
    struct signalfd_siginfo got;
    while (read(fd, &got, sizeof got) == sizeof got) {
        if (got.ssi_signo == SIGCHLD)
            reap();
        else if (stopping)
            kill_at_ms = kill_at_ms ? 1 : 0; /* asked twice: wait no longer */
        else
            stop(0);
    }
}

/* The service first, the jail when it is gone. 1 when both are. */
static int stop_next(void)
{
    static struct child *current;
    struct child *next = children[SERVICE].pid > 0 ? &children[SERVICE]
                         : children[JAIL].pid > 0  ? &children[JAIL]
                                                   : NULL;
    if (!next)
        return 1;
    if (next != current) {
        current = next;
        kill_at_ms = now_ms() + (next == &children[SERVICE] ? SERVICE_GRACE_MS : JAIL_GRACE_MS);
        kill(next->pid, SIGTERM);
    } else if (now_ms() >= kill_at_ms) {
        supervisor_say("the %s did not stop: killing it", next->name);
        kill(-next->pid, SIGKILL);
        kill_at_ms = now_ms() + 1000;
    }
    return 0;
}

static int time_out_ms(void)
{
    int64_t next = stopping ? kill_at_ms : INT64_MAX;
    for (int i = 0; i < CHILDREN && !stopping; i++)
        if (children[i].pid == 0 && children[i].start_at_ms < next)
            next = children[i].start_at_ms;
    if (next == INT64_MAX)
        return -1;
    int64_t left = next - now_ms();
    return left < 0 ? 0 : (int)left;
}

int main(int argc, char **argv)
{
    struct supervisor s;
    parse(&s, argc, argv);
    struct pollfd signals = {.fd = open_signals(), .events = POLLIN};
    supervisor_set_up(&s);
    for (;;) {
        reap();
        start_due(&s);
        if (stopping && stop_next())
            return exit_status;
        if (poll(&signals, 1, time_out_ms()) < 0 && errno != EINTR)
            supervisor_die(EXIT_FAILED, errno, "poll");
        take_signals(signals.fd);
    }
}
