/* What must be there before jail and service start: folders, lock, socket; see
 * supervisor.h. Folders are shared with an unprivileged service: what root makes
 * in them is made through their descriptors and can be replaced by nobody. */
#define _GNU_SOURCE
#include "supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME "jail.sock"
#define LOCK_NAME "supervisor.lock"
#define STATE_NAME "jail"
#define BACKLOG 8
/* The service writes beside root's entries, but neither renames nor removes them. */
#define SHARED_MODE 01770

static int is_empty(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries)
        return 0;
    int found = 0;
    for (struct dirent *entry; (entry = readdir(entries));)
        found |= strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(entries);
    return !found;
}

static void make_parents(const char *path)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part)
        supervisor_die(EXIT_USAGE, ENAMETOOLONG, "%.64s...", path);
    strcpy(part, path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            supervisor_die(EXIT_FAILED, errno, "make %s", part);
    }
}

/* Never takes over a folder of somebody else's: `--data /etc` must fail. */
static void take_over(const struct supervisor *s, int fd, const char *path)
{
    struct stat found;
    if (fstat(fd, &found) < 0)
        supervisor_die(EXIT_FAILED, errno, "look at %s", path);
    int ours = found.st_uid == s->uid || (found.st_uid == geteuid() && found.st_gid == s->gid);
    if (!ours && !(found.st_uid == geteuid() && is_empty(fd)))
        supervisor_die(EXIT_CONFIGURATION, 0,
                       "%s belongs to uid %u gid %u and is not empty: not a data folder of uid %u",
                       path, found.st_uid, found.st_gid, s->uid);
    if (fchown(fd, geteuid(), s->gid) < 0 || fchmod(fd, SHARED_MODE) < 0)
        supervisor_die(EXIT_FAILED, errno, "share %s with gid %u", path, s->gid);
}

static int shared_folder(const struct supervisor *s, const char *path, int flags)
{
    make_parents(path);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        supervisor_die(EXIT_FAILED, errno, "make %s", path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    if (fd < 0)
        supervisor_die(EXIT_FAILED, errno, "open %s", path);
    take_over(s, fd, path);
    return fd;
}

static void data_folder(struct supervisor *s)
{
    s->data_fd = shared_folder(s, s->data, 0);
}

static void run_folder(struct supervisor *s)
{
    s->run_fd = shared_folder(s, s->run_dir, O_NOFOLLOW);
}

static void lock(struct supervisor *s)
{
    char holder[32] = "";
    s->lock_fd = openat(s->run_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        supervisor_die(EXIT_FAILED, errno, "open %s/" LOCK_NAME, s->run_dir);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t got = pread(s->lock_fd, holder, sizeof holder - 1, 0);
        holder[got < 0 ? 0 : strcspn(holder, "\n")] = 0;
        supervisor_die(EXIT_IN_USE, 0, "%s is in use by the Stoker with process id %s", s->data,
                       holder);
    }
    int length = snprintf(holder, sizeof holder, "%d\n", getpid());
    if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, holder, (size_t)length, 0) != length)
        supervisor_die(EXIT_FAILED, errno, "write %s/" LOCK_NAME, s->run_dir);
}

/* The jail's own, closed to the service. Its identity outlives restarts. */
static void state_folder(struct supervisor *s)
{
    struct stat found;
    snprintf(s->state_path, sizeof s->state_path, "%s/" STATE_NAME, s->data);
    if (mkdirat(s->data_fd, STATE_NAME, 0700) < 0 && errno != EEXIST)
        supervisor_die(EXIT_FAILED, errno, "make %s", s->state_path);
    if (fstatat(s->data_fd, STATE_NAME, &found, AT_SYMLINK_NOFOLLOW) < 0)
        supervisor_die(EXIT_FAILED, errno, "look at %s", s->state_path);
    if (!S_ISDIR(found.st_mode) || found.st_uid != geteuid())
        supervisor_die(EXIT_CONFIGURATION, 0, "%s is not a folder of the jail's", s->state_path);
}

/* Bound through the folder's descriptor: no path of the service's is followed. */
static void listener(struct supervisor *s)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = (size_t)snprintf(s->socket_path, sizeof s->socket_path, "%s/" SOCKET_NAME,
                                     s->run_dir);
    if (length >= sizeof s->socket_path)
        supervisor_die(EXIT_CONFIGURATION, ENAMETOOLONG, "socket path %s/" SOCKET_NAME, s->run_dir);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" SOCKET_NAME, s->run_fd);
    if (unlinkat(s->run_fd, SOCKET_NAME, 0) < 0 && errno != ENOENT)
        supervisor_die(EXIT_FAILED, errno, "remove the old %s", s->socket_path);
    s->listener_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener_fd < 0)
        supervisor_die(EXIT_FAILED, errno, "open a socket");
    mode_t before = umask(0777); /* nobody connects before the owner is set */
    int bound = bind(s->listener_fd, (void *)&address, sizeof address);
    umask(before);
    if (bound < 0 || fchownat(s->run_fd, SOCKET_NAME, geteuid(), s->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(s->run_fd, SOCKET_NAME, 0660, 0) < 0 || listen(s->listener_fd, BACKLOG) < 0)
        supervisor_die(EXIT_FAILED, errno, "listen at %s", s->socket_path);
}

static void programs(struct supervisor *s)
{
    if (access(s->jail, X_OK) < 0)
        supervisor_die(EXIT_CONFIGURATION, errno, "the jail %s", s->jail);
    if (strchr(s->service[0], '/') && access(s->service[0], X_OK) < 0)
        supervisor_die(EXIT_CONFIGURATION, errno, "the service %s", s->service[0]);
}

/* Sandboxes and their connections are descriptors; the default of 1024 is for select(). */
static void descriptors(struct supervisor *s)
{
    struct rlimit limit;
    (void)s;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        supervisor_die(EXIT_FAILED, errno, "ask for the limit of open files");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        supervisor_die(EXIT_FAILED, errno, "raise the limit of open files");
}

static const struct {
    void (*step)(struct supervisor *s);
    const char *why;
} CHECKLIST[] = {
    {programs, "a wrong path fails before anything was touched"},
    {data_folder, "everything else lives in it"},
    {run_folder, "root-owned, so that the lock and the socket stay what they are"},
    {lock, "before the socket: a second start must not unbind the first one's"},
    {state_folder, "the jail takes no path that the service could have made"},
    {listener, "ours, so that it outlives the jail: clients wait instead of failing"},
    {descriptors, "inherited by both"},
};

void supervisor_set_up(struct supervisor *s)
{
    for (size_t i = 0; i < sizeof CHECKLIST / sizeof *CHECKLIST; i++)
        CHECKLIST[i].step(s);
}
