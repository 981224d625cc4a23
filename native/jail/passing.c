/* Notes with descriptors; see passing.h. */
#define _GNU_SOURCE
#include "passing.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PASSED_FDS_MAX 4

union control {
    char space[CMSG_SPACE(sizeof(int) * PASSED_FDS_MAX)];
    struct cmsghdr align;
};

int passing_send(int socket, const struct passed_note *note, const int *fds, unsigned count)
{
    union control control;
    struct iovec data = {.iov_base = (void *)(unsigned long)note, .iov_len = sizeof *note};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    if (count > PASSED_FDS_MAX)
        return -E2BIG;
    if (count) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int passing_receive(int socket, struct passed_note *note, int *fds, unsigned room)
{
    union control control;
    struct iovec data = {.iov_base = note, .iov_len = sizeof *note};
    struct msghdr header = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    unsigned count = 0;
    ssize_t got;
    do
        got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < room)
                fds[count++] = fd;
            else
                close(fd);
        }
    }
    note->step[sizeof note->step - 1] = 0;
    return got == (ssize_t)sizeof *note ? (int)count : -ECHILD;
}
