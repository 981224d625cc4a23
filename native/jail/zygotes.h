/* How the jail has a zygote fork a process into a sandbox. For create.c alone. */
#ifndef STOKER_JAIL_ZYGOTES_H
#define STOKER_JAIL_ZYGOTES_H

#include "child.h"

/* Sends the zygote behind `channel` into the sandbox whose init is behind `pidfd`. 0 once it was asked, or -errno;
 * never blocks. Whether it succeeds is seen inside: by the init, and by the zygote's end when it does not. */
int zygotes_ask(int channel, int pidfd, const struct child_plan *plan);

#endif
