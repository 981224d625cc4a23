/* What the parts of a guest's init share. One process, one thread, one poll loop; nothing is allocated. */
#ifndef STOKER_GUEST_H
#define STOKER_GUEST_H

#include "contract.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define POLLED_MAX 256

/* poll() over whatever each part asks for, anew each time. */
int watch(int fd, short events);     /* returns the place to ask `happened` with; -1: no room, and nothing happens */
short happened(int place);

/* link.c: streams to the host. */
int link_open(void);                 /* from the kernel's command line; -errno */
int link_connect(uint32_t port);     /* a non-blocking socket, or -errno */
bool link_is_serial(void);
void serial_watch(void);             /* link_serial.c: the channels where there is no vsock */
void serial_work(void);
int serial_open(void);
int serial_connect(uint32_t port);

/* relay.c: bytes between the function and the host. */
int relay_listen(void);              /* on loopback, inside the root; 0 or -errno */
int relay_outputs(int output, int telemetry); /* pipes' read ends, -1: none yet; opens their streams */
void relay_hold(bool hold);
bool relay_has_held(void);           /* once, when a connection waits for the hold's end */
bool relay_outputs_empty(void);      /* nothing that was written is on its way in this process */
void relay_watch(void);
void relay_work(void);
void relay_reset(void);              /* the host's ends are gone */

/* machine.c: what the host tells about the machine. 0 or -errno. */
int machine_modules(bool serial);
int machine_entropy(const void *bytes, size_t count);
int machine_clock(const struct guest_clock *clock);
int machine_loopback(void);
int machine_network(const struct guest_network *network);
const char *machine_resolv_conf(void);

/* places.c: the root and what is mounted in it. 0 or -errno, with what failed in *step. */
int places_open(void);               /* before the root is entered */
int places_mount(uint32_t bits, uid_t uid, gid_t gid, const char **step);
bool places_ready(void);             /* the root is entered */

/* function.c: the launched process and its control group. */
int function_open(void);             /* before the root is entered */
int function_limit(const struct guest_limits *limits);
int function_launch(const void *record, size_t bytes, const struct guest_limits *limits, const char **step);
void function_signal(int number);
bool function_launched(void);
int function_reports(void);          /* where its reports come from; -1: none any more */
bool function_reaped(pid_t pid);     /* whether that was it */
struct guest_memory function_memory(void);

/* control.c */
int control_connect(void);           /* opens the outputs' streams too; 0 or -errno */
void control_watch(void);
void control_work(void);
void control_child_ended(pid_t pid, int status);
_Noreturn void power_off(void);

#endif
