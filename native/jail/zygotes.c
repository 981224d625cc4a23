/* One record with descriptors to a zygote; see zygotes.h and zygote/request.h. */
#define _GNU_SOURCE
#include "zygotes.h"

#include "files.h"

#include "../zygote/request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

_Static_assert(ZYGOTE_JOINS_MAX >= CGROUP_JOINS_MAX, "one way in for each hierarchy");

#define SIBLINGS_MAX 64 /* as worker/zygotes.py has them */
#define SHARE_LEAST 2ull

const char *const ZYGOTES_SHARED_PATHS[ZYGOTES_SHARED] = {"/proc/sys/user/max_inotify_instances",
                                                          "/proc/sys/user/max_inotify_watches"};
static unsigned long long shares[ZYGOTES_SHARED] = {SHARE_LEAST, SHARE_LEAST};

void zygotes_open(void)
{
    char text[24];
    for (int i = 0; i < ZYGOTES_SHARED; i++)
        if (files_read(AT_FDCWD, ZYGOTES_SHARED_PATHS[i], text, sizeof text) > 0 &&
            strtoull(text, NULL, 10) / SIBLINGS_MAX > SHARE_LEAST)
            shares[i] = strtoull(text, NULL, 10) / SIBLINGS_MAX;
}

unsigned long long zygotes_share(int which)
{
    return shares[which];
}

static int send_record(int channel, const struct zygote_request *request, const int *fds, unsigned count)
{
    union {
        char space[CMSG_SPACE(sizeof(int) * ZYGOTE_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = (void *)(unsigned long)request, .iov_len = sizeof *request};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control};
    memset(&control, 0, sizeof control);
    header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    return sendmsg(channel, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int zygotes_ask(int channel, int pidfd, const struct child_plan *plan)
{
    struct zygote_request request = {
        .magic = ZYGOTE_MAGIC,
        .open_files_max = plan->surrender.open_files_max,
        .uid = plan->surrender.uid,
        .gid = plan->surrender.gid,
        .may_set_groups = (uint32_t)plan->surrender.may_set_groups,
    };
    int fds[ZYGOTE_FDS_MAX] = {pidfd, plan->output, plan->telemetry};
    unsigned count = ZYGOTE_FD_JOINS;
    for (int i = 0; i < CGROUP_JOINS_MAX; i++)
        if (plan->entry.joins[i] >= 0)
            fds[count++] = plan->entry.joins[i];
    request.joins = count - ZYGOTE_FD_JOINS;
    if (plan->entry.into >= 0)
        fds[count++] = plan->entry.into;
    return send_record(channel, &request, fds, count);
}
