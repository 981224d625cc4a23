/* The compiled filters; see seccomp.h. seccomp_compile.c writes the programs. */
#include "seccomp.h"

static struct sock_filter PROGRAM[] = {
#include "seccomp_program.h"
};

static struct sock_filter ZYGOTE_PROGRAM[] = {
#include "seccomp_zygote_program.h"
};

static const struct sock_fprog FILTER = {
    .len = sizeof PROGRAM / sizeof *PROGRAM,
    .filter = PROGRAM,
};

static const struct sock_fprog ZYGOTE_FILTER = {
    .len = sizeof ZYGOTE_PROGRAM / sizeof *ZYGOTE_PROGRAM,
    .filter = ZYGOTE_PROGRAM,
};

const struct sock_fprog *seccomp_filter(void)
{
    return &FILTER;
}

const struct sock_fprog *seccomp_zygote_filter(void)
{
    return &ZYGOTE_FILTER;
}
