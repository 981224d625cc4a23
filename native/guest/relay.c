/* Carries bytes between the function and the host: its two pipes, and each connection that it opens to an API.
 *
 * The pipes go first, always: what was written before a request was sent is ahead of that request.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RELAY_BYTES 16384
#define OUTPUTS 2

struct way {
    int from, to;
    size_t used;
    bool ended, told; /* the source has ended; the sink was told */
    unsigned char bytes[RELAY_BYTES];
};

struct relay {
    int inside, outside; /* -1: none (yet) */
    uint32_t port;
    bool used;
    struct way up, down;
};

static struct relay relays[OUTPUTS + GUEST_CONNECTIONS_MAX];
static struct {
    uint32_t port;
    int fd, place;
} listeners[3];
static bool held, told_held;

static int listen_on(int domain, const void *address, socklen_t length)
{
    int one = 1, fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address, length) < 0 || listen(fd, GUEST_CONNECTIONS_MAX) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int listen_tcp(uint16_t port)
{
    struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return listen_on(AF_INET, &here, sizeof here);
}

int relay_listen(void)
{
    static const char name[] = "\0stoker-runtime";
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    memcpy(local.sun_path, name, sizeof name - 1);
    listeners[0].port = listeners[2].port = GUEST_PORT_RUNTIME;
    listeners[1].port = GUEST_PORT_SERVICE;
    listeners[0].fd = listen_tcp(GUEST_PORT_RUNTIME);
    listeners[1].fd = listen_tcp(GUEST_PORT_SERVICE);
    listeners[2].fd = listen_on(AF_UNIX, &local, offsetof(struct sockaddr_un, sun_path) + sizeof name - 1);
    for (size_t i = 0; i < COUNT(listeners); i++)
        if (listeners[i].fd < 0)
            return listeners[i].fd;
    return 0;
}

static void prepare(struct relay *relay, int inside, int outside, uint32_t port)
{
    relay->inside = inside;
    relay->outside = outside;
    relay->port = port;
    relay->used = true;
    relay->up = (struct way){.from = inside, .to = outside};
    relay->down = (struct way){.from = outside, .to = inside};
}

/* First the streams to the host, which are wanted before the hello; the pipes when there is a process. */
int relay_outputs(int output, int telemetry)
{
    const uint32_t ports[OUTPUTS] = {GUEST_PORT_OUTPUT, GUEST_PORT_TELEMETRY};
    const int pipes[OUTPUTS] = {output, telemetry};
    for (int i = 0; i < OUTPUTS; i++) {
        int outside = relays[i].used ? relays[i].outside : link_connect(ports[i]);
        int inside = pipes[i] >= 0 ? pipes[i] : relays[i].used ? relays[i].inside : -1;
        if (outside < 0)
            return outside;
        if (inside >= 0)
            fcntl(inside, F_SETFL, O_NONBLOCK);
        prepare(&relays[i], inside, outside, ports[i]);
        relays[i].down.ended = relays[i].down.told = true; /* one way only */
    }
    return 0;
}

static void end(struct relay *relay)
{
    if (relay->inside >= 0)
        close(relay->inside);
    if (relay->outside >= 0)
        close(relay->outside);
    relay->used = false;
}

void relay_hold(bool hold)
{
    held = hold;
    told_held = told_held && hold;
}

void relay_reset(void)
{
    for (size_t i = 0; i < COUNT(relays); i++) {
        struct relay *relay = &relays[i];
        if (!relay->used || (i >= OUTPUTS && relay->outside < 0))
            continue; /* it was held: nobody outside has seen it */
        if (i >= OUTPUTS) {
            end(relay);
            continue;
        }
        close(relay->outside);
        relay->used = relay->inside >= 0;
        relay->outside = link_connect(relay->port);
        relay->up.to = relay->outside;
    }
}

/* True when anything came, the end too. */
static bool take(struct way *way)
{
    if (way->from >= 0 && !way->ended && way->used < sizeof way->bytes) {
        ssize_t got = read(way->from, way->bytes + way->used, sizeof way->bytes - way->used);
        if (got > 0)
            way->used += (size_t)got;
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            way->ended = true;
        return got >= 0;
    }
    return false;
}

/* True when anything went. */
static bool give(struct way *way)
{
    bool moved = false;
    if (way->to >= 0 && way->used) {
        ssize_t sent = send(way->to, way->bytes, way->used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            way->used -= (size_t)sent;
            memmove(way->bytes, way->bytes + sent, way->used);
            moved = true;
        } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            way->used = 0; /* nobody takes it any more */
            way->ended = true;
        }
    }
    if (way->to >= 0 && way->ended && !way->used && !way->told) {
        way->told = true;
        shutdown(way->to, SHUT_WR);
    }
    return moved;
}

static bool move(struct way *way)
{
    bool moved = take(way);
    return give(way) | moved;
}

static void pump_outputs(void)
{
    for (int i = 0; i < OUTPUTS; i++)
        while (relays[i].used && move(&relays[i].up))
            ;
    if (link_is_serial())
        serial_work();
}

bool relay_outputs_empty(void)
{
    pump_outputs();
    for (int i = 0; i < OUTPUTS; i++) {
        int waiting = 0;
        if (!relays[i].used || relays[i].inside < 0)
            continue;
        if (relays[i].up.used || !relays[i].up.ended)
            return false;
        if (ioctl(relays[i].outside, SIOCOUTQ, &waiting) == 0 && waiting)
            return false;
    }
    return true;
}

static void take_connection(size_t listener)
{
    for (size_t i = OUTPUTS; i < COUNT(relays); i++) {
        if (relays[i].used)
            continue;
        int inside = accept4(listeners[listener].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (inside >= 0)
            prepare(&relays[i], inside, -1, listeners[listener].port);
        return;
    }
}

static bool has_room(void)
{
    for (size_t i = OUTPUTS; i < COUNT(relays); i++)
        if (!relays[i].used)
            return true;
    return false;
}

static void work_on(struct relay *relay)
{
    if (relay->outside < 0) {
        if (held)
            return;
        relay->outside = link_connect(relay->port);
        if (relay->outside < 0) {
            end(relay);
            return;
        }
        relay->up.to = relay->down.from = relay->outside;
    }
    for (bool moved = true; moved;) {
        moved = take(&relay->up);
        if (moved)
            pump_outputs(); /* after what it sent was taken, before it is passed on */
        moved |= give(&relay->up);
        moved |= move(&relay->down);
        if (moved && link_is_serial())
            serial_work();
    }
    if (relay->up.told && relay->down.told)
        end(relay);
}

void relay_watch(void)
{
    bool room = listeners[0].fd > 0 && has_room();
    for (size_t i = 0; i < COUNT(listeners); i++)
        listeners[i].place = room ? watch(listeners[i].fd, POLLIN) : -1;
    for (size_t i = 0; i < COUNT(relays); i++) {
        struct relay *relay = &relays[i];
        if (!relay->used || (i >= OUTPUTS && relay->outside < 0 && held))
            continue;
        bool up = !relay->up.ended && relay->up.used < RELAY_BYTES;
        bool down = !relay->down.ended && relay->down.used < RELAY_BYTES;
        short inside = (short)((up ? POLLIN : 0) | (relay->down.used ? POLLOUT : 0));
        short outside = (short)((down ? POLLIN : 0) | (relay->up.used ? POLLOUT : 0));
        if (relay->inside >= 0 && inside)
            watch(relay->inside, inside);
        if (relay->outside >= 0 && outside)
            watch(relay->outside, outside);
    }
}

void relay_work(void)
{
    pump_outputs();
    for (size_t i = 0; i < COUNT(listeners); i++)
        if (happened(listeners[i].place) & POLLIN)
            take_connection(i);
    for (size_t i = OUTPUTS; i < COUNT(relays); i++)
        if (relays[i].used)
            work_on(&relays[i]);
}

/* Whether a connection waits that nobody outside was told of; says so once. */
bool relay_has_held(void)
{
    if (!held || told_held)
        return false;
    for (size_t i = OUTPUTS; i < COUNT(relays); i++)
        if (relays[i].used && relays[i].outside < 0)
            return told_held = true;
    return false;
}
