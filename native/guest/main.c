/* PID 1 of a micro-VM's guest: says hello to the host, puts the root together as it is told, starts the function's
 * init, carries its streams, and powers off.
 *
 * It trusts the host and nothing inside. No shell and no other program of its own runs beside it.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDLE_MS 100

static struct pollfd polled[POLLED_MAX];
static int polled_count;

int watch(int fd, short events)
{
    if (fd < 0 || polled_count == POLLED_MAX)
        return -1;
    polled[polled_count] = (struct pollfd){.fd = fd, .events = events};
    return polled_count++;
}

short happened(int place)
{
    return place < 0 ? 0 : polled[place].revents;
}

/* Onto the kernel's console, which production does not connect. */
static _Noreturn void give_up(const char *step, int error)
{
    char text[160];
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    int length = snprintf(text, sizeof text, "<0>stoker: %s: %s\n", step, strerror(-error));
    if (fd >= 0 && write(fd, text, (size_t)length) < 0)
        close(fd);
    power_off();
}

static int mount_kernel(void)
{
    mkdir("/proc", 0555);
    mkdir("/sys", 0555);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
        mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return -errno;
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") < 0 && errno != EBUSY)
        return -errno;
    return 0;
}

static int name_host(void)
{
    static const char name[] = "169-254-100-6";
    return sethostname(name, sizeof name - 1) < 0 ? -errno : 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} STEPS[] = {
    {"mounting the kernel's file systems", mount_kernel},
    {"opening the link to the host", link_open}, /* loads the modules, so before anything needs a device */
    {"raising loopback", machine_loopback},
    {"naming the host", name_host},
    {"opening the control group", function_open},
    {"opening the devices", places_open},
    {"reaching the host", control_connect}, /* last: a hello says that all of this went well */
};

static int watch_children(void)
{
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigprocmask(SIG_SETMASK, &watched, NULL);
    return signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void reap(int children)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;
    while (read(children, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        control_child_ended(pid, status);
}

int main(void)
{
    umask(0);
    for (size_t i = 0; i < COUNT(STEPS); i++) {
        int error = STEPS[i].run();
        if (error)
            give_up(STEPS[i].name, error);
    }
    int children = watch_children();
    for (;;) {
        polled_count = 0;
        int ended = watch(children, POLLIN);
        control_watch();
        relay_watch();
        if (link_is_serial())
            serial_watch();
        if (poll(polled, (nfds_t)polled_count, function_launched() ? IDLE_MS : -1) < 0 && errno != EINTR)
            power_off();
        if (link_is_serial())
            serial_work();
        relay_work();
        if (happened(ended))
            reap(children);
        control_work();
        if (link_is_serial())
            serial_work();
    }
}
