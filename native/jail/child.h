/* What the first process of a sandbox does to itself before it becomes the init: an ordered checklist.
 *
 * It starts with every capability inside its new user namespace and none outside, and ends with none at all.
 */
#ifndef STOKER_JAIL_CHILD_H
#define STOKER_JAIL_CHILD_H

#include "cgroup.h"
#include "protocol.h"
#include "surrender.h"

struct child_plan {
    int notes;   /* to and from the jail */
    int jail_notes; /* its end: closed first, or the jail's death would go unnoticed */
    int control; /* the init's end */
    int output;  /* write end */
    int telemetry;
    int tmp; /* detached mount */
    int folders[JAIL_MOUNT_POINTS]; /* detached mounts, or -1 */
    int init; /* program */
    int channel; /* of a zygote, else -1 */
    int siblings; /* whether others belong to the same owner */
    struct cgroup_entry entry;
    int leave_session;
    struct surrender_plan surrender;
};

enum { CHILD_RUNTIME_API, CHILD_SERVICE_API, CHILD_RUNTIME_SOCKET, CHILD_LISTENERS };

/* Sends a note with the listeners once its namespaces are furnished, waits for the jail's note that its ids
 * are set, gives everything up and executes the init. */
_Noreturn void child_run(const struct child_plan *plan);

#endif
