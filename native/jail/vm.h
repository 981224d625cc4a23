/* Micro-VMs: a Firecracker started by its jailer, in a slot of its own like any sandbox.
 *
 * Nothing of a VM is on disk: its root is a tmpfs in a mount namespace that ends with it. The jail never speaks to the
 * VMM; the service does, through the folder /sockets of that root, where the API's socket and those of vsock appear.
 */
#ifndef STOKER_JAIL_VM_H
#define STOKER_JAIL_VM_H

#include "options.h"
#include "protocol.h"
#include "slots.h"

/* Whether there can be VMs: both programs are root's alone, /dev/kvm answers, and the base folder is there. */
int vms_open(const struct options *options);

/* Who may use those sockets: the group of the service that said hello. */
void vms_serve(gid_t group);

/* Fills answer->status and, on failure, answer->stage; *sandbox also when it failed half way. */
int vm_create(const struct jail_message *message, struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX],
              int egress, struct sandbox **sandbox);

/* More files for a running VM; answer->count is the number of the first. */
void vm_add_files(struct sandbox *sandbox, const struct jail_message *message, struct jail_answer *answer);

#endif
