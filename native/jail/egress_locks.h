/* Who has egress on this host: a lock a jail, and the record of links that were
 * switched to forwarding. Files in /run, apart for each network namespace, since
 * tables, links and sysctls are. Knows nothing of what the instances do.
 */
#ifndef STOKER_EGRESS_LOCKS_H
#define STOKER_EGRESS_LOCKS_H

#include <stdint.h>

/* First of all: the network namespace that locks and record are about. */
int egress_locks_open(int netns_fd);

/* The lock of an instance: an fd, -EWOULDBLOCK when another jail has it, -errno.
 * It ends with the process, and its file with egress_unlock_instance(). */
int egress_lock_instance(uint32_t instance);
void egress_unlock_instance(uint32_t instance, int fd);

/* Whether a jail other than this instance has egress here. Ask it, and give the
 * own lock back, while holding the record: then the last one knows it is. */
int egress_others_live(uint32_t instance);

/* The record, locked (waits for the other jail's few system calls); an fd whose
 * closing unlocks it, or -errno. The caller reads and writes link names, a line each. */
int egress_lock_record(void);
void egress_remove_record(void);

#endif
