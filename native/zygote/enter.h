/* The way of a zygote's child into a sandbox. Knows nothing of Python. */
#ifndef STOKER_ZYGOTE_ENTER_H
#define STOKER_ZYGOTE_ENTER_H

#include "request.h"

#include <sys/types.h>

/* How a fork that did not come about shows in the exit status of the process that tried. */
enum { ENTER_DONE = 0, ENTER_FAILED = 1 };

/* Forks the zygote, into the control group (v2) behind `group` unless that is -1: joining one later waits for every CPU
 * of the host. As fork. */
pid_t enter_fork(int group);

/* To be called in that fork: does not return there. Returns in a process that is the sandbox's own: child
 * of its init, with its ids, namespaces, control groups and descriptors, and without any right. */
void enter(const struct zygote_request *request, const int *fds);

#endif
