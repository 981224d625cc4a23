/* Reads the command line, opens the listener and locks the state folder; see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include "files.h"
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_FD 3
#define BACKLOG 8

static const struct option LONG[] = {
    {"state-dir", required_argument, NULL, 's'},   {"init", required_argument, NULL, 'i'},
    {"socket", required_argument, NULL, 'S'},      {"peer-uid", required_argument, NULL, 'u'},
    {"id-base", required_argument, NULL, 'b'},     {"tmp-capacity-mb", required_argument, NULL, 't'},
    {"no-egress", no_argument, NULL, 'n'},
    {"egress-range", required_argument, NULL, 'r'}, {"egress-allow", required_argument, NULL, 'a'},
    {"egress-deny", required_argument, NULL, 'd'},
    {"no-cgroup-v2", no_argument, NULL, '1'},      {"images-by-loop", no_argument, NULL, 'l'},
    {"firecracker", required_argument, NULL, 'f'}, {"jailer", required_argument, NULL, 'j'},
    {0},
};

static _Noreturn void refuse(const char *why, const char *what)
{
    fprintf(stderr, "stoker-jail: %s: %s\n", why, what);
    exit(2);
}

static unsigned long number(const char *name, const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 0);
    if (errno || end == text || *end || value > most)
        refuse(name, text);
    return value;
}

static void add_range(char ranges[][EGRESS_RANGE_TEXT], uint32_t *count, const char *text)
{
    if (*count == EGRESS_RANGES_MAX || strlen(text) >= EGRESS_RANGE_TEXT)
        refuse("range", text);
    strcpy(ranges[(*count)++], text);
}

static void take(int option, const char *text, struct options *options)
{
    switch (option) {
    case 's':
        options->state = text;
        return;
    case 'i':
        options->init = text;
        return;
    case 'S':
        options->socket = text;
        return;
    case 'u':
        options->peer_uid = (uid_t)number("--peer-uid", text, UINT32_MAX - 1);
        return;
    case 'b':
        options->id_base = (uint32_t)number("--id-base", text, 0x70000000);
        return;
    case 't':
        options->tmp_capacity_bytes = (uint64_t)number("--tmp-capacity-mb", text, 1ul << 30) << 20;
        return;
    case '1':
        options->only_v1 = 1;
        return;
    case 'l':
        options->images_by_loop = 1;
        return;
    case 'f':
        options->firecracker = text;
        return;
    case 'j':
        options->jailer = text;
        return;
    case 'n':
        options->egress.enabled = 0;
        return;
    case 'r':
        if (strlen(text) >= EGRESS_RANGE_TEXT)
            refuse("--egress-range", text);
        strcpy(options->egress.range, text);
        return;
    case 'a':
        return add_range(options->egress.allowed, &options->egress.allowed_count, text);
    case 'd':
        return add_range(options->egress.denied, &options->egress.denied_count, text);
    default:
        refuse("usage", "stoker-jail --state-dir DIR --init FILE --peer-uid UID [--socket PATH] [--no-egress] ...");
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        refuse("--socket", path);
    strcpy(address.sun_path, path);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        refuse(path, strerror(errno));
    chmod(path, 0666); /* who may speak is decided by the peer's credentials */
    return fd;
}

static int inherited_listener(void)
{
    int listening = 0;
    socklen_t length = sizeof listening;
    if (getsockopt(LISTENER_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening)
        refuse("descriptor 3", "not a listening socket, and no --socket given");
    fcntl(LISTENER_FD, F_SETFD, FD_CLOEXEC);
    fcntl(LISTENER_FD, F_SETFL, O_NONBLOCK);
    return LISTENER_FD;
}

/* Held as long as the jail lives; the kernel lets go of it whatever ends us. */
static void lock_state(struct options *options)
{
    struct stat status;
    if (mkdir(options->state, 0700) < 0 && errno != EEXIST)
        refuse(options->state, strerror(errno));
    int folder = open(options->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &status) < 0)
        refuse(options->state, strerror(errno));
    if (flock(folder, LOCK_EX | LOCK_NB) < 0)
        refuse(options->state, "another jail uses this folder");
    snprintf(options->instance, sizeof options->instance, "%llx-%llx", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
}

static int is_rootless(void)
{
    char text[256];
    unsigned inside, outside, count;
    if (files_read(AT_FDCWD, "/proc/self/uid_map", text, sizeof text) <= 0)
        return 1;
    return geteuid() != 0 || sscanf(text, "%u %u %u", &inside, &outside, &count) != 3 || inside || outside ||
           count != UINT32_MAX;
}

void options_parse(int argc, char **argv, struct options *options)
{
    *options = (struct options){.peer_uid = (uid_t)-1, .id_base = ID_BASE_DEFAULT, .listener = -1};
    options->tmp_capacity_bytes = 64ull << 30;
    options->egress.enabled = 1;
    for (int option; (option = getopt_long(argc, argv, "", LONG, NULL)) != -1;)
        take(option, optarg, options);
    if (optind != argc || !options->state || !options->init || options->peer_uid == (uid_t)-1)
        take('?', "", options);
    options->rootless = is_rootless();
    lock_state(options);
    options->listener = options->socket ? listen_at(options->socket) : inherited_listener();
}
