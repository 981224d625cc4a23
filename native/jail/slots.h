/* The table of sandboxes. For sandbox.c and create.c alone. */
#ifndef STOKER_JAIL_SLOTS_H
#define STOKER_JAIL_SLOTS_H

#include "cgroup.h"
#include "egress.h"
#include "sandbox.h"

#include <sys/types.h>

enum state { FREE, LIVE, DYING };

struct sandbox {
    enum state state;
    uint64_t handle;
    uint64_t destroy_id; /* request to answer when it is gone; 0: nobody asked */
    pid_t pid;           /* of the init, until reaped; then 0 */
    int pidfd;
    int channel;         /* of a zygote: where it takes requests; else -1 */
    uid_t owner;         /* of its user namespace: the slot's own, or the zygote's that forks into it */
    uid_t zygote_uid;    /* of a zygote: what it runs as, else 0 */
    int has_tmp, has_link, has_cgroup;
    int is_vm;
    uint32_t files;   /* of a VM: places in use */
    uint32_t mounted; /* bits of mount points in use */
    struct cgroup cgroup;
    struct egress_link link;
};

extern struct sandbox slots[SANDBOXES_MAX];

/* How many sandboxes there are, and how many of those are being taken apart. */
extern uint32_t slots_taken, slots_dying;

/* Handles of an earlier jail name nothing in this one. */
void slots_open(void);

/* The slot that is free for longest, LIVE now, or NULL. */
struct sandbox *slot_take(void);

/* Everything of its sandbox is gone. */
void slot_free(struct sandbox *sandbox);

/* The sandbox of a handle, unless it is gone. */
struct sandbox *slot_find(uint64_t handle);

uint32_t slot_of(const struct sandbox *sandbox);

/* Closes a descriptor that may be none (-1), and forgets it. */
void slot_close_fd(int *fd);

#endif
