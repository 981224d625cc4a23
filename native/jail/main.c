/* The jail: serves one connection of the one uid it trusts, and makes, changes and ends sandboxes for it.
 *
 * Started with a listening SOCK_SEQPACKET socket as descriptor 3, or with --socket PATH. One thread, one event
 * loop. It parses nothing but its own command line and the fixed records of protocol.h.
 */
#define _GNU_SOURCE
#include "cgroup.h"
#include "egress.h"
#include "host.h"
#include "images.h"
#include "options.h"
#include "protocol.h"
#include "sandbox.h"
#include "tmp_volume.h"
#include "vm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 8
#define EVENTS_MAX 64
#define RETRY_MS 5
#define EGRESS_MS 100
#define IMAGES_MS 5
#define INSIST_MS 100
#define WATCH_MS 1000
#define STOP_WAIT_MS 5000

enum source { LISTENER, SIGNALS, CONNECTION, SANDBOX, IMAGE };

static int events = -1;
static int served = -1; /* the connection that said HELLO */
static int connections;
static int stopping, failed;
static struct host host;

static void watch(int fd, enum source source, uint32_t number)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | number};
    if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) < 0)
        perror("stoker-jail: epoll_ctl");
}

static void watch_sandbox(int pidfd, uint32_t slot)
{
    watch(pidfd, SANDBOX, slot);
}

static void watch_image(int notes, uint32_t slot)
{
    watch(notes, IMAGE, slot);
}

static void unwatch(int fd)
{
    epoll_ctl(events, EPOLL_CTL_DEL, fd, NULL);
}

static void drop_connection(int fd)
{
    if (epoll_ctl(events, EPOLL_CTL_DEL, fd, NULL) < 0)
        return; /* dropped already, by an event before this one in the same batch */
    close(fd);
    connections--;
    if (fd != served)
        return;
    served = -1;
    images_drop_all();     /* first: what waits for a volume dies only once its reads fail */
    sandbox_destroy_all(); /* a worker's death ends its sandboxes */
}

static void answer_destroyed(uint64_t id, uint64_t sandbox, int status)
{
    struct jail_answer answer = {.operation = JAIL_DESTROY, .id = id, .sandbox = sandbox, .status = status};
    if (served >= 0 && protocol_answer(served, &answer, NULL) < 0)
        shutdown(served, SHUT_RDWR); /* a peer that does not read; its end arrives as an event */
}

static void answer_image(struct jail_answer *answer, int root)
{
    int fds[JAIL_ANSWER_FDS_MAX];
    fds[JAIL_FD_ROOT] = root;
    answer->fds = root < 0 ? 0 : 1u << JAIL_FD_ROOT;
    if (served >= 0 && protocol_answer(served, answer, fds) < 0)
        shutdown(served, SHUT_RDWR);
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void hello(int fd, struct jail_answer *answer, int *fds)
{
    if (served >= 0 && served != fd)
        drop_connection(served);
    images_drop_all();
    answer->count = sandbox_destroy_all();
    served = fd;
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0)
        vms_serve(credentials.gid);
    answer->features = host.features;
    answer->degraded = host.degraded;
    answer->tmp_kind = host.tmp_kind;
    for (int i = 0; i < 2; i++) {
        fds[JAIL_FD_DNS_UDP + i] = host.dns[i];
        answer->fds |= host.dns[i] < 0 ? 0 : 1u << (JAIL_FD_DNS_UDP + i);
    }
}

/* False: the answer comes later. */
static int obey(int fd, const struct jail_message *message, struct jail_answer *answer, int *fds)
{
    switch (message->request.operation) {
    case JAIL_HELLO:
        hello(fd, answer, fds);
        return 1;
    case JAIL_CREATE:
        answer->features = host.features;
        sandbox_create(message, answer, fds);
        return 1;
    case JAIL_MOUNT:
        sandbox_mount(message, answer);
        return 1;
    case JAIL_VM:
        answer->features = host.features;
        sandbox_create_vm(message, answer, fds);
        return 1;
    case JAIL_VM_FILES:
        sandbox_add_files(message, answer);
        return 1;
    case JAIL_LIMITS:
        sandbox_limit(message, answer, fds);
        return 1;
    case JAIL_DESTROY:
        answer->status = sandbox_destroy(message->request.sandbox, message->request.id);
        return answer->status != 0;
    case JAIL_IMAGE:
        images_mount_file(message, answer);
        return answer->status != 0;
    case JAIL_VOLUME:
        images_open_volume(answer, fds);
        return 1;
    case JAIL_VOLUME_IMAGE:
        images_mount_volume(message->request.sandbox, answer);
        return answer->status != 0;
    case JAIL_UNMOUNT:
        images_unmount(message->request.sandbox, answer);
        return answer->status != 0;
    case JAIL_ABORT:
        images_abort(message->request.sandbox, answer);
        return 1;
    default:
        answer->count = sandbox_count();
        return 1;
    }
}

static void close_answered(const struct jail_answer *answer, int *fds)
{
    for (unsigned bit = 0; bit < JAIL_ANSWER_FDS_MAX; bit++)
        if (answer->fds & 1u << bit && bit != JAIL_FD_DNS_UDP && bit != JAIL_FD_DNS_TCP)
            close(fds[bit]);
}

static void serve(int fd)
{
    struct jail_message message;
    int fds[JAIL_ANSWER_FDS_MAX];
    int got = protocol_receive(fd, &message);
    if (got == -EAGAIN)
        return;
    if (got != 1 || (fd != served && message.request.operation != JAIL_HELLO)) {
        if (got == 1)
            protocol_close_fds(&message);
        drop_connection(fd);
        return;
    }
    struct jail_answer answer = {
        .operation = message.request.operation, .id = message.request.id, .sandbox = message.request.sandbox};
    int now = obey(fd, &message, &answer, fds);
    protocol_close_fds(&message);
    uint32_t given = answer.fds;
    if (answer.status)
        answer.fds = 0; /* a failure carries none, but what was opened is closed below */
    int error = now ? protocol_answer(fd, &answer, fds) : 0;
    answer.fds = given;
    close_answered(&answer, fds);
    if (error)
        drop_connection(fd);
}

static void admit(int listener, uid_t peer)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (connections >= CONNECTIONS_MAX || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0 ||
        credentials.uid != peer) {
        close(fd);
        return;
    }
    connections++;
    watch(fd, CONNECTION, (uint32_t)fd);
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static void stop(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) > 0)
        if (info.ssi_signo != SIGCHLD)
            stopping = 1;
}

static void handle(const struct epoll_event *event, const struct options *options, int signals)
{
    uint32_t number = (uint32_t)event->data.u64;
    switch ((enum source)(event->data.u64 >> 32)) {
    case LISTENER:
        admit(options->listener, options->peer_uid);
        break;
    case SIGNALS:
        stop(signals);
        break;
    case CONNECTION:
        serve((int)number);
        break;
    case SANDBOX:
        sandbox_ended(number);
        break;
    case IMAGE:
        images_ready(number);
        break;
    }
}

/* Sandboxes run on it: without it they and all new ones fail, and only a new one helps. */
static void watch_tmp(void)
{
    if (!tmp_volume_broken())
        return;
    fprintf(stderr, "stoker-jail: the disk behind /tmp failed: ending, to be started again with a new one\n");
    stopping = failed = 1;
}

/* Idle time is for preparing what makes the next create fast. Returns how long to wait for an event then. */
static int idle(int waited_ms)
{
    watch_tmp();
    if (tmp_volume_pending()) {
        tmp_volume_tick();
        return 0;
    }
    if (sandbox_retry())
        return RETRY_MS;
    int wait_ms = sandbox_count() ? WATCH_MS : -1;
    if (sandbox_dying()) {
        if (waited_ms >= INSIST_MS)
            sandbox_insist();
        wait_ms = INSIST_MS;
    }
    if (egress_pending()) {
        egress_tick();
        wait_ms = EGRESS_MS;
    }
    if (images_pending())
        wait_ms = IMAGES_MS;
    return wait_ms;
}

static void loop(const struct options *options, int signals)
{
    struct epoll_event ready[EVENTS_MAX];
    int wait_ms = 0;
    while (!stopping) {
        int count = epoll_wait(events, ready, EVENTS_MAX, wait_ms);
        for (int i = 0; i < count; i++)
            handle(&ready[i], options, signals);
        if (images_pending())
            images_tick();
        wait_ms = count == 0 ? idle(wait_ms) : 0;
    }
}

/* --- start and end ------------------------------------------------------------------------------------------------- */

static int open_signals(void)
{
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void open_all(const struct options *options)
{
    host_open(options, &host);
    sandbox_open(&host.sandboxes);
    sandbox_on_done(answer_destroyed);
    sandbox_on_watch(watch_sandbox, unwatch);
    images_on_done(answer_image);
    images_on_watch(watch_image, unwatch);
}

static void close_all(const struct options *options)
{
    images_drop_all();
    sandbox_destroy_all();
    for (int waited_ms = 0; sandbox_count() && waited_ms < STOP_WAIT_MS; waited_ms += RETRY_MS) {
        sandbox_retry();
        usleep(RETRY_MS * 1000);
    }
    cgroup_close();
    egress_close();
    tmp_volume_close();
    if (options->socket)
        unlink(options->socket);
}

int main(int argc, char **argv)
{
    static struct options options;
    options_parse(argc, argv, &options);
    events = epoll_create1(EPOLL_CLOEXEC);
    int signals = open_signals();
    if (events < 0 || signals < 0)
        host_fail("event loop", "", -errno);
    open_all(&options);
    watch(signals, SIGNALS, 0);
    watch(options.listener, LISTENER, 0);
    fprintf(stderr, "stoker-jail: ready\n");
    loop(&options, signals);
    close_all(&options);
    return failed;
}
