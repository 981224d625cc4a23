/* The records on the socket between the service and the init inside a sandbox.
 *
 * They are read only inside the sandbox, with the sandbox's own rights. One record is one SOCK_SEQPACKET message.
 * Closing the service's end ends the sandbox. src/stoker/sandbox/container_launch.py mirrors this file.
 */
#ifndef STOKER_INIT_CONTROL_H
#define STOKER_INIT_CONTROL_H

#include <signal.h>
#include <stdint.h>

#define INIT_MAGIC 0x4e494b53u
#define INIT_RECORD_BYTES_MAX (128u * 1024u)
#define INIT_STRINGS_MAX 4096u

/* Descriptors the init is started with, and the telemetry pipe's number in the launched process. */
#define INIT_FD_CONTROL 3
#define INIT_FD_OUTPUT 4
#define INIT_FD_CHANNEL 61 /* in a zygote's sandbox: where the jail's requests come from */
#define INIT_FD_TELEMETRY 62

/* Sent by a process that a zygote forked into a sandbox where nothing was launched: it takes the launched one's place. */
#define INIT_SIGNAL_ADOPT SIGUSR1

enum init_operation {
    INIT_LAUNCH = 1,   /* body: folder, argv..., environment..., each ending in NUL. Legal once. argv[0] without a
                        * slash is looked for in that environment's PATH */
    INIT_STOP = 2,     /* SIGSTOP to everything, for hosts without a freezer */
    INIT_CONTINUE = 3, /* SIGCONT to everything */
    INIT_SIGNAL = 4,   /* argument: signal for the launched process */
};

struct init_request {
    uint32_t magic;
    uint32_t operation;
    uint32_t argument; /* INIT_SIGNAL: number; INIT_LAUNCH: count of argv */
    uint32_t environment; /* INIT_LAUNCH: count of variables */
};

enum init_report_kind {
    INIT_STARTED = 1, /* the process executes */
    INIT_REFUSED = 2, /* it could not be started: value is an errno */
    INIT_EXITED = 3,  /* value is its exit status */
    INIT_SIGNALED = 4, /* value is the signal that ended it */
    INIT_BROKEN = 5,  /* the sandbox could not be finished: value is an errno */
    INIT_MISPLACED = 6, /* it was not started, because its folder could not be entered: value is an errno */
};

struct init_report {
    uint32_t magic;
    uint32_t kind;
    int32_t value;
    uint32_t reserved;
};

#endif
