/* What the jail asks of a zygote: one SOCK_SEQPACKET message a fork, with descriptors in the order below. */
#ifndef STOKER_ZYGOTE_REQUEST_H
#define STOKER_ZYGOTE_REQUEST_H

#include <stdint.h>

#define ZYGOTE_MAGIC 0x475a4b53u

enum zygote_fd {
    ZYGOTE_FD_INIT,      /* pidfd of the PID 1 whose namespaces are to be entered */
    ZYGOTE_FD_OUTPUT,
    ZYGOTE_FD_TELEMETRY,
    ZYGOTE_FD_JOINS,     /* from here on: v1's files that take "0" from whoever joins; then v2's group, if there is one */
};

#define ZYGOTE_JOINS_MAX 8
#define ZYGOTE_FDS_MAX (ZYGOTE_FD_JOINS + ZYGOTE_JOINS_MAX + 1)

struct zygote_request {
    uint32_t magic;
    uint32_t open_files_max;
    uint32_t uid, gid; /* inside */
    uint32_t may_set_groups;
    uint32_t joins;
};

#endif
