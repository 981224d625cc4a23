/* The parts of the supervisor: set-up, starting children, watching them. Inside
 * the supervisor only. It parses nothing but its own command line.
 */
#ifndef STOKER_SUPERVISOR_H
#define STOKER_SUPERVISOR_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

#define SUPERVISOR_ARGUMENTS_MAX 64
#define JAIL_LISTENER_FD 3
#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_KEPT_FAILING 70 /* EX_SOFTWARE */
#define EXIT_IN_USE 75       /* EX_TEMPFAIL: another supervisor has this data folder */
#define EXIT_CONFIGURATION 78 /* EX_CONFIG: starting it again will not help */

struct supervisor {
    uid_t uid; /* of the service */
    gid_t gid;
    int rootless; /* we are an ordinary user; the jail gets a user namespace */
    const char *data;
    const char *run_dir;
    const char *jail;
    char *jail_arguments[SUPERVISOR_ARGUMENTS_MAX];
    uint32_t jail_argument_count;
    char **service; /* command and arguments, NULL at the end */
    int data_fd;
    int run_fd;
    int lock_fd;
    int listener_fd;
    char socket_path[108];
    char state_path[4096];
};

/* Says "stoker-supervisor: ..." with errno's text when error is not 0, and exits. */
_Noreturn __attribute__((format(printf, 3, 4))) void supervisor_die(int status, int error,
                                                                    const char *format, ...);
__attribute__((format(printf, 1, 2))) void supervisor_say(const char *format, ...);

/* The ordered checklist before anything is started; dies with words. */
void supervisor_set_up(struct supervisor *s);

/* Start the child; its pid, or -errno. Both die with the supervisor. */
pid_t supervisor_start_jail(const struct supervisor *s);
pid_t supervisor_start_service(const struct supervisor *s);

/* Gives the process, which has made a user namespace, its ids: 0 is the caller, the
 * rest a range of /etc/subuid through newuidmap where there is one. -errno. */
int supervisor_map_ids(pid_t pid);

#endif
