/* What the init of a guest and the host say to each other; docs/guest.md explains it.
 *
 * All numbers are little-endian. The guest trusts the host; the host bounds and checks every byte of the guest.
 * src/stoker/sandbox/guest/contract.py mirrors this file.
 */
#ifndef STOKER_GUEST_CONTRACT_H
#define STOKER_GUEST_CONTRACT_H

#include <stdint.h>

#define GUEST_VERSION 1u
#define GUEST_MAGIC 0x54534753u /* "SGST" */

/* Ports of the host (CID 2) that the guest connects to; nothing ever connects to the guest. */
#define GUEST_PORT_CONTROL 5000u   /* records, one connection for the guest's life */
#define GUEST_PORT_OUTPUT 5001u    /* standard output and standard error, raw */
#define GUEST_PORT_TELEMETRY 5002u /* the framed log pipe, raw */
#define GUEST_PORT_RUNTIME 9001u   /* a connection for each that the function opens to 127.0.0.1:9001 */
#define GUEST_PORT_SERVICE 9797u   /* likewise 127.0.0.1:9797 */

/* Block devices, in the order in which the VMM has them: /dev/vda is the root. */
enum guest_place {
    GUEST_ROOT = 0,
    GUEST_SCRATCH = 1, /* ext4, becomes /tmp; without a file system /tmp is a tmpfs */
    GUEST_TASK = 2,
    GUEST_OPT = 3,
    GUEST_RUNTIME = 4,
    GUEST_LANG = 5,
    GUEST_CODE_CACHE = 6,
    GUEST_PLACES = 7,
};

#define GUEST_CONNECTIONS_MAX 32 /* that the function has open to both APIs at one time */
#define GUEST_BODY_BYTES_MAX (160u * 1024u)
#define GUEST_REPLY_BYTES_MAX 256u

struct guest_record {
    uint32_t magic;
    uint32_t kind;
    uint32_t argument;
    uint32_t body_bytes;
};

/* From the host. Each is answered by one GUEST_DONE with the same kind as its argument, LAUNCH and SIGNAL by
 * none (LAUNCH by reports), POWER_OFF by the end. */
enum guest_order {
    GUEST_ENTROPY = 1,   /* body: 1 to 512 random bytes; credited, and the generator is reseeded */
    GUEST_CLOCK = 2,     /* body: struct guest_clock */
    GUEST_NETWORK = 3,   /* body: struct guest_network; configures eth0 */
    GUEST_LIMITS = 4,    /* body: struct guest_limits; ids count before GUEST_MOUNT of the root only */
    GUEST_MOUNT = 5,     /* argument: bits of places (1 << place); the root comes with or before all others */
    GUEST_LAUNCH = 6,    /* body: an INIT_LAUNCH record as native/init/control.h has it */
    GUEST_SIGNAL = 7,    /* argument: the signal for the launched process */
    GUEST_HOLD = 8,      /* argument 1: connections to the APIs wait, unopened, from now on; 0: they go on */
    GUEST_PING = 9,      /* nothing but the answer */
    GUEST_POWER_OFF = 10,
};

/* From the guest. */
enum guest_answer {
    GUEST_HELLO = 64,  /* first on every control connection; body: struct guest_hello */
    GUEST_DONE = 65,   /* argument: the order's kind; body: struct guest_done */
    GUEST_REPORT = 66, /* body: an init_report as native/init/control.h has it */
    GUEST_MEMORY = 67, /* body: struct guest_memory; when it changed, at most every 100 ms, and before an end's report */
    GUEST_HELD = 68,   /* a connection waits because of GUEST_HOLD */
};

struct guest_clock {
    int64_t seconds; /* since 1970, UTC */
    int64_t nanoseconds;
};

struct guest_network { /* IPv4 in network order; no gateway or server: 0 */
    uint32_t address;
    uint32_t prefix_bits;
    uint32_t gateway;
    uint32_t dns[3];
};

struct guest_limits {
    uint64_t memory_bytes; /* of the function, by its control group; the VM has more */
    uint32_t pids_max;
    uint32_t open_files_max;
    uint32_t uid;
    uint32_t gid;
};

struct guest_hello {
    uint32_t version;
    uint32_t launched;     /* whether a process was launched: a control connection after a restored snapshot */
    uint64_t uptime_ns;    /* since the kernel's start */
    uint64_t memory_bytes; /* that the kernel has */
    char release[64];      /* the kernel's, ending in NUL */
};

struct guest_done {
    int32_t error;  /* an errno, or 0 */
    char step[124]; /* what failed, ending in NUL */
};

struct guest_memory {
    uint64_t current_bytes;
    uint64_t peak_bytes;
    uint64_t oom_kills;
};

/* Where there is no vsock: every connection is a channel on one virtio-serial port of this name. */
#define GUEST_SERIAL_NAME "stoker.link"
#define GUEST_CHANNELS_MAX 40
#define GUEST_FRAME_BYTES_MAX 16384u
#define GUEST_WINDOW_BYTES 65536u

struct guest_frame {
    uint16_t channel; /* the guest alone opens channels, and a number is free again when both sides closed it */
    uint8_t kind;
    uint8_t reserved;
    uint32_t argument; /* DATA: bytes that follow; OPEN: port; CREDIT: bytes more that the receiver takes */
};

enum guest_frame_kind {
    GUEST_FRAME_OPEN = 1,
    GUEST_FRAME_DATA = 2,  /* within the window, which begins at GUEST_WINDOW_BYTES */
    GUEST_FRAME_END = 3,   /* no more data from this side */
    GUEST_FRAME_RESET = 4, /* the other side's data is thrown away from now on; counts as END too */
    GUEST_FRAME_CREDIT = 5,
};

#endif
