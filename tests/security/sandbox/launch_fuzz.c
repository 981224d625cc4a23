/* Feeds mutated launch records to the init's parser, under the address sanitizer: argv is seed, rounds.
 * What lies behind a record is poisoned, and whatever is accepted must point into it. */
#include <sanitizer/asan_interface.h>
#include <stdio.h>

#define main init_main
#include "../../../native/init/main.c"
#undef main

static unsigned long long state;

static unsigned dice(unsigned sides)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33) % sides;
}

static size_t compose(void)
{
    struct init_request request = {.magic = INIT_MAGIC, .operation = INIT_LAUNCH};
    unsigned most = dice(20) ? 12 : INIT_STRINGS_MAX + 4;
    request.argument = dice(most);
    request.environment = dice(most);
    size_t bytes = sizeof request;
    for (unsigned i = 0; i < 1 + request.argument + request.environment; i++) {
        for (unsigned letters = dice(9); letters > 0; letters--)
            record[bytes++] = (char)('a' + dice(26));
        record[bytes++] = 0;
    }
    memcpy(record, &request, sizeof request);
    return bytes;
}

static size_t mutate(size_t bytes)
{
    static const unsigned NUMBERS[] = {0, 1, 2, 4094, 4095, 4096, 4097, 65535, 0x7fffffff, 0xffffffff};
    for (unsigned changes = dice(5); changes > 0; changes--) {
        unsigned number = NUMBERS[dice(sizeof NUMBERS / sizeof *NUMBERS)];
        switch (dice(4)) {
        case 0:
            record[dice((unsigned)bytes)] = (char)dice(256);
            break;
        case 1:
            memcpy(record + 8 + 4 * dice(2), &number, sizeof number);
            break;
        case 2:
            bytes = sizeof(struct init_request) + dice((unsigned)(bytes - sizeof(struct init_request)) + 1);
            break;
        case 3:
            record[bytes < sizeof record ? bytes++ : bytes - 1] = (char)dice(2);
            break;
        }
    }
    return bytes;
}

static void check(size_t bytes)
{
    struct init_request request;
    memcpy(&request, record, sizeof request);
    char **lists[] = {wanted.argv, wanted.environment};
    unsigned counts[] = {request.argument, request.environment};
    for (int list = 0; list < 2; list++) {
        for (unsigned i = 0; i < counts[list]; i++)
            if (lists[list][i] < record + sizeof request || lists[list][i] + strlen(lists[list][i]) >= record + bytes)
                __builtin_trap();
        if (lists[list][counts[list]])
            __builtin_trap();
    }
    if (strlen(wanted.folder) >= bytes)
        __builtin_trap();
}

int main(int argc, char **argv)
{
    unsigned long accepted = 0, rounds = strtoul(argv[argc - 1], NULL, 10);
    state = strtoull(argv[1], NULL, 10);
    for (unsigned long i = 0; i < rounds; i++) {
        size_t bytes = mutate(compose());
        struct init_request request;
        memcpy(&request, record, sizeof request);
        ASAN_POISON_MEMORY_REGION(record + bytes, sizeof record - bytes);
        if (parse(&request, bytes - sizeof request)) {
            check(bytes);
            accepted++;
        }
        ASAN_UNPOISON_MEMORY_REGION(record, sizeof record);
    }
    printf("%lu\n", accepted);
    return 0;
}
