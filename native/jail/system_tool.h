/* Runs one system tool (nft, mkfs) to its end: no shell, no inherited
 * environment, no inherited descriptors. Knows nothing of what the tool does.
 */
#ifndef STOKER_SYSTEM_TOOL_H
#define STOKER_SYSTEM_TOOL_H

#include <stddef.h>

/* Looks for argv[0] in the system's own sbin and bin folders only. input is
 * written to its standard input (NULL: empty); what it says on standard output
 * and error ends up in said, cut to size. 0 when it exits with 0, -ENOENT when
 * the host lacks it, -EPROTO when it fails, or another -errno. */
int system_tool_run(const char *const argv[], const char *input, char *said, size_t size);

#endif
