/* Kernel modules, randomness, the clock and the network, as the host says. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char resolv_conf[160];

static int load(const char *name)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST ? -errno : 0;
    close(fd);
    unlink(name); /* the memory of what is loaded is wanted */
    return error;
}

/* Named NN-WHEN-NAME.ko and loaded in that order; WHEN is all, serial or vsock. */
int machine_modules(bool serial)
{
    struct dirent **found;
    int error = 0, count = chdir("/modules") < 0 ? -1 : scandir(".", &found, NULL, alphasort);
    if (count < 0)
        return 0; /* a kernel that has everything built in */
    for (int i = 0; i < count && !error; i++) {
        const char *when = found[i]->d_name[0] == '.' ? NULL : strchr(found[i]->d_name, '-');
        if (when && strncmp(when, serial ? "-vsock-" : "-serial-", serial ? 7 : 8) != 0)
            error = load(found[i]->d_name);
    }
    return chdir("/") < 0 ? -errno : error;
}

int machine_entropy(const void *bytes, size_t count)
{
    struct {
        struct rand_pool_info info;
        unsigned char bytes[512];
    } pool;
    if (count < 1 || count > sizeof pool.bytes)
        return -EINVAL;
    pool.info.entropy_count = (int)count * 8;
    pool.info.buf_size = (int)count;
    memcpy(pool.info.buf, bytes, count);
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0 ? -errno : 0;
    close(fd);
    explicit_bzero(&pool, sizeof pool);
    return error;
}

int machine_clock(const struct guest_clock *clock)
{
    struct timespec now = {.tv_sec = clock->seconds, .tv_nsec = clock->nanoseconds};
    return clock_settime(CLOCK_REALTIME, &now) < 0 ? -errno : 0;
}

static struct sockaddr at(uint32_t address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    struct sockaddr plain;
    memcpy(&plain, &in, sizeof plain);
    return plain;
}

static int raise_link(int fd, const char *name)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -errno;
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

int machine_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = raise_link(fd, "lo");
    close(fd);
    return error;
}

static int configure(int fd, const struct guest_network *network)
{
    struct ifreq request = {.ifr_name = "eth0"};
    request.ifr_addr = at(network->address);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0)
        return -errno;
    request.ifr_netmask = at(htonl(network->prefix_bits ? ~0u << (32 - network->prefix_bits) : 0));
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
        return -errno;
    int error = raise_link(fd, "eth0");
    if (error || !network->gateway)
        return error;
    struct rtentry route = {.rt_dst = at(0), .rt_genmask = at(0), .rt_flags = RTF_UP | RTF_GATEWAY};
    route.rt_gateway = at(network->gateway);
    return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? -errno : 0;
}

int machine_network(const struct guest_network *network)
{
    if (network->prefix_bits > 32)
        return -EINVAL;
    size_t used = 0;
    for (size_t i = 0; i < COUNT(network->dns); i++)
        if (network->dns[i])
            used += (size_t)snprintf(resolv_conf + used, sizeof resolv_conf - used, "nameserver %s\n",
                                     inet_ntoa((struct in_addr){network->dns[i]}));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = configure(fd, network);
    close(fd);
    return error;
}

const char *machine_resolv_conf(void)
{
    return resolv_conf;
}
