/* Channels on a virtio-serial port. The rest of the init sees a socket for each; its other end is here.
 *
 * Lower channels go first: the outputs were opened before the APIs, so what a function wrote reaches the host before
 * what it sent afterwards.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct channel {
    int fd; /* -1: free */
    int place;
    uint32_t may_send;
    bool sent_end, got_end, fd_ended; /* fd_ended: nobody reads what the host sends */
    uint32_t used;                    /* of `held` */
    uint32_t owed;                    /* credit that the host has not got back yet */
    unsigned char held[GUEST_WINDOW_BYTES];
};

static struct channel channels[GUEST_CHANNELS_MAX];
static int port = -1, port_place;

static unsigned char out[sizeof(struct guest_frame) + GUEST_FRAME_BYTES_MAX];
static size_t out_used, out_done;

static unsigned char in[sizeof(struct guest_frame) + GUEST_FRAME_BYTES_MAX];
static size_t in_used;

/* The port's node, by the name that the host gave it. The driver asks for names after it was loaded. */
int serial_open(void)
{
    for (int attempt = 0; attempt < 200; attempt++, usleep(5000))
        for (int number = 0; number < 4; number++) {
            char path[64], name[32] = "";
            snprintf(path, sizeof path, "/sys/class/virtio-ports/vport0p%d/name", number);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t got = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
            if (fd >= 0)
                close(fd);
            if (got <= 0 || strncmp(name, GUEST_SERIAL_NAME, strlen(GUEST_SERIAL_NAME)) != 0)
                continue;
            snprintf(path, sizeof path, "/dev/vport0p%d", number);
            port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
            for (size_t i = 0; i < COUNT(channels); i++)
                channels[i].fd = -1;
            return port < 0 ? -errno : 0;
        }
    return -ENODEV;
}

static void put(size_t number, enum guest_frame_kind kind, uint32_t argument)
{
    struct guest_frame frame = {.channel = (uint16_t)number, .kind = (uint8_t)kind, .argument = argument};
    memcpy(out, &frame, sizeof frame);
    out_used = sizeof frame + (kind == GUEST_FRAME_DATA ? argument : 0);
    out_done = 0;
}

/* Writes what is in `out`. True when it is empty. */
static bool flush(void)
{
    while (out_done < out_used) {
        ssize_t wrote = write(port, out + out_done, out_used - out_done);
        if (wrote < 0)
            return false;
        out_done += (size_t)wrote;
    }
    out_used = out_done = 0;
    return true;
}

/* Only while nothing else is on its way out is there room for a frame: an opening waits for it. */
int serial_connect(uint32_t to)
{
    int pair[2];
    size_t number = 0;
    while (number < COUNT(channels) && channels[number].fd >= 0)
        number++;
    if (number == COUNT(channels))
        return -EMFILE;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    struct pollfd waiting = {.fd = port, .events = POLLOUT};
    while (!flush())
        if (poll(&waiting, 1, -1) < 0 && errno != EINTR)
            return -errno;
    struct channel *channel = &channels[number];
    *channel = (struct channel){.fd = pair[0], .may_send = GUEST_WINDOW_BYTES};
    put(number, GUEST_FRAME_OPEN, to);
    flush();
    return pair[1];
}

static void leave_when_over(struct channel *channel)
{
    if (channel->sent_end && channel->got_end && channel->used == 0) {
        close(channel->fd);
        channel->fd = -1;
    }
}

static void deliver(struct channel *channel)
{
    while (channel->used) {
        ssize_t sent = channel->fd_ended ? (ssize_t)channel->used
                                         : send(channel->fd, channel->held, channel->used, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (sent < 0) {
            channel->fd_ended = true;
            continue;
        }
        channel->used -= (uint32_t)sent;
        channel->owed += (uint32_t)sent;
        memmove(channel->held, channel->held + sent, channel->used);
    }
    if (channel->got_end && !channel->fd_ended)
        shutdown(channel->fd, SHUT_WR);
}

static void take(const struct guest_frame *frame, const unsigned char *data)
{
    if (frame->channel >= COUNT(channels) || channels[frame->channel].fd < 0)
        return; /* a channel that this side has closed already */
    struct channel *channel = &channels[frame->channel];
    switch (frame->kind) {
    case GUEST_FRAME_DATA:
        if (frame->argument > sizeof channel->held - channel->used)
            power_off(); /* the host counts wrongly */
        memcpy(channel->held + channel->used, data, frame->argument);
        channel->used += frame->argument;
        break;
    case GUEST_FRAME_CREDIT:
        channel->may_send += frame->argument;
        return;
    case GUEST_FRAME_RESET:
        channel->sent_end = true;
        shutdown(channel->fd, SHUT_RD);
        channel->got_end = true;
        break;
    default:
        channel->got_end = true;
    }
    deliver(channel);
    leave_when_over(channel);
}

static void receive(void)
{
    for (;;) {
        ssize_t got = read(port, in + in_used, sizeof in - in_used);
        if (got <= 0)
            return;
        in_used += (size_t)got;
        size_t at = 0;
        while (in_used - at >= sizeof(struct guest_frame)) {
            struct guest_frame frame;
            memcpy(&frame, in + at, sizeof frame);
            size_t data = frame.kind == GUEST_FRAME_DATA ? frame.argument : 0;
            if (data > GUEST_FRAME_BYTES_MAX)
                power_off();
            if (in_used - at < sizeof frame + data)
                break;
            take(&frame, in + at + sizeof frame);
            at += sizeof frame + data;
        }
        memmove(in, in + at, in_used - at);
        in_used -= at;
    }
}

/* Puts one frame of this channel into `out`. False: it has none. */
static bool produce(size_t number)
{
    struct channel *channel = &channels[number];
    if (channel->owed >= GUEST_WINDOW_BYTES / 4 || (channel->owed && !channel->used)) {
        put(number, GUEST_FRAME_CREDIT, channel->owed);
        channel->owed = 0;
        return true;
    }
    if (channel->sent_end || !channel->may_send)
        return false;
    uint32_t most = channel->may_send < GUEST_FRAME_BYTES_MAX ? channel->may_send : GUEST_FRAME_BYTES_MAX;
    ssize_t got = recv(channel->fd, out + sizeof(struct guest_frame), most, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        put(number, GUEST_FRAME_END, 0);
        channel->sent_end = true;
        leave_when_over(channel);
        return true;
    }
    put(number, GUEST_FRAME_DATA, (uint32_t)got);
    channel->may_send -= (uint32_t)got;
    return true;
}

void serial_watch(void)
{
    port_place = watch(port, (short)(POLLIN | (out_used ? POLLOUT : 0)));
    for (size_t i = 0; i < COUNT(channels); i++) {
        struct channel *channel = &channels[i];
        if (channel->fd < 0)
            continue;
        bool sends = !channel->sent_end && channel->may_send && !out_used, holds = channel->used && !channel->fd_ended;
        if (sends || holds)
            watch(channel->fd, (short)((sends ? POLLIN : 0) | (holds ? POLLOUT : 0)));
    }
}

void serial_work(void)
{
    receive();
    for (size_t i = 0; i < COUNT(channels); i++)
        if (channels[i].fd >= 0) {
            deliver(&channels[i]);
            leave_when_over(&channels[i]);
        }
    for (size_t i = 0; i < COUNT(channels);) {
        if (!flush())
            return;
        if (channels[i].fd < 0 || !produce(i))
            i++;
        else
            i = 0;
    }
    flush();
}
