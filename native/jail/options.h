/* The jail's command line: all it is ever told besides its fixed records. */
#ifndef STOKER_JAIL_OPTIONS_H
#define STOKER_JAIL_OPTIONS_H

#include "egress.h"

#include <stdint.h>
#include <sys/types.h>

struct options {
    const char *state;  /* a folder of the jail's own */
    const char *init;   /* program that becomes PID 1 of sandboxes */
    const char *firecracker, *jailer; /* programs for VMs, or NULL */
    const char *socket; /* for tests: listen here instead of on descriptor 3 */
    char instance[40];  /* tells this jail's control groups from another's */
    uid_t peer_uid;
    uint32_t id_base;
    uint64_t tmp_capacity_bytes;
    struct egress_config egress;
    int rootless;
    int only_v1; /* ignore a cgroup v2 hierarchy */
    int images_by_loop; /* as on kernels before 6.12 */
    int listener;
};

/* Exits with a message when the command line is wrong, or another jail uses the state folder. */
void options_parse(int argc, char **argv, struct options *options);

#endif
