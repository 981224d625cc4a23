/* How the jail has a zygote fork a process into a sandbox, and what siblings share. */
#ifndef STOKER_JAIL_ZYGOTES_H
#define STOKER_JAIL_ZYGOTES_H

#include "child.h"

/* Sends the zygote behind `channel` into the sandbox whose init is behind `pidfd`. 0 once it was asked, or -errno;
 * never blocks. Whether it succeeds is seen inside: by the init, and by the zygote's end when it does not. */
int zygotes_ask(int channel, int pidfd, const struct child_plan *plan);

/* What the kernel counts for the owner of a user namespace, and lets the namespace itself limit further. */
#define ZYGOTES_SHARED 2
extern const char *const ZYGOTES_SHARED_PATHS[ZYGOTES_SHARED];

/* Reads what the host gives an owner. Once, at the start. */
void zygotes_open(void);

/* How much of that one of a zygote's sandboxes may have. */
unsigned long long zygotes_share(int which);

#endif
