/* The records that cross the jail's socket, and how they are received and sent.
 *
 * One request is one SOCK_SEQPACKET message of exactly sizeof(struct jail_request) bytes with at most
 * JAIL_REQUEST_FDS_MAX descriptors; one answer is one message of sizeof(struct jail_answer). Numbers only: no
 * path and no string ever comes from the peer. src/stoker/sandbox/container_protocol.py mirrors this file.
 */
#ifndef STOKER_JAIL_PROTOCOL_H
#define STOKER_JAIL_PROTOCOL_H

#include <stdint.h>

#define JAIL_MAGIC 0x4b4c4a53u
#define JAIL_VERSION 6
#define JAIL_REQUEST_FDS_MAX 12
#define JAIL_ANSWER_FDS_MAX 18
#define JAIL_STAGE_BYTES 64

enum jail_operation {
    JAIL_HELLO = 1,   /* take over: whatever an earlier connection made is destroyed */
    JAIL_CREATE = 2,  /* make an empty sandbox */
    JAIL_MOUNT = 3,   /* put read-only folders into it */
    JAIL_LIMITS = 4,  /* change memory, CPU, pids, files, /tmp; answered with the control group's descriptors
                       * where it became another one */
    JAIL_DESTROY = 5, /* end it; answered when nothing of it is left */
    JAIL_COUNT = 6,   /* how many sandboxes live or are being taken apart */
    JAIL_IMAGE = 7,   /* mount the EROFS image in the regular file that comes along */
    JAIL_VOLUME = 8,  /* make a volume: a FUSE file system of one file, served by whoever gets its device */
    JAIL_VOLUME_IMAGE = 9, /* mount the EROFS image in a volume, which keeps its handle */
    JAIL_UNMOUNT = 10,     /* an image, or a volume with its image; sandboxes keep theirs */
    JAIL_ABORT = 11,       /* every read of a volume fails from now on */
    JAIL_VM = 12,          /* start a VMM by its jailer; the files that come along are /f0, /f1, ... of its root, writable
                            * where their descriptors are. limits.tmp_bytes is the largest file it may write */
    JAIL_VM_FILES = 13,    /* more of them; answered with the number of the first */
};

/* Bits of jail_request.mounts; descriptors follow in this order. JAIL_ROOT is for CREATE alone and for itself alone:
 * the sandbox's root is that folder then, and nothing of the host's programs is in it. */
enum jail_mount_point { JAIL_TASK, JAIL_OPT, JAIL_RUNTIME, JAIL_LANG, JAIL_CODE_CACHE, JAIL_ROOT, JAIL_MOUNT_POINTS };

/* Bits of jail_request.flags. */
#define JAIL_EGRESS 1u
#define JAIL_ZYGOTE 2u /* CREATE: it will hold a zygote, and no function ever */

struct jail_limits {
    uint64_t memory_bytes;
    uint64_t tmp_bytes;
    uint32_t cpu_quota_us; /* per period of 100 ms; 0: unthrottled */
    uint32_t cpu_weight;   /* 0: cpu_quota_us caps; 1: it only weighs */
    uint32_t pids_max;
    uint32_t open_files_max;
    uint64_t cpu_group; /* sandboxes of one number share the CPU as if they were one; 0: alone */
};

struct jail_request {
    uint32_t magic;
    uint16_t version;
    uint16_t operation;
    uint64_t id;      /* echoed */
    uint64_t sandbox; /* handle from CREATE, IMAGE or VOLUME; 0 where none is meant */
    struct jail_limits limits;
    uint32_t mounts;
    uint32_t flags;
    uint64_t zygote; /* CREATE: handle of the one that is to fork the process of this sandbox, or 0 */
    uint32_t uid;    /* CREATE with JAIL_ROOT: who runs inside, by the root's own numbers; 0: the usual user, */
    uint32_t gid;    /* and then 0 here as well */
};

/* Bits of jail_answer.fds; descriptors follow in this order. */
enum jail_answer_fd {
    JAIL_FD_PIDFD,          /* readable when nothing runs inside any more */
    JAIL_FD_CONTROL,        /* to the init inside, see init/control.h */
    JAIL_FD_RUNTIME_API,    /* listening on 127.0.0.1:9001 inside */
    JAIL_FD_SERVICE_API,    /* listening on 127.0.0.1:9797 inside */
    JAIL_FD_RUNTIME_SOCKET, /* the same as RUNTIME_API, listening on the abstract Unix socket "stoker-runtime" */
    JAIL_FD_OUTPUT,         /* read end of standard output and error */
    JAIL_FD_TELEMETRY,      /* read end of the framed log pipe */
    JAIL_FD_FREEZE,         /* cgroup.freeze, or v1's freezer.state */
    JAIL_FD_KILL,           /* cgroup.kill */
    JAIL_FD_EVENTS,         /* cgroup.events */
    JAIL_FD_MEMORY_CURRENT, /* bytes in use */
    JAIL_FD_MEMORY_PEAK,    /* largest use so far */
    JAIL_FD_OOM,            /* v1: memory.oom_control; v2: memory.events: the line "oom_kill N" */
    JAIL_FD_OOM_EVENT,      /* v1 only: an eventfd that counts up when memory ran out */
    JAIL_FD_DNS_UDP,        /* HELLO: a resolver for sandboxes is to be served here, where the host's is on */
    JAIL_FD_DNS_TCP,        /* loopback and out of their reach */
    JAIL_FD_ROOT,           /* O_PATH, of a mounted image's root folder; of a VM's /sockets */
    JAIL_FD_DEVICE,         /* /dev/fuse, to serve a volume */
};

/* Bits of jail_answer.features (HELLO and CREATE). */
#define JAIL_LIMITS_V1 0x01u   /* memory, cpu, pids by cgroup v1 */
#define JAIL_LIMITS_V2 0x02u   /* memory, cpu, pids by cgroup v2 */
#define JAIL_FREEZE_V2 0x04u   /* cgroup.freeze and cgroup.kill */
#define JAIL_FREEZE_V1 0x08u   /* freezer.state */
#define JAIL_EGRESS_READY 0x10u
#define JAIL_ROOTLESS 0x20u
#define JAIL_ZYGOTES 0x40u   /* JAIL_ZYGOTE can be had */
#define JAIL_IMAGES 0x80u    /* JAIL_IMAGE can be had */
#define JAIL_VOLUMES 0x100u  /* JAIL_VOLUME can be had */
#define JAIL_VMS 0x200u      /* JAIL_VM can be had */

/* Bits of jail_answer.degraded (HELLO): what this host cannot enforce. */
#define JAIL_NO_MEMORY_LIMIT 0x001u
#define JAIL_NO_CPU_LIMIT 0x002u
#define JAIL_NO_PIDS_LIMIT 0x004u
#define JAIL_NO_FREEZE 0x008u
#define JAIL_TMP_IN_MEMORY 0x010u
#define JAIL_NO_EGRESS 0x020u
#define JAIL_SHARED_UID 0x040u
#define JAIL_NO_SECCOMP 0x080u
#define JAIL_NO_MEMORY_PEAK 0x100u
#define JAIL_NO_ZYGOTES 0x200u
#define JAIL_NO_IMAGES 0x400u
#define JAIL_NO_VOLUMES 0x800u

struct jail_answer {
    uint32_t magic;
    uint16_t version;
    uint16_t operation;
    uint64_t id;
    int32_t status; /* 0, or a negative errno */
    uint32_t fds;
    uint64_t sandbox;
    uint32_t features;
    uint32_t degraded;
    uint32_t tmp_kind; /* what tmp_volume_open returned */
    uint32_t count;    /* HELLO: destroyed; COUNT: alive or dying; VM_FILES: the first's number */
    uint32_t address, gateway; /* VM with egress: IPv4 of its guest, and where that sends everything; else 0 */
    char stage[JAIL_STAGE_BYTES]; /* on failure: the step that failed, NUL-terminated */
};

_Static_assert(sizeof(struct jail_request) == 88, "the request record has a fixed size");
_Static_assert(sizeof(struct jail_answer) == 120, "the answer record has a fixed size");

struct jail_message {
    struct jail_request request;
    int fds[JAIL_REQUEST_FDS_MAX];
    unsigned fd_count;
};

/* Reads one request. 1: message holds a well-formed one, whose fds are the caller's to close. 0: the peer is
 * gone. -EAGAIN: nothing there. Any other negative: a malformed message, its fds closed already. */
int protocol_receive(int socket, struct jail_message *message);

/* Sends one answer; fds[i] goes along for every set bit i of answer->fds. 0 or -errno; never blocks. */
int protocol_answer(int socket, struct jail_answer *answer, const int fds[JAIL_ANSWER_FDS_MAX]);

void protocol_close_fds(struct jail_message *message);

#endif
