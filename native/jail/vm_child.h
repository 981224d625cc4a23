/* The process that becomes a VMM: furnishes the root its jailer will lock it into. */
#ifndef STOKER_JAIL_VM_CHILD_H
#define STOKER_JAIL_VM_CHILD_H

#include "cgroup.h"
#include "egress.h"
#include "protocol.h"

#include <stdint.h>
#include <sys/types.h>

#define VM_FILES_MAX 32 /* places /f0, /f1, ... of a VM's root */

struct vm_plan {
    const char *firecracker, *jailer, *base;
    char id[24];
    uid_t id_of_vm; /* user and group */
    gid_t service;  /* its group, for /sockets */
    int notes, jail_notes, output;
    int files[JAIL_REQUEST_FDS_MAX]; /* detached mounts */
    unsigned file_count;
    const struct egress_link *link; /* NULL: no network */
    uint64_t largest_file_bytes;
    uint32_t open_files_max;
    struct cgroup_entry entry;
};

_Noreturn void vm_child_run(const struct vm_plan *plan);

#endif
