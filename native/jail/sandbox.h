/* The sandboxes of this jail: making, changing and ending them.
 *
 * A slot (with its ids, /tmp and control group) is used again only after everything of its last sandbox is gone.
 */
#ifndef STOKER_JAIL_SANDBOX_H
#define STOKER_JAIL_SANDBOX_H

#include "protocol.h"

#define SANDBOXES_MAX 4096

struct sandbox_host {
    int template; /* mount namespace */
    int init;     /* program */
    int egress;   /* whether links can be had */
    int terminal; /* whether the jail still has one */
    int zygotes;  /* whether there may be any */
};

void sandbox_open(const struct sandbox_host *host);

/* Each fills answer->status and, on failure, answer->stage. `fds` are the caller's to close afterwards. */
void sandbox_create(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX]);
void sandbox_create_vm(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX]);
void sandbox_add_files(const struct jail_message *message, struct jail_answer *answer);
void sandbox_mount(const struct jail_message *message, struct jail_answer *answer);
void sandbox_limit(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX]);

/* Starts the end of a sandbox; `done` is called, perhaps at once, when nothing of it is left. */
typedef void (*sandbox_done)(uint64_t id, uint64_t sandbox, int status);
int sandbox_destroy(uint64_t sandbox, uint64_t id);
uint32_t sandbox_destroy_all(void);
void sandbox_on_done(sandbox_done done);

/* How a descriptor is watched for the slot's end, and no longer; sandbox_ended is to be called once it is readable.
 * Unwatching matters: the service holds the same open file, so closing ours would not end the watch. */
typedef void (*sandbox_watch)(int pidfd, uint32_t slot);
typedef void (*sandbox_unwatch)(int pidfd);
void sandbox_on_watch(sandbox_watch watch, sandbox_unwatch unwatch);
void sandbox_ended(uint32_t slot);

/* Tries again what could not be removed at once. Returns how many dead sandboxes still wait for that. */
uint32_t sandbox_retry(void);

/* How many were told to end and are not gone; and kills those again that still run: on cgroup v1 the service can
 * freeze one again before it takes the signal. */
uint32_t sandbox_dying(void);
void sandbox_insist(void);
uint32_t sandbox_count(void);

#endif
