/* Makes tap devices; see tap.h. */
#define _GNU_SOURCE
#include "tap.h"

#include "rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOPBACK_INDEX 1
#define ETH0_INDEX 2

static int make_device(uid_t owner)
{
    struct ifreq request = {.ifr_name = TAP_NAME, .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETOWNER, (unsigned long)owner) < 0 ||
                        ioctl(fd, TUNSETPERSIST, 1ul) < 0
                    ? -errno
                    : 0;
    close(fd);
    return error;
}

static int route(uint32_t tap, uint32_t guest, uint32_t gateway)
{
    struct rtnetlink_batch batch = {0};
    int fd = rtnetlink_open();
    if (fd < 0)
        return fd;
    int settings = RTNETLINK_ROUTER | RTNETLINK_PROXY;
    settings |= access("/proc/net/if_inet6", F_OK) == 0 ? RTNETLINK_NO_IPV6 : 0;
    rtnetlink_link_up(&batch, LOOPBACK_INDEX); /* without any address of its own every other is broadcast to it */
    rtnetlink_settings(&batch, ETH0_INDEX, settings);
    rtnetlink_settings(&batch, tap, settings);
    rtnetlink_link_up(&batch, ETH0_INDEX);
    rtnetlink_link_up(&batch, tap);
    rtnetlink_host_route(&batch, gateway, ETH0_INDEX);
    rtnetlink_default_route(&batch, gateway, ETH0_INDEX);
    rtnetlink_host_route(&batch, guest, tap);
    int error = rtnetlink_send(fd, &batch);
    close(fd);
    return error;
}

int tap_make(uid_t owner, const struct egress_link *link)
{
    struct in_addr guest, gateway;
    int error = make_device(owner);
    if (error)
        return error;
    uint32_t index = if_nametoindex(TAP_NAME);
    if (!index)
        return -errno;
    if (inet_pton(AF_INET, link->address, &guest) != 1 || inet_pton(AF_INET, link->gateway, &gateway) != 1)
        return -EINVAL;
    return route(index, guest.s_addr, gateway.s_addr);
}
