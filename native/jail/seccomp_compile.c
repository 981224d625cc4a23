/* Build-time program: turns seccomp_rules.h into BPF, printed as C initialisers; with "zygote" into that of zygotes.
 *
 * The program checks the architecture, then finds the call by binary search over
 * ranges of numbers with the same answer: seven or eight steps, where a list
 * as libseccomp writes takes hundreds. Run on the architecture it is built for.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* Calls newer than some headers; from 424 on numbers are the same everywhere. */
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_map_shadow_stack
#define __NR_map_shadow_stack 453
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake 454
#define __NR_futex_wait 455
#define __NR_futex_requeue 456
#endif
#ifndef __NR_statmount
#define __NR_statmount 457
#define __NR_listmount 458
#endif
#ifndef __NR_lsm_set_self_attr
#define __NR_lsm_set_self_attr 460
#endif
#ifndef __NR_mseal
#define __NR_mseal 462
#endif
#ifndef __NR_open_tree_attr
#define __NR_open_tree_attr 467
#endif

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define X32_BIT 0x40000000U /* the same kernel entries with other argument sizes */
#define HAS_EVERY_CALL 1    /* a name without a number here is a typing error */
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define X32_BIT 0
#define HAS_EVERY_CALL 0 /* it has no open, fork, stat, ...: not listed then */
#else
#error "no system call filter for this architecture yet: see seccomp_rules.h"
#endif

#define RULES_MAX 512
#define PROGRAM_MAX BPF_MAXINSNS
#define ALLOWED SECCOMP_RET_ALLOW
#define ANSWER(error) (SECCOMP_RET_ERRNO | ((error) & SECCOMP_RET_DATA))
#define ZYGOTE_MAY 0xffff0000U /* no answer of the kernel's: allowed in the zygotes' program, else the errno below */

/* --- checks on arguments ----------------------------------------------------- */

/* Where a check's jumps may end, replaced when the check is placed. */
#define YES 254
#define NO 255
/* The low half: the kernel reads these arguments as 32 bits; little-endian. */
#define ARGUMENT(n) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#define EQUALS(value, then, otherwise) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (then), (otherwise))

struct check {
    const char *name;
    uint32_t length;
    struct sock_filter code[16];
};

static const struct check CHECKS[] = {
    {"harmless_request", 8, {
        ARGUMENT(1),
        EQUALS(0x5412, NO, 0),     /* TIOCSTI */
        EQUALS(0x541c, NO, 0),     /* TIOCLINUX */
        EQUALS(0x40049409, YES, 0), /* FICLONE: copies of files, quota counts */
        EQUALS(0x4020940d, YES, 0), /* FICLONERANGE */
        EQUALS(0xc0189436, YES, 0), /* FIDEDUPERANGE */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
        EQUALS(0x9400, NO, YES),   /* any other of btrfs's: subvolumes, devices */
    }},
    {"no_new_namespace", 2, {
        ARGUMENT(0),
        /* CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x7e020000, NO, YES),
    }},
    {"known_personality", 6, {
        ARGUMENT(0),
        EQUALS(0x00000000, YES, 0),  /* PER_LINUX */
        EQUALS(0x00000008, YES, 0),  /* PER_LINUX32 */
        EQUALS(0x00020000, YES, 0),  /* UNAME26 */
        EQUALS(0x00020008, YES, 0),
        EQUALS(0xffffffff, YES, NO), /* asks which */
    }},
    {"usual_mapping", 2, {
        ARGUMENT(3),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x40000, NO, YES), /* MAP_HUGETLB */
    }},
    {"usual_memory_file", 2, {
        ARGUMENT(1),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x4, NO, YES), /* MFD_HUGETLB */
    }},
    {"common_socket", 16, {
        ARGUMENT(0),
        EQUALS(1, YES, 0),   /* AF_UNIX */
        EQUALS(2, 4, 0),     /* AF_INET */
        EQUALS(10, 3, 0),    /* AF_INET6 */
        EQUALS(16, 0, NO),   /* AF_NETLINK */
        ARGUMENT(2),
        EQUALS(0, YES, NO),  /* NETLINK_ROUTE */
        ARGUMENT(1),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf), /* flags share the number */
        EQUALS(1, 1, 0),     /* SOCK_STREAM */
        EQUALS(2, 0, NO),    /* SOCK_DGRAM */
        ARGUMENT(2),
        EQUALS(0, YES, 0),
        EQUALS(6, YES, 0),   /* TCP */
        EQUALS(17, YES, 0),  /* UDP */
        EQUALS(262, YES, NO), /* MPTCP: what Go's listeners ask for */
    }},
    {"unix_family", 2, {
        ARGUMENT(0),
        EQUALS(1, YES, NO),
    }},
};

/* --- rules ------------------------------------------------------------------- */

struct rule {
    const char *name;
    const char *number; /* its digits, or "__NR_name" where this architecture lacks it */
    uint32_t answer;    /* when allowed or denied outright, or when the check says no */
    const char *check;
};

#define DIGITS(macro) #macro
#define NUMBER(macro) DIGITS(macro)
#define ALLOW(name) {#name, NUMBER(__NR_##name), ALLOWED, NULL},
#define DENY(name, error) {#name, NUMBER(__NR_##name), ANSWER(error), NULL},
#define WHEN(name, check, error) {#name, NUMBER(__NR_##name), ANSWER(error), #check},
#define ZYGOTE(name, error) {#name, NUMBER(__NR_##name), ZYGOTE_MAY | (error), NULL},

static const struct rule RULES[] = {
#include "seccomp_rules.h"
};

struct range {
    uint32_t first; /* up to the next range's first */
    uint32_t answer;
    const struct check *check;
};

static const struct rule *by_number[RULES_MAX];
static struct range ranges[2 * RULES_MAX + 2];
static uint32_t range_count;
static struct sock_filter program[PROGRAM_MAX];
static uint32_t length;

static _Noreturn void wrong(const char *what, const char *name)
{
    fprintf(stderr, "seccomp_rules.h: %s: %s\n", name, what);
    exit(1);
}

static void sort_rules(void)
{
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++) {
        const struct rule *rule = &RULES[i];
        if (!isdigit((unsigned char)rule->number[0])) {
            if (HAS_EVERY_CALL)
                wrong("no such system call", rule->name);
            continue;
        }
        unsigned long number = strtoul(rule->number, NULL, 10);
        if (number >= RULES_MAX)
            wrong("number too high", rule->name);
        if (by_number[number])
            wrong("listed twice", rule->name);
        by_number[number] = rule;
    }
}

static const struct check *find_check(const struct rule *rule)
{
    if (!rule || !rule->check)
        return NULL;
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++)
        if (strcmp(CHECKS[i].name, rule->check) == 0)
            return &CHECKS[i];
    wrong("no such check", rule->check);
}

static void add_range(uint32_t first, uint32_t answer, const struct check *check)
{
    const struct range *last = range_count ? &ranges[range_count - 1] : NULL;
    if (last && !last->check && !check && last->answer == answer)
        return;
    ranges[range_count++] = (struct range){first, answer, check};
}

static uint32_t answer_of(const struct rule *rule, int for_zygotes)
{
    if (!rule)
        return ANSWER(ENOSYS);
    if ((rule->answer & ZYGOTE_MAY) != ZYGOTE_MAY)
        return rule->answer;
    return for_zygotes ? ALLOWED : ANSWER(rule->answer);
}

static void make_ranges(int for_zygotes)
{
    for (uint32_t number = 0; number < RULES_MAX; number++) {
        const struct rule *rule = by_number[number];
        add_range(number, answer_of(rule, for_zygotes), find_check(rule));
    }
    add_range(RULES_MAX, ANSWER(ENOSYS), NULL);
}

/* --- code -------------------------------------------------------------------- */

static void emit(struct sock_filter instruction)
{
    if (length == PROGRAM_MAX)
        wrong("the program is too long", "all");
    program[length++] = instruction;
}

static void emit_return(uint32_t answer)
{
    emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer));
}

static uint8_t place(uint8_t target, uint32_t left)
{
    if (target == YES)
        return (uint8_t)left;
    return target == NO ? (uint8_t)(left + 1) : target;
}

static void emit_check(const struct range *range)
{
    for (uint32_t i = 0; i < range->check->length; i++) {
        struct sock_filter instruction = range->check->code[i];
        if (BPF_CLASS(instruction.code) == BPF_JMP) {
            instruction.jt = place(instruction.jt, range->check->length - i - 1);
            instruction.jf = place(instruction.jf, range->check->length - i - 1);
        }
        emit(instruction);
    }
    emit_return(ALLOWED);
    emit_return(range->answer);
}

/* The ranges from `from` to before `to`: left half, right half, a jump before. */
static void emit_search(uint32_t from, uint32_t to)
{
    if (to - from == 1) {
        if (ranges[from].check)
            emit_check(&ranges[from]);
        else
            emit_return(ranges[from].answer);
        return;
    }
    uint32_t middle = from + (to - from) / 2, jump = length;
    emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].first, 0, 1));
    emit((struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
    emit_search(from, middle);
    program[jump + 1].k = length - jump - 2;
    emit_search(middle, to);
}

static void emit_all(void)
{
    emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                      offsetof(struct seccomp_data, arch)));
    emit((struct sock_filter)EQUALS(ARCHITECTURE, 1, 0));
    emit_return(SECCOMP_RET_KILL_PROCESS);
    emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                      offsetof(struct seccomp_data, nr)));
    if (X32_BIT) {
        emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
        emit_return(ANSWER(ENOSYS));
    }
    emit_search(0, range_count);
}

int main(int argc, char **argv)
{
    sort_rules();
    make_ranges(argc == 2 && strcmp(argv[1], "zygote") == 0);
    emit_all();
    printf("/* Written by seccomp_compile.c: %u instructions, %u ranges. */\n", length, range_count);
    for (uint32_t i = 0; i < length; i++)
        printf("{0x%02x, %u, %u, 0x%08x},\n", program[i].code, program[i].jt, program[i].jf,
               program[i].k);
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
