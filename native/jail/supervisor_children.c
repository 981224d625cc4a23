/* Starts the jail and the service; see supervisor.h. A child that cannot become
 * what it should be says so and exits with 78, which ends the supervisor. */
#define _GNU_SOURCE
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* No secret of the service's environment reaches the jail. */
static char *const JAIL_ENVIRONMENT[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL};

#define OOM_SCORE_JAIL "-900"
#define OOM_SCORE_SERVICE "-500"

#define SERVICE_NICE (-10)
#define SERVICE_SLICE_NS 100000 /* the shortest there is */

struct sched_attributes { /* the kernel's struct sched_attr, version 0, which libc does not declare */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

static void must(int result, const char *step)
{
    if (result < 0)
        supervisor_die(EXIT_CONFIGURATION, errno, "%s", step);
}

static void signals_as_usual(void)
{
    sigset_t none;
    sigemptyset(&none);
    must(sigprocmask(SIG_SETMASK, &none, NULL), "unblock signals");
    signal(SIGPIPE, SIG_DFL);
}

static void no_input(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    must(null, "open /dev/null");
    must(dup2(null, 0), "close standard input");
}

/* After every change of credentials: the kernel forgets it then. */
static void die_with(pid_t parent)
{
    must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "ask to die with the supervisor");
    if (getppid() != parent)
        _exit(EXIT_FAILED); /* it died before we asked */
}

/* When the host runs out of memory sandboxes go first (the jail gives them +500), then anything else, then the
 * service, and last whoever would have to start it again. An ordinary user may not ask for that: not an error. */
static void prefer_others_for_oom(const char *score)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, score, strlen(score)) < 0 && errno != EACCES)
        supervisor_say("out-of-memory score %s: %s", score, strerror(errno));
    close(fd);
}

/* Every call of every function passes the service: however busy they are, it must not wait for them. Its weight is
 * nine times an ordinary task's, and its short slice lets it take the CPU from one with a longer slice as soon as it
 * wakes (kernel 6.12; older ones ignore it). An ordinary user gets the slice alone: not an error. A session of its own,
 * because where the kernel groups tasks by session (sched_autogroup_enabled) it is the session's weight that counts. */
static void come_before_functions(void)
{
    struct sched_attributes mine = {
        .size = sizeof mine, .policy = SCHED_OTHER, .nice = SERVICE_NICE, .runtime_ns = SERVICE_SLICE_NS};
    int autogroup = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (autogroup >= 0) {
        if (dprintf(autogroup, "%d", SERVICE_NICE) < 0 && errno != EPERM)
            supervisor_say("weight of the service's session: %s", strerror(errno));
        close(autogroup);
    }
    if (syscall(SYS_sched_setattr, 0, &mine, 0) == 0)
        return;
    mine.nice = 0;
    if ((errno != EPERM && errno != EACCES) || syscall(SYS_sched_setattr, 0, &mine, 0) < 0)
        supervisor_say("weight of the service: %s", strerror(errno));
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    must((int)syscall(SYS_capset, &header, none), "drop capabilities");
    must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "drop ambient capabilities");
}

static void drop_bounding_set(void)
{
    for (int capability = 0; capability <= 63; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            if (errno == EINVAL)
                return; /* past the last one this kernel knows */
            must(-1, "empty the bounding set");
        }
}

static void become_service(const struct supervisor *s, pid_t parent)
{
    if (!s->rootless) {
        drop_bounding_set();
        must(setgroups(0, NULL), "leave root's groups");
        must(setresgid(s->gid, s->gid, s->gid), "take the service's group");
        must(setresuid(s->uid, s->uid, s->uid), "take the service's user");
    }
    drop_capabilities();
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up new privileges");
    die_with(parent);
}

static _Noreturn void service_child(const struct supervisor *s, pid_t parent)
{
    must(setsid(), "get a session"); /* Ctrl-C is the supervisor's to forward */
    prefer_others_for_oom(OOM_SCORE_SERVICE); /* while still root */
    come_before_functions();
    signals_as_usual();
    no_input();
    become_service(s, parent);
    must(setenv("STOKER_JAIL_SOCKET", s->socket_path, 1), "set the environment");
    must((int)close_range(3, ~0U, 0), "close descriptors");
    execvp(s->service[0], s->service);
    supervisor_die(EXIT_CONFIGURATION, errno, "start the service %s", s->service[0]);
}

pid_t supervisor_start_service(const struct supervisor *s)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        service_child(s, parent);
    return pid < 0 ? -errno : pid;
}

/* A user namespace of its own; the supervisor maps the ids when it is there. */
static void enter_user_namespace(int sync)
{
    char go;
    must(unshare(CLONE_NEWUSER), "make a user namespace (kernel.unprivileged_userns_clone?)");
    must(write(sync, "u", 1) == 1 ? 0 : -1, "tell the supervisor");
    if (read(sync, &go, 1) != 1)
        _exit(EXIT_CONFIGURATION); /* it said why */
    must(setresgid(0, 0, 0), "become the namespace's group 0");
    must(setresuid(0, 0, 0), "become the namespace's root");
}

static void exec_jail(const struct supervisor *s)
{
    char peer[16];
    char *argv[SUPERVISOR_ARGUMENTS_MAX + 8] = {(char *)s->jail, "--state-dir",
                                                (char *)s->state_path, "--peer-uid", peer};
    uint32_t count = 5;
    /* Inside its user namespace the jail sees the caller, and so the service, as 0. */
    snprintf(peer, sizeof peer, "%u", s->rootless ? 0 : s->uid);
    for (uint32_t i = 0; i < s->jail_argument_count; i++)
        argv[count++] = s->jail_arguments[i];
    execve(s->jail, argv, JAIL_ENVIRONMENT);
    supervisor_die(EXIT_CONFIGURATION, errno, "start the jail %s", s->jail);
}

static _Noreturn void jail_child(const struct supervisor *s, pid_t parent, int sync)
{
    must(setpgid(0, 0), "get a process group");
    prefer_others_for_oom(OOM_SCORE_JAIL);
    signals_as_usual();
    no_input();
    if (s->rootless)
        enter_user_namespace(sync);
    die_with(parent);
    if (s->listener_fd == JAIL_LISTENER_FD)
        must(fcntl(JAIL_LISTENER_FD, F_SETFD, 0), "keep the listener");
    else
        must(dup2(s->listener_fd, JAIL_LISTENER_FD), "hand over the listener");
    must((int)close_range(JAIL_LISTENER_FD + 1, ~0U, 0), "close descriptors");
    exec_jail(s);
    _exit(EXIT_CONFIGURATION);
}

static int map_when_ready(int sync, pid_t pid)
{
    char ready;
    if (read(sync, &ready, 1) != 1)
        return 0; /* the child failed and said why; its exit status tells the rest */
    int result = supervisor_map_ids(pid);
    if (result < 0) {
        supervisor_say("map the jail's ids: %s", strerror(-result));
        return 0;
    }
    return write(sync, "g", 1) == 1 ? 0 : -errno;
}

pid_t supervisor_start_jail(const struct supervisor *s)
{
    int sync[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sync) < 0)
        return -errno;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        jail_child(s, parent, sync[1]);
    int error = pid < 0 ? -errno : 0;
    close(sync[1]);
    if (pid > 0 && s->rootless)
        error = map_when_ready(sync[0], pid);
    close(sync[0]);
    return error < 0 ? error : pid;
}
