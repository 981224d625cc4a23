/* Builds the template root as a list of data; see template.h. */
#define _GNU_SOURCE
#include "template.h"

#include "identity.h"
#include "mounts.h"
#include "passing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define COPY_BYTES_MAX (8u << 20)
#define PROGRAMS (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define DATA (PROGRAMS | MOUNT_ATTR_NOEXEC)
#define DEVICES (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

enum kind {
    FOLDER,  /* made empty */
    PROGRAM, /* the host's folder or link of that name, if there; executable */
    SHARED,  /* the host's folder, if there; not executable */
    COPIED,  /* the host's file, if there, as it is now */
    WRITTEN, /* this text */
    LINK,    /* a symbolic link to this text */
    DEVICE,  /* the host's device of that name */
};

struct entry {
    enum kind kind;
    const char *path;
    const char *text;
    mode_t mode;
};

static const struct entry ENTRIES[] = {
    {FOLDER, "/usr", NULL, 0755},
    {PROGRAM, "/usr", NULL, 0},
    {PROGRAM, "/bin", NULL, 0},
    {PROGRAM, "/sbin", NULL, 0},
    {PROGRAM, "/lib", NULL, 0},
    {PROGRAM, "/lib32", NULL, 0},
    {PROGRAM, "/lib64", NULL, 0},
    {PROGRAM, "/libx32", NULL, 0},
    {FOLDER, "/etc", NULL, 0755},
    {WRITTEN, "/etc/passwd",
     "root:x:0:0:root:/root:/sbin/nologin\n"
     "sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n"
     "nobody:x:65534:65534:nobody:/:/sbin/nologin\n",
     0644},
    {WRITTEN, "/etc/group", "root:x:0:\nsbx_user1051:x:990:\nnobody:x:65534:\n", 0644},
    {WRITTEN, "/etc/hosts",
     "127.0.0.1 localhost localhost.localdomain " SANDBOX_HOST_NAME "\n"
     "::1 localhost localhost6\n",
     0644},
    {WRITTEN, "/etc/hostname", SANDBOX_HOST_NAME "\n", 0644},
    {WRITTEN, "/etc/nsswitch.conf",
     "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
     "protocols: files\nservices: files\nethers: files\nrpc: files\n",
     0644},
    {LINK, "/etc/localtime", "/usr/share/zoneinfo/UTC", 0},
    {LINK, "/etc/mtab", "/proc/self/mounts", 0},
    {COPIED, "/etc/os-release", NULL, 0644},
    {COPIED, "/etc/ld.so.cache", NULL, 0644},
    {COPIED, "/etc/ld.so.conf", NULL, 0644},
    {COPIED, "/etc/host.conf", NULL, 0644},
    {COPIED, "/etc/gai.conf", NULL, 0644},
    {COPIED, "/etc/protocols", NULL, 0644},
    {COPIED, "/etc/services", NULL, 0644},
    {COPIED, "/etc/mime.types", NULL, 0644},
    {SHARED, "/etc/alternatives", NULL, 0}, /* /usr/bin is full of links through it */
    {FOLDER, "/etc/ssl", NULL, 0755},
    {SHARED, "/etc/ssl/certs", NULL, 0}, /* live: the host's CA updates reach functions */
    {COPIED, "/etc/ssl/openssl.cnf", NULL, 0644},
    {SHARED, "/etc/pki", NULL, 0},
    {SHARED, "/etc/crypto-policies", NULL, 0},
    {FOLDER, "/var", NULL, 0755},
    {FOLDER, "/var/empty", NULL, 0755},
    /* glibc remembers for ever that a library folder is missing: these exist before the code is mounted. */
    {FOLDER, "/var/task", NULL, 0755},
    {FOLDER, "/var/task/lib", NULL, 0755},
    {FOLDER, "/var/runtime", NULL, 0755},
    {FOLDER, "/var/runtime/lib", NULL, 0755},
    {FOLDER, "/var/codecache", NULL, 0755},
    {FOLDER, "/var/lang", NULL, 0755},
    {FOLDER, "/var/lang/lib", NULL, 0755},
    {FOLDER, "/opt", NULL, 0755},
    {FOLDER, "/opt/lib", NULL, 0755},
    {FOLDER, "/root", NULL, 0700},
    {FOLDER, "/home", NULL, 0755},
    {FOLDER, "/run", NULL, 0755},
    {FOLDER, "/sys", NULL, 0755},
    {FOLDER, "/proc", NULL, 0555},
    {FOLDER, "/tmp", NULL, 01777},
    {FOLDER, "/dev", NULL, 0755}, /* no /dev/shm: Lambda has none */
    {DEVICE, "/dev/null", NULL, 0666},
    {DEVICE, "/dev/zero", NULL, 0666},
    {DEVICE, "/dev/full", NULL, 0666},
    {DEVICE, "/dev/random", NULL, 0666},
    {DEVICE, "/dev/urandom", NULL, 0666},
    {DEVICE, "/dev/tty", NULL, 0666},
    {LINK, "/dev/fd", "/proc/self/fd", 0},
    {LINK, "/dev/stdin", "/proc/self/fd/0", 0},
    {LINK, "/dev/stdout", "/proc/self/fd/1", 0},
    {LINK, "/dev/stderr", "/proc/self/fd/2", 0},
};

static const char *staged_root;

static const char *staged(const char *path)
{
    static char joined[4096];
    snprintf(joined, sizeof joined, "%s%s", staged_root, path);
    return joined;
}

static int make_folder(const char *path, mode_t mode)
{
    if (mkdir(staged(path), mode) < 0 && errno != EEXIST)
        return -errno;
    return chmod(staged(path), mode) < 0 ? -errno : 0;
}

static int write_text(const char *path, const char *text, size_t length, mode_t mode)
{
    int fd = open(staged(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, length) == (ssize_t)length ? 0 : -EIO;
    fchmod(fd, mode);
    close(fd);
    return error;
}

static int copy_file(const char *path, mode_t mode)
{
    struct stat status;
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return errno == ENOENT || errno == EACCES ? 0 : -errno;
    int error = fstat(from, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size > COPY_BYTES_MAX ? -EINVAL : 0;
    int to = error ? -1 : open(staged(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    char block[16384];
    for (ssize_t got; to >= 0 && (got = read(from, block, sizeof block)) > 0;)
        if (write(to, block, (size_t)got) != got)
            error = -EIO;
    if (to >= 0)
        close(to);
    close(from);
    return error;
}

/* Merged hosts have links (/bin -> usr/bin), others folders. */
static int share_folder(const char *path, unsigned long long attributes)
{
    struct stat status;
    char target[256];
    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISLNK(status.st_mode)) {
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0)
            return -errno;
        target[length] = 0;
        return symlink(target, staged(path)) < 0 ? -errno : 0;
    }
    int error = make_folder(path, 0755);
    return error ? error : mounts_bind(path, staged(path), attributes);
}

/* Root makes the node; others, who may not, show the host's. */
static int make_device(const char *path, mode_t mode)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    if (mknod(staged(path), S_IFCHR | mode, status.st_rdev) == 0) {
        int probe = open(staged(path), O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (probe >= 0)
            close(probe);
        if (probe >= 0 || errno == ENXIO)
            return chmod(staged(path), mode) < 0 ? -errno : 0;
        unlink(staged(path));
    }
    int error = write_text(path, "", 0, 0644);
    return error ? error : mounts_bind(path, staged(path), DEVICES);
}

static int make_entry(const struct entry *entry)
{
    switch (entry->kind) {
    case FOLDER:
        return make_folder(entry->path, entry->mode);
    case PROGRAM:
        return share_folder(entry->path, PROGRAMS);
    case SHARED:
        return share_folder(entry->path, DATA);
    case COPIED:
        return copy_file(entry->path, entry->mode);
    case WRITTEN:
        return write_text(entry->path, entry->text, strlen(entry->text), entry->mode);
    case LINK:
        return symlink(entry->text, staged(entry->path)) < 0 ? -errno : 0;
    case DEVICE:
        return make_device(entry->path, entry->mode);
    }
    return -EINVAL;
}

/* Runs as PID 1 of a pid namespace that ends with it: the /proc mounted here shows no process for ever after. A
 * sandbox's user namespace may mount its own /proc only where one is visible already; it covers this one. */
static int build(const char *resolv_conf, const char **step)
{
    *step = "tmpfs";
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("stoker-root", staged_root, "tmpfs", MS_NOSUID, "mode=0755,size=16m,nr_inodes=4096") < 0)
        return -errno;
    for (size_t i = 0; i < sizeof ENTRIES / sizeof *ENTRIES; i++) {
        *step = ENTRIES[i].path;
        int error = make_entry(&ENTRIES[i]);
        if (error)
            return error;
    }
    *step = "/etc/resolv.conf";
    int error = write_text("/etc/resolv.conf", resolv_conf, strlen(resolv_conf), 0644);
    if (error)
        return error;
    *step = "mounting /proc";
    if (mount("proc", staged("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return -errno;
    *step = "pivot_root";
    if (chdir(staged_root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
        chdir("/") < 0)
        return -errno;
    *step = "making the root read-only";
    return mounts_restrict("/", DEVICES);
}

static void builder(int answers, const char *resolv_conf)
{
    struct passed_note note = {0};
    const char *step = "pid namespace";
    int own = -1;
    if (unshare(CLONE_NEWNS | CLONE_NEWPID) < 0) {
        note.error = -errno;
    } else {
        pid_t inner = fork();
        if (inner > 0) {
            waitpid(inner, NULL, 0);
            _exit(0);
        }
        note.error = inner < 0 ? -errno : build(resolv_conf, &step);
    }
    if (!note.error) {
        step = "opening the namespace";
        own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        note.error = own < 0 ? -errno : 0;
    }
    snprintf(note.step, sizeof note.step, "%s", step);
    passing_send(answers, &note, &own, note.error ? 0 : 1);
    _exit(0);
}

int template_open(const char *staging, const char *resolv_conf, const char **step)
{
    static struct passed_note note;
    int pair[2], namespace = -1;
    staged_root = staging;
    *step = "starting the builder";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t outer = fork();
    if (outer == 0)
        builder(pair[1], resolv_conf);
    close(pair[1]);
    int count = outer < 0 ? -errno : passing_receive(pair[0], &note, &namespace, 1);
    close(pair[0]);
    if (outer > 0)
        waitpid(outer, NULL, 0);
    *step = note.step;
    if (count < 0)
        return count;
    return note.error ? note.error : count == 1 ? namespace : -EPROTO;
}
