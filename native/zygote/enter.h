/* The way of a zygote's child into a sandbox. Knows nothing of Python. */
#ifndef STOKER_ZYGOTE_ENTER_H
#define STOKER_ZYGOTE_ENTER_H

#include "request.h"

/* How a fork that did not come about shows in the exit status of the process that tried. */
enum { ENTER_DONE = 0, ENTER_FAILED = 1 };

/* To be called in a fork of the zygote: does not return there. Returns in a process that is the sandbox's own: child
 * of its init, with its ids, namespaces, control groups and descriptors, and without any right. */
void enter(const struct zygote_request *request, const int *fds, unsigned count);

#endif
