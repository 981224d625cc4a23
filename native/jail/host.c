/* Opens everything that sandboxes are made of; see host.h. */
#define _GNU_SOURCE
#include "host.h"

#include "cgroup.h"
#include "egress.h"
#include "identity.h"
#include "images.h"
#include "init_program.h"
#include "namespaces.h"
#include "protocol.h"
#include "seccomp.h"
#include "template.h"
#include "tmp_volume.h"
#include "vm.h"
#include "zygotes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_FILES 65536

_Noreturn void host_fail(const char *what, const char *detail, int error)
{
    fprintf(stderr, "stoker-jail: %s%s%s: %s\n", what, *detail ? ": " : "", detail, strerror(-error));
    exit(1);
}

/* Sandboxes must not have our terminal. Without one they need no session of their own, which costs 0.14 ms. */
static int leave_terminal(void)
{
    setsid();
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0)
        return 0;
    close(terminal);
    return 1;
}

static void open_egress(const struct options *options, struct host *host)
{
    int error = options->rootless ? -EPERM : egress_open(&options->egress);
    if (error) {
        fprintf(stderr, "stoker-jail: no egress: %s\n", options->rootless ? "needs root" : egress_error());
        host->degraded |= JAIL_NO_EGRESS;
        return;
    }
    if (!options->egress.enabled)
        return;
    host->features |= JAIL_EGRESS_READY;
    /* A name server on every address of the host has the port: sandboxes ask that one then. */
    if (egress_dns_sockets(&host->dns[0], &host->dns[1]) < 0)
        fprintf(stderr, "stoker-jail: no DNS forwarder: %s\n", egress_error());
}

static void open_tmp(const struct options *options, struct host *host)
{
    int kind = tmp_volume_open(options->state, options->tmp_capacity_bytes, options->rootless);
    if (kind < 0)
        host_fail("/tmp of sandboxes", tmp_volume_error(), kind);
    host->tmp_kind = (uint32_t)kind;
    host->degraded |= kind == TMP_VOLUME_TMPFS ? JAIL_TMP_IN_MEMORY : 0;
}

static void open_images(const struct options *options, struct host *host)
{
    host->features |= options->rootless ? 0 : images_open(options->state, options->images_by_loop);
    if (!(host->features & JAIL_IMAGES))
        host->degraded |= JAIL_NO_IMAGES;
    else if (!(host->features & JAIL_VOLUMES))
        host->degraded |= JAIL_NO_VOLUMES;
}

static int open_template(const char *state, const struct host *host)
{
    char staging[4096], resolv_conf[4096] = "";
    const char *step = "";
    snprintf(staging, sizeof staging, "%s/root", state);
    if (mkdir(staging, 0700) < 0 && errno != EEXIST)
        host_fail("making the folder", staging, -errno);
    if (host->features & JAIL_EGRESS_READY && egress_resolv_conf(resolv_conf, sizeof resolv_conf) < 0)
        resolv_conf[0] = 0;
    int template = template_open(staging, resolv_conf, &step);
    if (template < 0)
        host_fail("the sandboxes' root", step, template);
    return template;
}

static void raise_limits(void)
{
    struct rlimit files = {.rlim_cur = OPEN_FILES, .rlim_max = OPEN_FILES};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    /* What the jail has is what the owner of a user namespace may have altogether; a sandbox gets a limit of its own. */
    const struct rlimit signals = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    setrlimit(RLIMIT_SIGPENDING, &signals);
}

void host_open(const struct options *options, struct host *host)
{
    raise_limits();
    *host = (struct host){.dns = {-1, -1}};
    int error = namespaces_open(options->rootless);
    if (error)
        host_fail("mount namespace", "", error);
    /* First: it ends an earlier life's sandboxes. */
    error = cgroup_open(options->state, options->instance, options->only_v1, &host->features, &host->degraded);
    if (error)
        host_fail("sandboxes of an earlier life do not end", "", error);
    cgroup_limit_all();
    host->features |= options->rootless ? JAIL_ROOTLESS : 0;
    host->degraded |= identity_open(options->id_base, options->rootless) ? JAIL_SHARED_UID : 0;
    host->degraded |= seccomp_filter() ? 0 : JAIL_NO_SECCOMP;
    open_tmp(options, host);
    open_images(options, host);
    open_egress(options, host);
    host->features |= vms_open(options) ? JAIL_VMS : 0;
    /* An ordinary user's zygote would run as the jail itself does. */
    if (!options->rootless && cgroup_admit_all(identity_zygotes()) == 0)
        host->features |= JAIL_ZYGOTES;
    zygotes_open();
    host->degraded |= host->features & JAIL_ZYGOTES ? 0 : JAIL_NO_ZYGOTES;
    host->sandboxes = (struct sandbox_host){
        .template = open_template(options->state, host),
        .egress = (host->features & JAIL_EGRESS_READY) != 0,
        .terminal = leave_terminal(),
        .zygotes = (host->features & JAIL_ZYGOTES) != 0,
        .init = init_program_load(options->init),
    };
    if (host->sandboxes.init < 0)
        host_fail("the init program", options->init, host->sandboxes.init);
}
