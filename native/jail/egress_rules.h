/* What sandboxes may reach, as text for nft(8). Pure: configuration and
 * resolvers in, text out. Knows nothing of links or namespaces.
 */
#ifndef STOKER_EGRESS_RULES_H
#define STOKER_EGRESS_RULES_H

#include "egress.h"

#define EGRESS_RULES_BYTES 16384
#define EGRESS_RESOLVERS_MAX 3 /* as many as glibc reads */

struct egress_resolvers {
    uint32_t count;
    uint32_t address[EGRESS_RESOLVERS_MAX]; /* network byte order */
    int forwarder; /* 1: the host's are on loopback, the one address is ours */
};

/* A CIDR range to first address and size (host byte order); -EINVAL. */
int egress_range_parse(const char *text, uint32_t *first, uint64_t *size);

/* The nameservers of a resolv.conf that a sandbox can reach; forwarder when the
 * first of them is on loopback, or none is IPv4. */
void egress_resolvers_parse(const char *resolv_conf, uint32_t gateway,
                            struct egress_resolvers *out);

/* The length of the text, -EINVAL for a malformed range, -EOVERFLOW. */
int egress_rules(char *text, size_t size, uint32_t instance, const char *range,
                 const struct egress_config *config, const struct egress_resolvers *resolvers);

/* What makes nft forget an instance's table, also when there is none. */
int egress_rules_removal(char *text, size_t size, uint32_t instance);

#endif
