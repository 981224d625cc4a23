/* Egress of sandboxes: NAT to the Internet, to nothing private and nothing of
 * the host. A pool of addresses; one static nftables table.
 *
 * What the jail calls, and when (needs root in the initial user namespace):
 *   1. at start egress_open(). On -errno it runs on with loopback only and
 *      shows egress_error() as the reason in its hello and in `doctor`.
 *   2. egress_dns_sockets() once after that. When it returns 1, hand both
 *      sockets to stoker, which serves DNS on them; 0: no forwarder is needed.
 *      egress_resolv_conf() is the sandbox's /etc/resolv.conf.
 *   3. per sandbox: clone3 the child with CLONE_NEWUSER | CLONE_NEWNET as
 *      without egress, so that the network namespace belongs to the sandbox's
 *      user namespace; then egress_take() and egress_attach(link, netns_fd)
 *      with an fd of /proc/PID/ns/net. Attach makes the link, its far end
 *      straight in that namespace as eth0 (index 2), and sets address, default
 *      route, lo and eth0 up. It takes 0.7 to 0.9 ms, which the child's mounts hide.
 *   4. when the sandbox is gone: egress_give(). The link dies with its
 *      namespace: close every other fd of that. A link is never used twice; its
 *      address returns once the kernel has dropped the interface.
 *   5. idle: egress_tick() takes addresses back; egress_pending() says whether
 *      there is more to do (then call it every 100 ms or so).
 *   6. at the end: egress_close() removes table and links.
 *
 * Why no pool of ready links (medians, kernel 6.18, 2 vCPU): moving the prepared
 * end of a veth into a namespace costs 19 ms [15, 35] (the kernel waits for RCU),
 * making the pair with one end there 0.43 ms and configuring it 0.15 (p95
 * 3 ms while others are torn down). A pool of ready namespaces would cost nothing,
 * but they would belong to the jail's user namespace: zygotes could not join them.
 *
 * Up to EGRESS_INSTANCES jails on one host keep out of each other's way: each
 * locks a number, which is part of its table's and its links' names.
 *
 * All functions belong to one thread. Errors are negative errno numbers, and
 * egress_error() has the words. Knows nothing of sandboxes but a namespace fd.
 */
#ifndef STOKER_EGRESS_H
#define STOKER_EGRESS_H

#include <stddef.h>
#include <stdint.h>

#define EGRESS_RANGES_MAX 32
#define EGRESS_RANGE_TEXT 20 /* "255.255.255.255/32" and its NUL */
#define EGRESS_LINKS_MAX 4096

/* Host ends are called stk0, stk1, ...; the nftables table is keyed on that. */
#define EGRESS_INSTANCES 8

/* Host ends are called stk<instance>-<number>. */
#define EGRESS_PREFIX "stk"

/* Link-local: clashes with no home, office, VPN (Tailscale uses 100.64.0.0/10)
 * or cloud network, and stays clear of the metadata and DNS addresses in
 * 169.254.169.0 to 169.254.172.255. Lambda's own sandboxes live in it too. */
#define EGRESS_RANGE_DEFAULT "169.254.64.0/18"

struct egress_config {
    int enabled; /* 0: egress_open returns 0 and take returns -ENONET */
    /* Where sandboxes get addresses: an IPv4 range in CIDR, /16 to /24, one
     * address each, an eighth for each instance. "" is EGRESS_RANGE_DEFAULT. */
    char range[EGRESS_RANGE_TEXT];
    /* Private ranges sandboxes may reach all the same (a VPC of one's own). */
    char allowed[EGRESS_RANGES_MAX][EGRESS_RANGE_TEXT];
    uint32_t allowed_count;
    /* Public ranges they may not reach (the fleet's own addresses). */
    char denied[EGRESS_RANGES_MAX][EGRESS_RANGE_TEXT];
    uint32_t denied_count;
};

struct egress_link {
    int netns_fd;     /* the namespace attached to (dup, close-on-exec), or -1 */
    uint32_t number;  /* of the link: the host end is stk<instance>-<number> */
    char address[16]; /* of the sandbox, dotted quad */
    char gateway[16];
};

/* Applies the nftables table and the sysctls; removes what an earlier life
 * left. -EOPNOTSUPP: nft is missing or the kernel lacks nf_tables or NAT. */
int egress_open(const struct egress_config *config);

/* Reserves an address. -ENONET when disabled, -EAGAIN when all are in use. */
int egress_take(struct egress_link *out);

/* Makes the link into the network namespace and configures both ends. On error
 * the link is of no use: egress_give it. */
int egress_attach(struct egress_link *link, int netns_fd);

/* The same without address, route and lo in that namespace: whatever stands behind eth0 has the address. */
int egress_attach_bare(struct egress_link *link, int netns_fd);

/* Returns the link; closes its netns_fd. */
void egress_give(struct egress_link *link);

void egress_tick(void);
int egress_pending(void);
void egress_close(void);

/* 1 and two bound sockets (UDP; TCP listening; close-on-exec, non-blocking)
 * when the host's resolver is on loopback, 0 when sandboxes ask the host's
 * resolvers directly, -errno. The caller owns the sockets. */
int egress_dns_sockets(int *udp, int *tcp);

/* Content of the sandbox's /etc/resolv.conf; its length, or -errno. */
int egress_resolv_conf(char *buf, size_t n);

/* Words for the last error, with the step that failed; never NULL. */
const char *egress_error(void);

#endif
