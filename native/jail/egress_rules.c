/* Composes the nftables rules of egress; see egress_rules.h. */
#define _GNU_SOURCE
#include "egress_rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Never a destination, unless configuration allows it. */
static const struct {
    const char *range;
    const char *why;
} PRIVATE_RANGES[] = {
    {"0.0.0.0/8", "this network"},
    {"10.0.0.0/8", "private"},
    {"100.64.0.0/10", "carrier NAT, overlay VPNs, a cloud's metadata (100.100.100.200)"},
    {"127.0.0.0/8", "loopback"},
    {"168.63.129.16/32", "a cloud's platform service"},
    {"169.254.0.0/16", "link-local: metadata (169.254.169.254), other sandboxes"},
    {"172.16.0.0/12", "private"},
    {"192.0.0.0/24", "protocol assignments"},
    {"192.168.0.0/16", "private"},
    {"198.18.0.0/15", "benchmarks"},
    {"224.0.0.0/4", "multicast"},
    {"240.0.0.0/4", "reserved, broadcast"},
};

struct writer {
    char *text;
    size_t size;
    size_t used;
    int error;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(w->text + w->used, w->size - w->used, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= w->size - w->used)
        w->error = -EOVERFLOW;
    else
        w->used += (size_t)length;
}

int egress_range_parse(const char *text, uint32_t *first, uint64_t *size)
{
    char address[INET_ADDRSTRLEN];
    const char *slash = memchr(text, '/', EGRESS_RANGE_TEXT);
    if (!slash || slash - text >= (long)sizeof address || slash[1] < '0' || slash[1] > '9')
        return -EINVAL;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = 0;
    char *end;
    unsigned long bits = strtoul(slash + 1, &end, 10);
    struct in_addr parsed;
    if (*end || end - slash > 3 || bits > 32 || inet_pton(AF_INET, address, &parsed) != 1)
        return -EINVAL;
    *size = 1ULL << (32 - bits);
    *first = ntohl(parsed.s_addr);
    return *first & (*size - 1) ? -EINVAL : 0;
}

static int usable_resolver(uint32_t address)
{
    uint32_t host = ntohl(address);
    return host >> 24 != 127 && host >> 24 != 0 && host >> 28 < 14;
}

void egress_resolvers_parse(const char *resolv_conf, uint32_t gateway,
                            struct egress_resolvers *out)
{
    memset(out, 0, sizeof *out);
    for (const char *line = resolv_conf; line && *line;) {
        char value[64];
        struct in_addr parsed;
        if (sscanf(line, " nameserver %63[^ \t\r\n]", value) == 1 &&
            inet_pton(AF_INET, value, &parsed) == 1) {
            if (!usable_resolver(parsed.s_addr) && out->count == 0)
                break; /* the preferred one is on loopback */
            if (usable_resolver(parsed.s_addr) && out->count < EGRESS_RESOLVERS_MAX)
                out->address[out->count++] = parsed.s_addr;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    out->forwarder = out->count == 0;
    if (out->forwarder)
        out->address[out->count++] = gateway;
}

static void put_set(struct writer *w, const char *name,
                    const char (*ranges)[EGRESS_RANGE_TEXT], uint32_t count)
{
    put(w, "  set %s {\n    type ipv4_addr\n    flags interval\n    auto-merge\n", name);
    for (uint32_t i = 0; i < count; i++)
        put(w, "%s%s", i == 0 ? "    elements = { " : ", ", ranges[i]);
    put(w, "%s  }\n", count > 0 ? " }\n" : "");
}

static void put_private(struct writer *w)
{
    char ranges[sizeof PRIVATE_RANGES / sizeof *PRIVATE_RANGES][EGRESS_RANGE_TEXT];
    uint32_t count = sizeof PRIVATE_RANGES / sizeof *PRIVATE_RANGES;
    for (uint32_t i = 0; i < count; i++)
        snprintf(ranges[i], sizeof ranges[i], "%s", PRIVATE_RANGES[i].range);
    put_set(w, "private", ranges, count);
}

static void put_resolvers(struct writer *w, const struct egress_resolvers *resolvers)
{
    put(w, "  set resolvers {\n    type ipv4_addr\n    elements = { ");
    for (uint32_t i = 0; i < resolvers->count; i++) {
        char address[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &resolvers->address[i], address, sizeof address);
        put(w, "%s%s", i ? ", " : "", address);
    }
    put(w, " }\n  }\n");
    for (int i = 0; i < 2; i++)
        put(w, "  set %s {\n    type ipv4_addr\n    flags dynamic\n    size %d\n  }\n",
            i ? "queries" : "connections", EGRESS_LINKS_MAX);
}

/* One line, one reason. %u is the instance. */
static const char *const RULES[] = {
    /* Told, not dropped: SDKs that probe for metadata go on at once. TCP gets a
     * reset, because the kernel limits the rate of ICMP to a peer. */
    "  chain refuse {\n"
    "    meta l4proto tcp reject with tcp reset\n"
    "    reject with icmp type admin-prohibited\n  }\n",
    /* As many as a network interface may send in a VPC: a flood would crowd out the other
     * sandboxes' queries at the forwarder's one socket. */
    "  chain resolve {\n"
    "    add @queries { ip saddr limit rate over 1024/second burst 1024 packets } drop\n"
    "    accept\n  }\n",
    /* What comes from a sandbox, wherever it goes. */
    "  chain sandbox {\n"
    /* IPv6 has no NAT here and would bypass every range below. */
    "    meta nfproto ipv6 drop\n"
    /* A source address other than the link's own. */
    "    fib saddr . iif oif missing drop\n"
    "    ct state invalid drop\n"
    /* The connection table is the host's: one sandbox cannot fill it. */
    "    ct state new add @connections { ip saddr ct count over 1024 } goto refuse\n"
    "    ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 goto resolve\n"
    "  }\n",
    /* To the host itself: its services on any of its addresses. */
    "  chain input {\n    type filter hook input priority -10; policy accept;\n"
    "    iifname != \"" EGRESS_PREFIX "%u-*\" accept\n"
    "    jump sandbox\n"
    "    goto refuse\n  }\n",
    /* From the host: its processes have no business with a sandbox's ports. */
    "  chain output {\n    type filter hook output priority -10; policy accept;\n"
    "    oifname != \"" EGRESS_PREFIX "%u-*\" accept\n"
    "    ct state established,related accept\n"
    "    drop\n  }\n",
    /* From outside, or from another sandbox. */
    "  chain inbound {\n"
    "    iifname \"" EGRESS_PREFIX "*\" goto refuse\n"
    "    ct state established,related accept\n"
    "    drop\n  }\n",
    "  chain outbound {\n"
    "    jump sandbox\n"
    "    oifname \"" EGRESS_PREFIX "*\" goto refuse\n"
    /* Lambda blocks it too: no spam. */
    "    tcp dport 25 goto refuse\n"
    "    ip daddr @denied goto refuse\n"
    "    ip daddr @allowed accept\n"
    "    ip daddr @private goto refuse\n"
    "    accept\n  }\n",
    "  chain forward {\n    type filter hook forward priority -10; policy accept;\n"
    "    oifname \"" EGRESS_PREFIX "%u-*\" jump inbound\n"
    "    iifname \"" EGRESS_PREFIX "%u-*\" jump outbound\n  }\n",
};

int egress_rules(char *text, size_t size, uint32_t instance, const char *range,
                 const struct egress_config *config, const struct egress_resolvers *resolvers)
{
    struct writer w = {.text = text, .size = size};
    uint32_t first;
    uint64_t length;
    if (config->allowed_count > EGRESS_RANGES_MAX || config->denied_count > EGRESS_RANGES_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < config->allowed_count; i++)
        if (egress_range_parse(config->allowed[i], &first, &length) < 0)
            return -EINVAL;
    for (uint32_t i = 0; i < config->denied_count; i++)
        if (egress_range_parse(config->denied[i], &first, &length) < 0)
            return -EINVAL;
    w.used = (size_t)egress_rules_removal(text, size, instance);
    put(&w, "table inet stoker%u {\n", instance);
    put_private(&w);
    put_set(&w, "allowed", config->allowed, config->allowed_count);
    put_set(&w, "denied", config->denied, config->denied_count);
    put_resolvers(&w, resolvers);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* RULES is constant; unused numbers are fine */
#pragma GCC diagnostic ignored "-Wformat-extra-args"
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
        put(&w, RULES[i], instance, instance);
#pragma GCC diagnostic pop
    put(&w, "  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n"
            "    ip saddr %s oifname != \"" EGRESS_PREFIX "*\" masquerade\n  }\n}\n", range);
    return w.error ? w.error : (int)w.used;
}

int egress_rules_removal(char *text, size_t size, uint32_t instance)
{
    /* Naming a table makes it, so that deleting it never fails. */
    return snprintf(text, size, "table inet stoker%u\ndelete table inet stoker%u\n", instance,
                    instance);
}
