/* What this host offers for sandboxes: found out, and opened, once at the jail's start. */
#ifndef STOKER_JAIL_HOST_H
#define STOKER_JAIL_HOST_H

#include "options.h"
#include "sandbox.h"

#include <stdint.h>

struct host {
    uint32_t features, degraded; /* bits of jail_answer */
    uint32_t tmp_kind;
    int dns[2]; /* UDP and TCP, where a resolver is to be served; -1: nowhere */
    struct sandbox_host sandboxes;
};

/* Ends the jail where no sandbox could be had; what is missing otherwise becomes a bit of `degraded`. */
void host_open(const struct options *options, struct host *host);

/* Says what failed, and ends the jail. */
_Noreturn void host_fail(const char *what, const char *detail, int error);

#endif
