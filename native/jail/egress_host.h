/* What egress reads and switches on the host: default routes' links, resolvers,
 * DNS sockets; and the words of errors. Knows nothing of links to sandboxes.
 */
#ifndef STOKER_EGRESS_HOST_H
#define STOKER_EGRESS_HOST_H

#include "egress_rules.h"

#define EGRESS_WORDS_BYTES 512

/* Keeps the words and the errno's text for egress_error(); returns error. */
__attribute__((format(printf, 2, 3))) int egress_fail(int error, const char *format, ...);
void egress_keep_words(const char kept[EGRESS_WORDS_BYTES]);

/* Lets the default routes' links forward; looks again every few seconds, since
 * a laptop changes networks. close gives the instance's lock back; the last jail
 * on the host switches off what any of them, also a killed one, switched on. */
int egress_uplinks_open(void);
void egress_uplinks_close(uint32_t instance, int instance_lock);

int egress_resolvers_read(uint32_t gateway, struct egress_resolvers *out);

/* Bound to the gateway's port 53, listening if a stream; an fd or -errno. */
int egress_dns_socket(uint32_t gateway, int type);

#endif
