/* The mount namespace every sandbox starts as a copy of: a small read-only root made once at the jail's start.
 *
 * It holds the host's programs read-only, a generated /etc and a few devices, and nothing else of the host: no
 * home, no /run, no /sys, no data folder, and a /proc of a pid namespace in which nothing lives.
 */
#ifndef STOKER_JAIL_TEMPLATE_H
#define STOKER_JAIL_TEMPLATE_H

/* A descriptor of the namespace, or -errno with *step naming what failed. `staging` is an empty folder that is
 * mounted over inside the namespace alone; `resolv_conf` becomes /etc/resolv.conf. */
int template_open(const char *staging, const char *resolv_conf, const char **step);

#endif
