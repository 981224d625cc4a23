/* The system call filter of sandboxes, compiled ahead from seccomp_rules.h.
 *
 * The child installs it last, after no_new_privs, with
 *     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, seccomp_filter())
 * Never a system call it needs afterwards other than execve may be missing
 * from the list: mount, pivot_root, setns and unshare are.
 */
#ifndef STOKER_SECCOMP_H
#define STOKER_SECCOMP_H

#include <linux/filter.h>

/* Prebuilt BPF for this architecture; static storage, never fails. */
const struct sock_fprog *seccomp_filter(void);

/* The same with what a zygote needs to send its children into sandboxes (the rules marked ZYGOTE); each of them
 * installs seccomp_filter() on top. */
const struct sock_fprog *seccomp_zygote_filter(void);

#endif
