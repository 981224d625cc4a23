/* Receives and checks requests, sends answers. Decides nothing and touches nothing but the socket. */
#define _GNU_SOURCE
#include "protocol.h"

#include "identity.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MEMORY_BYTES_MIN (1ull << 20)
#define MEMORY_BYTES_MAX (1ull << 42)
#define CPU_QUOTA_US_MIN 1000u
#define CPU_QUOTA_US_MAX 102400000u
#define PIDS_MAX 65536u
#define OPEN_FILES_MIN 64u
#define OPEN_FILES_MAX 1048576u

void protocol_close_fds(struct jail_message *message)
{
    for (unsigned i = 0; i < message->fd_count; i++)
        if (message->fds[i] >= 0)
            close(message->fds[i]);
    message->fd_count = 0;
}

/* Takes every descriptor that came, also surplus ones, so that none can leak. */
static int take_fds(struct msghdr *header, struct jail_message *message)
{
    int surplus = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (message->fd_count < JAIL_REQUEST_FDS_MAX) {
                message->fds[message->fd_count++] = fd;
            } else {
                close(fd);
                surplus = 1;
            }
        }
    }
    return surplus ? -E2BIG : 0;
}

static int limits_are_sane(const struct jail_limits *limits)
{
    return limits->memory_bytes >= MEMORY_BYTES_MIN && limits->memory_bytes <= MEMORY_BYTES_MAX &&
           limits->tmp_bytes >= MEMORY_BYTES_MIN && limits->tmp_bytes <= MEMORY_BYTES_MAX &&
           (limits->cpu_quota_us == 0 ||
        (limits->cpu_quota_us >= CPU_QUOTA_US_MIN && limits->cpu_quota_us <= CPU_QUOTA_US_MAX)) &&
           limits->cpu_weight <= 1 && limits->pids_max >= 1 && limits->pids_max <= PIDS_MAX &&
           limits->open_files_max >= OPEN_FILES_MIN && limits->open_files_max <= OPEN_FILES_MAX;
}

/* A root comes from the start, alone, and never for a process that was somewhere else before. */
static int root_is_sane(const struct jail_request *request)
{
    unsigned root = 1u << JAIL_ROOT;
    if (!(request->mounts & root))
        return !request->uid && !request->gid;
    return request->operation == JAIL_CREATE && request->mounts == root && !request->zygote &&
           !(request->flags & JAIL_ZYGOTE) && (request->uid || !request->gid) && request->uid < IDS_PER_SLOT &&
           request->gid < IDS_PER_SLOT;
}

/* What each operation may carry; anything else is refused, never ignored. */
static int check(const struct jail_message *message)
{
    const struct jail_request *request = &message->request;
    unsigned mounts = (unsigned)__builtin_popcount(request->mounts);
    int takes_files = request->operation == JAIL_VM || request->operation == JAIL_VM_FILES;
    unsigned fds = mounts + (request->operation == JAIL_IMAGE);
    if (request->magic != JAIL_MAGIC || request->version != JAIL_VERSION)
        return -EPROTO;
    if (request->mounts >> JAIL_MOUNT_POINTS || request->flags & ~(JAIL_EGRESS | JAIL_ZYGOTE) ||
        (takes_files ? !message->fd_count : fds != message->fd_count))
        return -EINVAL;
    if (request->zygote && (request->operation != JAIL_CREATE || request->flags & JAIL_ZYGOTE))
        return -EINVAL;
    if (!root_is_sane(request))
        return -EINVAL;
    switch (request->operation) {
    case JAIL_HELLO:
    case JAIL_COUNT:
    case JAIL_IMAGE:
    case JAIL_VOLUME:
        return mounts || request->flags || request->sandbox ? -EINVAL : 0;
    case JAIL_CREATE:
        return request->sandbox || !limits_are_sane(&request->limits) ? -EINVAL : 0;
    case JAIL_VM:
        return mounts || request->sandbox || request->flags & ~JAIL_EGRESS || !limits_are_sane(&request->limits) ? -EINVAL : 0;
    case JAIL_MOUNT:
        return !mounts || request->flags ? -EINVAL : 0;
    case JAIL_LIMITS:
        return mounts || request->flags || !limits_are_sane(&request->limits) ? -EINVAL : 0;
    case JAIL_DESTROY:
    case JAIL_VOLUME_IMAGE:
    case JAIL_UNMOUNT:
    case JAIL_ABORT:
    case JAIL_VM_FILES:
        return mounts || request->flags ? -EINVAL : 0;
    default:
        return -EPROTO;
    }
}

int protocol_receive(int socket, struct jail_message *message)
{
    union {
        char space[CMSG_SPACE(sizeof(int) * 253)]; /* SCM_MAX_FD: nothing is ever cut off */
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = &message->request, .iov_len = sizeof message->request};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    memset(message, 0, sizeof *message);
    ssize_t got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    int error = take_fds(&header, message);
    if (got == 0 && message->fd_count == 0 && error == 0)
        return 0;
    if (error == 0 && (got != sizeof message->request || header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        error = -EBADMSG;
    if (error == 0)
        error = check(message);
    if (error) {
        protocol_close_fds(message);
        return error;
    }
    return 1;
}

int protocol_answer(int socket, struct jail_answer *answer, const int fds[JAIL_ANSWER_FDS_MAX])
{
    union {
        char space[CMSG_SPACE(sizeof(int) * JAIL_ANSWER_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = answer, .iov_len = sizeof *answer};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    int passed[JAIL_ANSWER_FDS_MAX];
    unsigned count = 0;

    for (unsigned bit = 0; bit < JAIL_ANSWER_FDS_MAX; bit++)
        if (answer->fds & (1u << bit))
            passed[count++] = fds[bit];
    if (count) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), passed, sizeof(int) * count);
    }
    answer->magic = JAIL_MAGIC;
    answer->version = JAIL_VERSION;
    return sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}
