/* What the jail asks of a zygote: one SOCK_SEQPACKET message a fork, with descriptors in the order below. */
#ifndef STOKER_ZYGOTE_REQUEST_H
#define STOKER_ZYGOTE_REQUEST_H

#include <stdint.h>

#define ZYGOTE_MAGIC 0x475a4b53u

enum zygote_fd {
    ZYGOTE_FD_INIT,      /* pidfd of the PID 1 whose namespaces are to be entered */
    ZYGOTE_FD_OUTPUT,
    ZYGOTE_FD_TELEMETRY,
    ZYGOTE_FD_GROUPS,    /* from here on: files that take "0" from whoever joins a control group */
};

#define ZYGOTE_GROUPS_MAX 17
#define ZYGOTE_FDS_MAX (ZYGOTE_FD_GROUPS + ZYGOTE_GROUPS_MAX)

struct zygote_request {
    uint32_t magic;
    uint32_t open_files_max;
    uint32_t uid, gid; /* inside */
    uint32_t may_set_groups;
};

#endif
