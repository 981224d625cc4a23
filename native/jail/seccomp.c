/* The compiled filter; see seccomp.h. seccomp_compile.c writes the program. */
#include "seccomp.h"

static struct sock_filter PROGRAM[] = {
#include "seccomp_program.h"
};

static const struct sock_fprog FILTER = {
    .len = sizeof PROGRAM / sizeof *PROGRAM,
    .filter = PROGRAM,
};

const struct sock_fprog *seccomp_filter(void)
{
    return &FILTER;
}
