/* An ordered checklist; see surrender.h. Nothing here knows who asks. */
#define _GNU_SOURCE
#include "surrender.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SIGNALS_PENDING_MAX 1024

static int result(long value)
{
    return value < 0 ? -errno : 0;
}

static int limit_resources(const struct surrender_plan *plan)
{
    const struct {
        __rlimit_resource_t which;
        rlim_t most;
    } wanted[] = {{RLIMIT_NOFILE, plan->open_files_max},
                  {RLIMIT_CORE, 1}, /* none, and unlike 0 it also keeps a core_pattern's program from being run */
                  {RLIMIT_MEMLOCK, 64 << 10},
                  {RLIMIT_MSGQUEUE, 0},
                  {RLIMIT_SIGPENDING, SIGNALS_PENDING_MAX}, /* timers count as well */
                  {RLIMIT_RTPRIO, 0},
                  {RLIMIT_NICE, 0}};
    for (size_t i = 0; i < COUNT(wanted); i++) {
        struct rlimit limit = {.rlim_cur = wanted[i].most, .rlim_max = wanted[i].most};
        if (setrlimit(wanted[i].which, &limit) < 0)
            return -errno;
    }
    return 0;
}

static int drop_bounding(const struct surrender_plan *plan)
{
    (void)plan;
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            return errno == EINVAL ? 0 : -errno; /* beyond the last one this kernel knows */
    return 0;
}

static int lock_secure_bits(const struct surrender_plan *plan)
{
    (void)plan;
    return result(prctl(PR_SET_SECUREBITS,
                        SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                            SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
                        0, 0, 0));
}

static int become_user(const struct surrender_plan *plan)
{
    if (plan->may_set_groups && setgroups(0, NULL) < 0)
        return -errno;
    if (setresgid(plan->gid, plan->gid, plan->gid) < 0)
        return -errno;
    return result(setresuid(plan->uid, plan->uid, plan->uid));
}

static int drop_capabilities(const struct surrender_plan *plan)
{
    (void)plan;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    return result(syscall(SYS_capset, &header, none));
}

static int forbid_new_privileges(const struct surrender_plan *plan)
{
    (void)plan;
    return result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static int filter_system_calls(const struct surrender_plan *plan)
{
    return plan->filter ? result(prctl(PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, plan->filter)) : 0;
}

static const struct {
    const char *name;
    int (*run)(const struct surrender_plan *plan);
} STEPS[] = {
    {"limiting resources", limit_resources},
    {"dropping the bounding set", drop_bounding}, /* needs CAP_SETPCAP, so before the capabilities go */
    {"locking secure bits", lock_secure_bits},    /* likewise */
    {"becoming the user", become_user},           /* needs CAP_SETUID and CAP_SETGID */
    {"dropping capabilities", drop_capabilities},
    {"no new privileges", forbid_new_privileges}, /* a filter without privilege requires it */
    {"filtering system calls", filter_system_calls}, /* last: it forbids most of the above */
};

int surrender(const struct surrender_plan *plan, const char **step)
{
    int error = 0;
    for (size_t i = 0; i < COUNT(STEPS) && !error; i++) {
        *step = STEPS[i].name;
        error = STEPS[i].run(plan);
    }
    return error;
}
