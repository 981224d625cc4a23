/* The tap device of a VM, and the way from it to the egress link: the namespace between them is a router that answers
 * for both sides, so that the guest simply has the link's address. */
#ifndef STOKER_JAIL_TAP_H
#define STOKER_JAIL_TAP_H

#include "egress.h"

#include <sys/types.h>

#define TAP_NAME "tap0"

/* In the caller's network namespace, where the link's end is eth0 already. 0 or -errno. */
int tap_make(uid_t owner, const struct egress_link *link);

#endif
