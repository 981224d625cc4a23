/* Makes one sandbox: an ordered checklist. For sandbox.c alone. */
#ifndef STOKER_JAIL_CREATE_H
#define STOKER_JAIL_CREATE_H

#include "slots.h"

/* 0, or a negative errno with answer->stage set. *sandbox is what came of it, also on failure: then the caller
 * ends it. NULL when there was no slot. The descriptors of answer->fds are the caller's to close. */
int create(const struct sandbox_host *host, const struct jail_message *message, struct jail_answer *answer,
           int fds[JAIL_ANSWER_FDS_MAX], struct sandbox **sandbox);

#endif
