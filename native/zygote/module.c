/* The Python module of a zygote: serve(channel) waits for requests and forks; it returns in the children alone.
 *
 * It runs runtime code only, never a function's, and takes nothing from anyone but the jail.
 */
#define _GNU_SOURCE
#include "enter.h"
#include "python_abi.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct zygote_request request;
static int fds[ZYGOTE_FDS_MAX];

/* How many descriptors came with a request; the zygote ends with the jail, and with anything it does not understand. */
static unsigned receive(int channel)
{
    union {
        char space[CMSG_SPACE(sizeof fds)];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = &request, .iov_len = sizeof request};
    struct msghdr header = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    do
        got = recvmsg(channel, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        _exit(0);
    struct cmsghdr *c = got == (ssize_t)sizeof request ? CMSG_FIRSTHDR(&header) : NULL;
    if (!c || c->cmsg_type != SCM_RIGHTS || header.msg_flags & MSG_CTRUNC || request.magic != ZYGOTE_MAGIC)
        _exit(2);
    unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    if (request.joins > ZYGOTE_JOINS_MAX || count - request.joins - ZYGOTE_FD_JOINS > 1)
        _exit(2);
    memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    return count;
}

/* A sandbox that ended meanwhile is no failure of ours; anything else would only happen again. */
static void check(int status)
{
    struct pollfd ended = {.fd = fds[ZYGOTE_FD_INIT], .events = POLLIN};
    if (!(WIFEXITED(status) && WEXITSTATUS(status) == ENTER_DONE) && poll(&ended, 1, 0) != 1)
        _exit(3);
}

/* 1 in the new process, 0 here. */
static int fork_one(unsigned count)
{
    int status = 0;
    PyOS_BeforeFork();
    pid_t pid = enter_fork(count > ZYGOTE_FD_JOINS + request.joins ? fds[count - 1] : -1);
    if (pid == 0) {
        enter(&request, fds);
        PyOS_AfterFork_Child();
        return 1;
    }
    PyOS_AfterFork_Parent();
    if (pid < 0) {
        perror("zygote: forking");
        _exit(3);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    check(status);
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
    return 0;
}

static PyObject *serve(PyObject *module, PyObject *argument)
{
    (void)module;
    int channel = (int)PyLong_AsLong(argument);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    while (!fork_one(receive(channel)))
        ;
    return Py_BuildValue("");
}

static PyMethodDef METHODS[] = {
    {"serve", serve, METH_O, "Fork into sandboxes as the jail asks on this descriptor; returns in the children."},
    {0},
};

static PyModuleDef DEFINITION = {.references = 1, .name = "stoker_zygote", .size = -1, .methods = METHODS};

__attribute__((visibility("default"))) PyObject *PyInit_stoker_zygote(void);

PyObject *PyInit_stoker_zygote(void)
{
    return PyModule_Create2(&DEFINITION, PYTHON_ABI_VERSION);
}
