/* Runs one system tool to its end; see system_tool.h. */
#define _GNU_SOURCE
#include "system_tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const FOLDERS[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin"};
static char *const ENVIRONMENT[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};

static int locate(const char *name, char *path, size_t size)
{
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        snprintf(path, size, "%s/%s", FOLDERS[i], name);
        if (access(path, X_OK) == 0)
            return 0;
    }
    return -ENOENT;
}

/* The whole text as a file, so that no pipe can fill up and block either side. */
static int text_file(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t length = text ? strlen(text) : 0;
    if (length > 0 && pwrite(fd, text, length, 0) != (ssize_t)length) {
        int error = errno ? errno : EIO;
        close(fd);
        return -error;
    }
    return fd;
}

static _Noreturn void child(const char *path, const char *const argv[], int input, int output)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(126);
    close_range(3, ~0U, 0);
    execve(path, (char *const *)argv, ENVIRONMENT);
    _exit(127);
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPROTO;
}

static int run(const char *path, const char *const argv[], int input, int output)
{
    pid_t pid = fork();
    if (pid == 0)
        child(path, argv, input, output);
    return pid < 0 ? -errno : wait_for(pid);
}

int system_tool_run(const char *const argv[], const char *input, char *said, size_t size)
{
    char path[256];
    said[0] = 0;
    int result = locate(argv[0], path, sizeof path);
    if (result < 0)
        return result;
    int in = text_file(input);
    int out = text_file(NULL);
    if (in < 0 || out < 0) {
        result = in < 0 ? in : out;
    } else {
        result = run(path, argv, in, out);
        ssize_t got = pread(out, said, size - 1, 0);
        said[got < 0 ? 0 : got] = 0;
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return result;
}
