/* Builds and sends rtnetlink requests; see rtnetlink.h. Attributes are written
 * by hand: libmnl would be the jail's only dependency. */
#define _GNU_SOURCE
#include "rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void *reserve(struct rtnetlink_batch *batch, uint32_t size)
{
    if (batch->used + NLMSG_ALIGN(size) > sizeof batch->bytes)
        __builtin_trap(); /* batches have fixed content: too small is a bug */
    void *place = batch->bytes + batch->used;
    memset(place, 0, NLMSG_ALIGN(size));
    batch->used += NLMSG_ALIGN(size);
    return place;
}

static struct nlmsghdr *begin(struct rtnetlink_batch *batch, uint16_t type, uint16_t flags,
                              const void *body, uint32_t size)
{
    if (++batch->messages > RTNETLINK_BATCH_MESSAGES)
        __builtin_trap();
    struct nlmsghdr *message = reserve(batch, NLMSG_LENGTH(size));
    message->nlmsg_type = type;
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    message->nlmsg_seq = batch->messages;
    memcpy(NLMSG_DATA(message), body, size);
    return message;
}

static void finish(struct rtnetlink_batch *batch, struct nlmsghdr *message)
{
    message->nlmsg_len = (uint32_t)(batch->bytes + batch->used - (unsigned char *)message);
}

static struct rtattr *attribute(struct rtnetlink_batch *batch, uint16_t type, const void *data,
                                uint32_t size)
{
    struct rtattr *attr = reserve(batch, (uint32_t)RTA_LENGTH(size));
    attr->rta_type = type;
    attr->rta_len = (uint16_t)RTA_LENGTH(size);
    if (size > 0)
        memcpy(RTA_DATA(attr), data, size);
    return attr;
}

static void text(struct rtnetlink_batch *batch, uint16_t type, const char *value)
{
    attribute(batch, type, value, (uint32_t)strlen(value) + 1);
}

static void number(struct rtnetlink_batch *batch, uint16_t type, uint32_t value)
{
    attribute(batch, type, &value, sizeof value);
}

static struct rtattr *open_nest(struct rtnetlink_batch *batch, uint16_t type)
{
    return attribute(batch, type, NULL, 0);
}

static void close_nest(struct rtnetlink_batch *batch, struct rtattr *nest)
{
    nest->rta_len = (uint16_t)(batch->bytes + batch->used - (unsigned char *)nest);
}

static void router(struct rtnetlink_batch *batch, int settings)
{
    struct rtattr *inet = open_nest(batch, AF_INET);
    struct rtattr *values = open_nest(batch, IFLA_INET_CONF);
    number(batch, IPV4_DEVCONF_FORWARDING, 1);
    number(batch, IPV4_DEVCONF_RP_FILTER, 1);
    if (settings & RTNETLINK_PROXY)
        number(batch, IPV4_DEVCONF_PROXY_ARP, 1);
    close_nest(batch, values);
    close_nest(batch, inet);
}

static void no_ipv6(struct rtnetlink_batch *batch)
{
    uint8_t none = IN6_ADDR_GEN_MODE_NONE;
    struct rtattr *inet6 = open_nest(batch, AF_INET6);
    attribute(batch, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof none);
    close_nest(batch, inet6);
}

void rtnetlink_settings(struct rtnetlink_batch *batch, uint32_t index, int settings)
{
    if (settings == 0)
        return;
    struct ifinfomsg body = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
    struct nlmsghdr *message = begin(batch, RTM_SETLINK, 0, &body, sizeof body);
    struct rtattr *families = open_nest(batch, IFLA_AF_SPEC);
    if (settings & RTNETLINK_ROUTER)
        router(batch, settings);
    if (settings & RTNETLINK_NO_IPV6)
        no_ipv6(batch);
    close_nest(batch, families);
    finish(batch, message);
}

void rtnetlink_add_veth(struct rtnetlink_batch *batch, const struct rtnetlink_veth *veth)
{
    struct ifinfomsg host = {.ifi_family = AF_UNSPEC, .ifi_index = (int)veth->host_index};
    struct ifinfomsg peer = {.ifi_family = AF_UNSPEC, .ifi_index = (int)veth->peer_index};
    struct nlmsghdr *message =
        begin(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &host, sizeof host);
    text(batch, IFLA_IFNAME, veth->host_name);
    number(batch, IFLA_GROUP, veth->group);
    struct rtattr *info = open_nest(batch, IFLA_LINKINFO);
    attribute(batch, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = open_nest(batch, IFLA_INFO_DATA);
    struct rtattr *other = open_nest(batch, VETH_INFO_PEER);
    memcpy(reserve(batch, sizeof peer), &peer, sizeof peer);
    text(batch, IFLA_IFNAME, veth->peer_name);
    number(batch, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns_fd);
    close_nest(batch, other);
    close_nest(batch, data);
    close_nest(batch, info);
    finish(batch, message);
}

void rtnetlink_link_up(struct rtnetlink_batch *batch, uint32_t index)
{
    struct ifinfomsg body = {.ifi_family = AF_UNSPEC,
                             .ifi_index = (int)index,
                             .ifi_flags = IFF_UP,
                             .ifi_change = IFF_UP};
    finish(batch, begin(batch, RTM_NEWLINK, 0, &body, sizeof body));
}

void rtnetlink_add_address(struct rtnetlink_batch *batch, uint32_t index, uint32_t local,
                           uint32_t peer)
{
    struct ifaddrmsg body = {.ifa_family = AF_INET,
                             .ifa_prefixlen = 32,
                             .ifa_scope = RT_SCOPE_UNIVERSE,
                             .ifa_index = index};
    struct nlmsghdr *message =
        begin(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof body);
    number(batch, IFA_LOCAL, local);
    number(batch, IFA_ADDRESS, peer);
    finish(batch, message);
}

void rtnetlink_delete_address(struct rtnetlink_batch *batch, uint32_t index, uint32_t local)
{
    struct ifaddrmsg body = {.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = index};
    struct nlmsghdr *message = begin(batch, RTM_DELADDR, 0, &body, sizeof body);
    number(batch, IFA_LOCAL, local);
    finish(batch, message);
}

void rtnetlink_default_route(struct rtnetlink_batch *batch, uint32_t gateway, uint32_t index)
{
    struct rtmsg body = {.rtm_family = AF_INET,
                         .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = RT_SCOPE_UNIVERSE,
                         .rtm_type = RTN_UNICAST};
    struct nlmsghdr *message = begin(batch, RTM_NEWROUTE, NLM_F_CREATE, &body, sizeof body);
    number(batch, RTA_GATEWAY, gateway);
    number(batch, RTA_OIF, index);
    finish(batch, message);
}

void rtnetlink_host_route(struct rtnetlink_batch *batch, uint32_t host, uint32_t index)
{
    struct rtmsg body = {.rtm_family = AF_INET,
                         .rtm_dst_len = 32,
                         .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = RT_SCOPE_LINK,
                         .rtm_type = RTN_UNICAST};
    struct nlmsghdr *message = begin(batch, RTM_NEWROUTE, NLM_F_CREATE, &body, sizeof body);
    number(batch, RTA_DST, host);
    number(batch, RTA_OIF, index);
    finish(batch, message);
}

void rtnetlink_delete_link(struct rtnetlink_batch *batch, uint32_t index)
{
    struct ifinfomsg body = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
    finish(batch, begin(batch, RTM_DELLINK, 0, &body, sizeof body));
}

void rtnetlink_delete_group(struct rtnetlink_batch *batch, uint32_t group)
{
    struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
    struct nlmsghdr *message = begin(batch, RTM_DELLINK, 0, &body, sizeof body);
    number(batch, IFLA_GROUP, group);
    finish(batch, message);
}

int rtnetlink_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    int on = 1; /* acknowledgements without a copy of the request */
    if (setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int rtnetlink_open_in(int netns_fd, int own_netns_fd)
{
    if (setns(netns_fd, CLONE_NEWNET) < 0)
        return -errno;
    int fd = rtnetlink_open();
    if (setns(own_netns_fd, CLONE_NEWNET) < 0)
        __builtin_trap(); /* lost in a sandbox's namespace: nothing may go on from here */
    return fd;
}

static int read_acknowledgements(int fd, uint32_t wanted)
{
    _Alignas(4) unsigned char answer[4096];
    int first_error = 0;
    while (wanted > 0) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        uint32_t left = (uint32_t)got;
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_type != NLMSG_ERROR)
                continue;
            int error = ((struct nlmsgerr *)NLMSG_DATA(m))->error;
            if (first_error == 0)
                first_error = error;
            if (wanted > 0)
                wanted--;
        }
    }
    return first_error;
}

int rtnetlink_send(int fd, struct rtnetlink_batch *batch)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    uint32_t messages = batch->messages;
    ssize_t sent;
    do
        sent = sendto(fd, batch->bytes, batch->used, 0, (void *)&kernel, sizeof kernel);
    while (sent < 0 && errno == EINTR);
    batch->used = 0;
    batch->messages = 0;
    return sent < 0 ? -errno : read_acknowledgements(fd, messages);
}
