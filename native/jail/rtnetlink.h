/* The few rtnetlink(7) requests egress needs. A batch is filled, then sent
 * with one system call; the kernel works through it in order. Knows nothing of
 * pools, ranges or sandboxes. Addresses are in network byte order.
 */
#ifndef STOKER_RTNETLINK_H
#define STOKER_RTNETLINK_H

#include <stdint.h>

#define RTNETLINK_BATCH_BYTES 2048
#define RTNETLINK_BATCH_MESSAGES 8

struct rtnetlink_batch {
    uint32_t used;
    uint32_t messages;
    _Alignas(4) unsigned char bytes[RTNETLINK_BATCH_BYTES];
};

struct rtnetlink_veth {
    const char *host_name;
    const char *peer_name;
    uint32_t host_index; /* chosen by the caller, so that nothing is asked back */
    uint32_t peer_index;
    int peer_netns_fd; /* the namespace the peer is born in */
    uint32_t group;    /* of the host end: the whole group is deleted at once */
};

/* A socket in the calling thread's network namespace, or -errno. */
int rtnetlink_open(void);
/* A socket in the namespace of netns_fd; own_netns_fd is where to return. */
int rtnetlink_open_in(int netns_fd, int own_netns_fd);

/* Sends the batch and empties it; 0, or the first -errno of its messages. */
int rtnetlink_send(int fd, struct rtnetlink_batch *batch);

void rtnetlink_add_veth(struct rtnetlink_batch *batch, const struct rtnetlink_veth *veth);
/* Per-link sysctls. RTNETLINK_ROUTER forwards and checks reverse paths. The
 * link makes no IPv6 address of its own (no DAD, no multicast chatter) with
 * RTNETLINK_NO_IPV6: only where the kernel has IPv6 (-EAFNOSUPPORT otherwise).
 * The link must exist: creation does not take these. */
#define RTNETLINK_ROUTER 1
#define RTNETLINK_NO_IPV6 2
#define RTNETLINK_PROXY 4 /* with ROUTER: answers ARP for what is behind it */
void rtnetlink_settings(struct rtnetlink_batch *batch, uint32_t index, int settings);
void rtnetlink_link_up(struct rtnetlink_batch *batch, uint32_t index);
/* local with a point-to-point peer; peer == local for a plain /32. */
void rtnetlink_add_address(struct rtnetlink_batch *batch, uint32_t index, uint32_t local,
                           uint32_t peer);
void rtnetlink_delete_address(struct rtnetlink_batch *batch, uint32_t index, uint32_t local);
void rtnetlink_default_route(struct rtnetlink_batch *batch, uint32_t gateway, uint32_t index);
/* To one host, directly on the link. */
void rtnetlink_host_route(struct rtnetlink_batch *batch, uint32_t host, uint32_t index);
void rtnetlink_delete_link(struct rtnetlink_batch *batch, uint32_t index);
void rtnetlink_delete_group(struct rtnetlink_batch *batch, uint32_t group);

#endif
