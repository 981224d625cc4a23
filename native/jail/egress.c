/* Egress links of sandboxes: instances, addresses, links; see egress.h. */
#define _GNU_SOURCE
#include "egress.h"

#include "egress_host.h"
#include "egress_locks.h"
#include "egress_rules.h"
#include "rtnetlink.h"
#include "system_tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOPBACK_INDEX 1
#define ETH0_INDEX 2
#define LINK_INDEX_BASE (1U << 24) /* clear of what the kernel numbers by itself */
#define LINK_GROUP_BASE 0x53544b00U /* "STK" and the instance */

enum { FREE = 0, TAKEN = 1, LEAVING = 2 };

static struct {
    int open;
    int lock_fd;
    int netns_fd;   /* the jail's own */
    int netlink_fd; /* in it */
    int probe_fd;   /* any socket, for interface ioctls */
    int ipv6;       /* the kernel has it */
    uint32_t instance;
    uint32_t gateway; /* host byte order, the first address of the share */
    uint32_t links;   /* addresses after it */
    uint32_t next;    /* where the search for a free one starts: late reuse */
    uint32_t leaving;
    uint32_t reap_at;
    struct egress_resolvers resolvers;
    unsigned char state[EGRESS_LINKS_MAX];
} pool = {.lock_fd = -1, .netns_fd = -1, .netlink_fd = -1, .probe_fd = -1};

static void forget(void)
{
    int *fds[] = {&pool.lock_fd, &pool.netns_fd, &pool.netlink_fd, &pool.probe_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    pool.open = 0;
}

/* --- instances ------------------------------------------------------------- */

static int apply(const char *rules)
{
    static const char *const NFT[] = {"nft", "-f", "-", NULL};
    char said[256];
    int result = system_tool_run(NFT, rules, said, sizeof said);
    if (result == -ENOENT)
        return egress_fail(-EOPNOTSUPP, "nft is missing (package nftables)");
    if (result < 0)
        return egress_fail(-EOPNOTSUPP, "nft refused the egress rules: %.*s",
                    (int)strcspn(said, "\n"), said);
    return 0;
}

static int range_share(const char *range, uint32_t instance, uint32_t *first, uint32_t *size)
{
    uint64_t whole;
    int result = egress_range_parse(range, first, &whole);
    if (result < 0 || whole < 1 << 8 || whole > 1 << 16)
        return egress_fail(-EINVAL, "egress range '%.*s' is no IPv4 range from /16 to /24",
                    EGRESS_RANGE_TEXT, range);
    *size = (uint32_t)whole / EGRESS_INSTANCES;
    *first += instance * *size;
    return 0;
}

/* Removes table, links and address of an instance whose lock we hold. */
static int clean(uint32_t instance, uint32_t gateway)
{
    char text[128];
    struct rtnetlink_batch batch = {0};
    rtnetlink_delete_group(&batch, LINK_GROUP_BASE + instance);
    int result = rtnetlink_send(pool.netlink_fd, &batch);
    if (result < 0 && result != -ENODEV)
        return egress_fail(result, "remove the links an earlier jail left");
    rtnetlink_delete_address(&batch, LOOPBACK_INDEX, htonl(gateway));
    result = rtnetlink_send(pool.netlink_fd, &batch);
    if (result < 0 && result != -EADDRNOTAVAIL)
        return egress_fail(result, "remove the DNS address an earlier jail left");
    egress_rules_removal(text, sizeof text, instance);
    return apply(text);
}

/* Takes the first free instance, and tidies every other that has no owner. */
static int claim(const char *range)
{
    for (uint32_t i = 0; i < EGRESS_INSTANCES; i++) {
        uint32_t first = 0, size = 0;
        int result = range_share(range, i, &first, &size);
        if (result < 0)
            return result;
        int lock = egress_lock_instance(i);
        if (lock == -EWOULDBLOCK)
            continue;
        if (lock < 0)
            return lock;
        result = clean(i, first + 1);
        if (result < 0 || pool.lock_fd >= 0) {
            egress_unlock_instance(i, lock);
            if (result < 0)
                return result;
            continue;
        }
        pool.lock_fd = lock;
        pool.instance = i;
        pool.gateway = first + 1;
        pool.links = size - 2 < EGRESS_LINKS_MAX ? size - 2 : EGRESS_LINKS_MAX;
    }
    if (pool.lock_fd < 0)
        return egress_fail(-EUSERS, "%d jails with egress run on this host already", EGRESS_INSTANCES);
    return 0;
}

/* --- opening ----------------------------------------------------------------- */

static int open_descriptors(void)
{
    pool.ipv6 = access("/proc/net/if_inet6", F_OK) == 0;
    pool.netns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (pool.netns_fd < 0)
        return egress_fail(-errno, "open the jail's network namespace");
    pool.probe_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (pool.probe_fd < 0)
        return egress_fail(-errno, "open a socket");
    pool.netlink_fd = rtnetlink_open();
    if (pool.netlink_fd < 0)
        return egress_fail(pool.netlink_fd, "open rtnetlink");
    return egress_locks_open(pool.netns_fd);
}

/* The forwarder's address sits on lo: it is there before any link, needs no driver. */
static int add_dns_address(void)
{
    struct rtnetlink_batch batch = {0};
    if (!pool.resolvers.forwarder)
        return 0;
    rtnetlink_add_address(&batch, LOOPBACK_INDEX, htonl(pool.gateway), htonl(pool.gateway));
    int result = rtnetlink_send(pool.netlink_fd, &batch);
    return result < 0 ? egress_fail(result, "add the DNS address to lo") : 0;
}

static int apply_rules(const struct egress_config *config, const char *range)
{
    char text[EGRESS_RULES_BYTES];
    int length = egress_rules(text, sizeof text, pool.instance, range, config, &pool.resolvers);
    if (length < 0)
        return egress_fail(length, "egress ranges allowed or denied");
    return apply(text);
}

int egress_open(const struct egress_config *config)
{
    if (pool.open)
        return egress_fail(-EALREADY, "egress is open");
    if (!config->enabled)
        return 0;
    const char *range = config->range[0] ? config->range : EGRESS_RANGE_DEFAULT;
    memset(pool.state, FREE, sizeof pool.state);
    pool.next = pool.leaving = pool.reap_at = 0;
    int result = open_descriptors();
    if (result == 0)
        result = claim(range);
    if (result == 0)
        result = egress_resolvers_read(htonl(pool.gateway), &pool.resolvers);
    if (result == 0)
        result = add_dns_address();
    if (result == 0)
        result = apply_rules(config, range);
    if (result == 0)
        result = egress_uplinks_open();
    pool.open = 1;
    if (result < 0) {
        char kept[EGRESS_WORDS_BYTES];
        memcpy(kept, egress_error(), sizeof kept);
        egress_close();
        egress_keep_words(kept);
    }
    return result;
}

/* --- links ------------------------------------------------------------------- */

static void host_name(uint32_t number, char name[IFNAMSIZ])
{
    snprintf(name, IFNAMSIZ, EGRESS_PREFIX "%u-%u", pool.instance, number);
}

static uint32_t host_index(uint32_t number)
{
    return LINK_INDEX_BASE + pool.instance * EGRESS_LINKS_MAX + number;
}

static uint32_t link_address(uint32_t number)
{
    return pool.gateway + 1 + number;
}

static void dotted(uint32_t address, char text[16])
{
    struct in_addr network = {.s_addr = htonl(address)};
    inet_ntop(AF_INET, &network, text, 16);
}

int egress_take(struct egress_link *out)
{
    memset(out, 0, sizeof *out);
    out->netns_fd = -1;
    if (!pool.open)
        return egress_fail(-ENONET, "egress is off");
    for (uint32_t i = 0; i < pool.links; i++) {
        uint32_t number = (pool.next + i) % pool.links;
        if (pool.state[number] != FREE)
            continue;
        pool.state[number] = TAKEN;
        pool.next = number + 1;
        out->number = number;
        dotted(link_address(number), out->address);
        dotted(pool.gateway, out->gateway);
        return 0;
    }
    return egress_fail(-EAGAIN, "all %u egress addresses are in use", pool.links);
}

static int make_link(const struct egress_link *link)
{
    char name[IFNAMSIZ];
    host_name(link->number, name);
    struct rtnetlink_veth veth = {.host_name = name,
                                  .peer_name = "eth0",
                                  .host_index = host_index(link->number),
                                  .peer_index = ETH0_INDEX,
                                  .peer_netns_fd = link->netns_fd,
                                  .group = LINK_GROUP_BASE + pool.instance};
    struct rtnetlink_batch batch = {0};
    rtnetlink_add_veth(&batch, &veth);
    rtnetlink_settings(&batch, veth.host_index,
                       RTNETLINK_ROUTER | (pool.ipv6 ? RTNETLINK_NO_IPV6 : 0));
    rtnetlink_add_address(&batch, veth.host_index, htonl(pool.gateway),
                          htonl(link_address(link->number)));
    rtnetlink_link_up(&batch, veth.host_index);
    int result = rtnetlink_send(pool.netlink_fd, &batch);
    return result < 0 ? egress_fail(result, "make link %s", name) : 0;
}

static int configure_sandbox(const struct egress_link *link)
{
    struct rtnetlink_batch batch = {0};
    int fd = rtnetlink_open_in(link->netns_fd, pool.netns_fd);
    if (fd < 0)
        return egress_fail(fd, "open rtnetlink in the sandbox's network namespace");
    rtnetlink_link_up(&batch, LOOPBACK_INDEX);
    rtnetlink_settings(&batch, ETH0_INDEX, pool.ipv6 ? RTNETLINK_NO_IPV6 : 0);
    rtnetlink_add_address(&batch, ETH0_INDEX, htonl(link_address(link->number)),
                          htonl(pool.gateway));
    rtnetlink_link_up(&batch, ETH0_INDEX);
    rtnetlink_default_route(&batch, htonl(pool.gateway), ETH0_INDEX);
    int result = rtnetlink_send(fd, &batch);
    close(fd);
    return result < 0 ? egress_fail(result, "configure eth0 of the sandbox") : 0;
}

int egress_attach_bare(struct egress_link *link, int netns_fd)
{
    if (!pool.open || link->number >= pool.links || pool.state[link->number] != TAKEN ||
        link->netns_fd >= 0)
        return egress_fail(-EINVAL, "attach a link that was not taken");
    link->netns_fd = fcntl(netns_fd, F_DUPFD_CLOEXEC, 3);
    if (link->netns_fd < 0)
        return egress_fail(-errno, "keep the network namespace");
    int result = egress_uplinks_open();
    if (result == 0)
        result = make_link(link);
    return result;
}

int egress_attach(struct egress_link *link, int netns_fd)
{
    int result = egress_attach_bare(link, netns_fd);
    return result == 0 ? configure_sandbox(link) : result;
}

void egress_give(struct egress_link *link)
{
    if (link->netns_fd >= 0)
        close(link->netns_fd);
    link->netns_fd = -1;
    if (!pool.open || link->number >= pool.links || pool.state[link->number] != TAKEN)
        return;
    pool.state[link->number] = LEAVING;
    pool.leaving++;
}

static int interface_exists(uint32_t number)
{
    struct ifreq request = {0};
    host_name(number, request.ifr_name);
    return ioctl(pool.probe_fd, SIOCGIFINDEX, &request) == 0 || errno != ENODEV;
}

void egress_tick(void)
{
    if (!pool.open)
        return;
    /* Bounded: one turn over the addresses, at most 16 questions to the kernel. */
    for (uint32_t i = 0, asked = 0; i < pool.links && asked < 16 && pool.leaving > 0; i++) {
        pool.reap_at = (pool.reap_at + 1) % pool.links;
        if (pool.state[pool.reap_at] != LEAVING)
            continue;
        asked++;
        if (interface_exists(pool.reap_at))
            continue;
        pool.state[pool.reap_at] = FREE;
        pool.leaving--;
    }
    egress_uplinks_open();
}

int egress_pending(void)
{
    return pool.open && pool.leaving > 0;
}

void egress_close(void)
{
    if (!pool.open)
        return;
    if (pool.lock_fd >= 0) {
        clean(pool.instance, pool.gateway);
        egress_uplinks_close(pool.instance, pool.lock_fd);
        pool.lock_fd = -1;
    }
    forget();
}

/* --- DNS --------------------------------------------------------------------- */

int egress_dns_sockets(int *udp, int *tcp)
{
    *udp = *tcp = -1;
    if (!pool.open || !pool.resolvers.forwarder)
        return 0;
    *udp = egress_dns_socket(htonl(pool.gateway), SOCK_DGRAM);
    if (*udp < 0)
        return *udp;
    *tcp = egress_dns_socket(htonl(pool.gateway), SOCK_STREAM);
    if (*tcp >= 0)
        return 1;
    close(*udp);
    *udp = -1;
    return *tcp;
}

int egress_resolv_conf(char *buf, size_t n)
{
    size_t used = 0;
    if (!pool.open)
        return egress_fail(-ENONET, "egress is off");
    for (uint32_t i = 0; i < pool.resolvers.count; i++) {
        char address[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &pool.resolvers.address[i], address, sizeof address);
        int length = snprintf(buf + used, n - used, "nameserver %s\n", address);
        if (length < 0 || (size_t)length >= n - used)
            return egress_fail(-EOVERFLOW, "resolv.conf");
        used += (size_t)length;
    }
    return (int)used;
}
