/* Streams to the host: over vsock, or as channels of a virtio-serial port. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool serial;

static bool command_line_has(const char *word)
{
    char line[4096];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return false;
    line[got] = 0;
    return strstr(line, word) != NULL;
}

int link_open(void)
{
    serial = command_line_has("stoker.link=serial");
    int error = machine_modules(serial);
    return error ? error : serial ? serial_open() : 0;
}

bool link_is_serial(void)
{
    return serial;
}

int link_connect(uint32_t port)
{
    if (serial)
        return serial_connect(port);
    struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&host, sizeof host) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}
