/* The host's side of egress; see egress_host.h. */
#define _GNU_SOURCE
#include "egress_host.h"

#include "egress_locks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UPLINKS_MAX 8
#define UPLINK_CHECK_INTERVAL_S 5
#define DNS_BACKLOG 64

static time_t checked_s;

static char words[EGRESS_WORDS_BYTES] = "no error";

const char *egress_error(void)
{
    return words;
}

int egress_fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof words)
        snprintf(words + used, sizeof words - (size_t)used, ": %s", strerror(-error));
    return error;
}

void egress_keep_words(const char kept[EGRESS_WORDS_BYTES])
{
    memcpy(words, kept, sizeof words);
}

/* --- uplinks: forwarding, without making a router of every interface --------- */

static int forwarding(const char *name, char set)
{
    char path[96], value = '0';
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/forwarding", name);
    int fd = open(path, (set ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t done = set ? pwrite(fd, &set, 1, 0) : pread(fd, &value, 1, 0);
    int result = done == 1 ? value - '0' : -errno;
    close(fd);
    return result;
}

static uint32_t read_record(int record, char names[UPLINKS_MAX][IFNAMSIZ])
{
    char text[UPLINKS_MAX * IFNAMSIZ + 1];
    uint32_t count = 0;
    ssize_t got = pread(record, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = 0;
    for (char *name = strtok(text, "\n"); name && count < UPLINKS_MAX; name = strtok(NULL, "\n"))
        if (strlen(name) < IFNAMSIZ && !strchr(name, '/'))
            strcpy(names[count++], name);
    return count;
}

/* Recorded before it is done: a jail killed in between leaves no link on for ever. */
static int switch_on(int record, const char *name)
{
    char names[UPLINKS_MAX][IFNAMSIZ], line[IFNAMSIZ + 1];
    uint32_t count = read_record(record, names), i = 0;
    while (i < count && strcmp(names[i], name) != 0)
        i++;
    int length = snprintf(line, sizeof line, "%s\n", name);
    if (i == UPLINKS_MAX)
        return egress_fail(-ENOSPC, "switch on forwarding of %s", name);
    if (i == count && write(record, line, (size_t)length) != length)
        return egress_fail(-errno, "record that %s forwards", name);
    int switched = forwarding(name, '1');
    return switched < 0 ? egress_fail(switched, "switch on forwarding of %s", name) : 0;
}

/* Answers come in over the default routes' links: these have to forward. */
static int switch_on_uplinks(int record)
{
    FILE *routes = fopen("/proc/net/route", "re");
    if (!routes)
        return egress_fail(-errno, "open /proc/net/route");
    char line[256], name[IFNAMSIZ];
    unsigned destination, mask;
    int result = 0;
    while (result == 0 && fgets(line, sizeof line, routes)) {
        if (sscanf(line, "%15s %x %*x %*x %*d %*d %*d %x", name, &destination, &mask) != 3)
            continue; /* the heading */
        if (destination == 0 && mask == 0 && forwarding(name, 0) == 0)
            result = switch_on(record, name);
    }
    fclose(routes);
    return result;
}

int egress_uplinks_open(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (checked_s && now.tv_sec - checked_s < UPLINK_CHECK_INTERVAL_S)
        return 0;
    checked_s = now.tv_sec;
    int record = egress_lock_record();
    if (record < 0)
        return record;
    int result = switch_on_uplinks(record);
    close(record);
    return result;
}

void egress_uplinks_close(uint32_t instance, int instance_lock)
{
    char names[UPLINKS_MAX][IFNAMSIZ];
    int record = egress_lock_record();
    checked_s = 0;
    if (record >= 0 && !egress_others_live(instance)) {
        uint32_t count = read_record(record, names);
        /* Someone made the host a router meanwhile: not ours to undo. */
        for (uint32_t i = 0; i < count && forwarding("all", 0) != 1; i++)
            forwarding(names[i], '0');
        egress_remove_record();
    }
    egress_unlock_instance(instance, instance_lock);
    if (record >= 0)
        close(record);
}

/* --- DNS --------------------------------------------------------------------- */

int egress_resolvers_read(uint32_t gateway, struct egress_resolvers *out)
{
    char text[4096];
    int fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 && errno == ENOENT ? 0 : fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return egress_fail(-error, "read /etc/resolv.conf");
    text[got] = 0;
    egress_resolvers_parse(text, gateway, out);
    return 0;
}

int egress_dns_socket(uint32_t gateway, int type)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(53),
                                  .sin_addr.s_addr = gateway};
    int on = 1;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return egress_fail(-errno, "open a DNS socket");
    /* The service may not have noticed yet that an earlier jail died, and hold its sockets. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
        bind(fd, (void *)&address, sizeof address) == 0 &&
        (type == SOCK_DGRAM || listen(fd, DNS_BACKLOG) == 0))
        return fd;
    int error = errno;
    close(fd);
    return egress_fail(-error, "bind the DNS forwarder's socket");
}
