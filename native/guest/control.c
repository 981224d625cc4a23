/* The control connection: orders of the host, answers, and how the function ended. */
#define _GNU_SOURCE
#include "guest.h"

#include "../init/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_FOR_MS 5000 /* how long a lost connection is tried again: a snapshot was restored */
#define FLUSH_FOR_MS 1000 /* how long an end's report waits for the output before it */
#define MEMORY_EVERY_MS 100
#define MEMORY_STEP_BYTES (256u << 10) /* smaller changes are not told */

static int control = -1, control_place, reports_place;
static unsigned char order[sizeof(struct guest_record) + GUEST_BODY_BYTES_MAX];
static size_t order_used;
static struct guest_limits limits = {.memory_bytes = ~0ull >> 1, .pids_max = 1024, .open_files_max = 1024, .uid = 993, .gid = 990};
static struct guest_memory told;
static int64_t memory_due_ms, end_due_ms;
static struct init_report ending; /* kind 0: none yet */
static bool end_told;

_Noreturn void power_off(void)
{
    reboot(RB_AUTOBOOT); /* a VMM without an ACPI power button ends at a reset as well */
    for (;;)
        pause();
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* Answers are short and few: one that finds no room within a second means that the host is gone. */
static void tell(enum guest_answer kind, uint32_t argument, const void *body, uint32_t bytes)
{
    unsigned char message[sizeof(struct guest_record) + GUEST_REPLY_BYTES_MAX];
    struct guest_record record = {.magic = GUEST_MAGIC, .kind = kind, .argument = argument, .body_bytes = bytes};
    memcpy(message, &record, sizeof record);
    memcpy(message + sizeof record, body, bytes);
    for (size_t done = 0, size = sizeof record + bytes; done < size;) {
        ssize_t sent = send(control, message + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            done += (size_t)sent;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return; /* reading finds out as well */
        if (link_is_serial())
            serial_work();
        struct pollfd waiting = {.fd = control, .events = POLLOUT};
        if (poll(&waiting, 1, 1000) == 0)
            power_off();
    }
}

static void answer(uint32_t kind, int error, const char *step)
{
    struct guest_done done = {.error = -error};
    if (error)
        snprintf(done.step, sizeof done.step, "%s", step);
    tell(GUEST_DONE, kind, &done, sizeof done);
}

static void say_hello(void)
{
    struct guest_hello hello = {.version = GUEST_VERSION, .launched = function_launched()};
    struct timespec now;
    struct sysinfo machine;
    struct utsname kernel;
    clock_gettime(CLOCK_BOOTTIME, &now);
    hello.uptime_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    if (sysinfo(&machine) == 0)
        hello.memory_bytes = (uint64_t)machine.totalram * machine.mem_unit;
    if (uname(&kernel) == 0)
        snprintf(hello.release, sizeof hello.release, "%.63s", kernel.release);
    tell(GUEST_HELLO, 0, &hello, sizeof hello);
}

int control_connect(void)
{
    int error = relay_outputs(-1, -1);
    if (error)
        return error;
    control = link_connect(GUEST_PORT_CONTROL);
    if (control < 0)
        return control;
    say_hello();
    return 0;
}

static void connect_again(void)
{
    close(control);
    control = -1;
    order_used = 0;
    relay_reset();
    for (int64_t until = now_ms() + AGAIN_FOR_MS; !link_is_serial() && now_ms() < until; usleep(2000)) {
        control = link_connect(GUEST_PORT_CONTROL);
        if (control >= 0) {
            say_hello();
            return;
        }
    }
    power_off();
}

static int take_struct(void *to, size_t size, const void *body, size_t bytes)
{
    if (bytes != size)
        return -EINVAL;
    memcpy(to, body, size);
    return 0;
}

static int set_clock(const void *body, size_t bytes)
{
    struct guest_clock clock;
    int error = take_struct(&clock, sizeof clock, body, bytes);
    return error ? error : machine_clock(&clock);
}

static int set_network(const void *body, size_t bytes)
{
    struct guest_network network;
    int error = take_struct(&network, sizeof network, body, bytes);
    return error ? error : machine_network(&network);
}

static int set_limits(const void *body, size_t bytes)
{
    struct guest_limits wanted;
    int error = take_struct(&wanted, sizeof wanted, body, bytes);
    if (error || wanted.uid == 0 || wanted.gid == 0)
        return error ? error : -EPERM;
    if (places_ready()) {
        wanted.uid = limits.uid;
        wanted.gid = limits.gid;
    }
    limits = wanted;
    return function_limit(&limits);
}

static int mount_places(uint32_t bits, const char **step)
{
    bool first = !places_ready();
    int error = places_mount(bits, limits.uid, limits.gid, step);
    if (error || !first)
        return error;
    *step = "listening";
    return relay_listen();
}

static void launch(const void *body, size_t bytes)
{
    const char *step;
    int error = places_ready() ? function_launch(body, bytes, &limits, &step) : -ENOENT;
    if (!error)
        return;
    struct init_report report = {.magic = INIT_MAGIC, .kind = INIT_REFUSED, .value = -error};
    tell(GUEST_REPORT, 0, &report, sizeof report);
}

static void obey(const struct guest_record *record, const void *body)
{
    const char *step = "order";
    int error = 0;
    switch (record->kind) {
    case GUEST_ENTROPY: error = machine_entropy(body, record->body_bytes); break;
    case GUEST_CLOCK: error = set_clock(body, record->body_bytes); break;
    case GUEST_NETWORK: error = set_network(body, record->body_bytes); break;
    case GUEST_LIMITS: error = set_limits(body, record->body_bytes); break;
    case GUEST_MOUNT: error = mount_places(record->argument, &step); break;
    case GUEST_LAUNCH: launch(body, record->body_bytes); return;
    case GUEST_SIGNAL: function_signal((int)record->argument); return;
    case GUEST_HOLD: relay_hold(record->argument != 0); break;
    case GUEST_PING: break;
    case GUEST_POWER_OFF: power_off();
    default: error = -EPROTO;
    }
    answer(record->kind, error, step);
}

static void take_orders(void)
{
    for (;;) {
        ssize_t got = recv(control, order + order_used, sizeof order - order_used, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            connect_again();
            return;
        }
        order_used += (size_t)got;
        struct guest_record record;
        while (order_used >= sizeof record) {
            memcpy(&record, order, sizeof record);
            if (record.magic != GUEST_MAGIC || record.body_bytes > GUEST_BODY_BYTES_MAX)
                power_off();
            size_t size = sizeof record + record.body_bytes;
            if (order_used < size)
                break;
            obey(&record, order + sizeof record);
            memmove(order, order + size, order_used - size);
            order_used -= size;
        }
    }
}

static void tell_memory(bool anyway)
{
    struct guest_memory memory = function_memory();
    uint64_t change = memory.current_bytes > told.current_bytes ? memory.current_bytes - told.current_bytes
                                                                : told.current_bytes - memory.current_bytes;
    if (!anyway && change < MEMORY_STEP_BYTES && memory.peak_bytes - told.peak_bytes < MEMORY_STEP_BYTES &&
        memory.oom_kills == told.oom_kills)
        return;
    told = memory;
    tell(GUEST_MEMORY, 0, &memory, sizeof memory);
}

static void take_reports(void)
{
    struct init_report report;
    ssize_t got = recv(function_reports(), &report, sizeof report, MSG_DONTWAIT);
    if (got != (ssize_t)sizeof report)
        return;
    if (report.kind == INIT_EXITED || report.kind == INIT_SIGNALED) {
        ending = report;
        return;
    }
    if (report.kind == INIT_STARTED)
        tell_memory(true); /* before the start: whoever waits for it may ask at once */
    tell(GUEST_REPORT, 0, &report, sizeof report);
}

/* Only the init's own end is the function's: by then the kernel has killed whatever it left running. */
void control_child_ended(pid_t pid, int status)
{
    (void)status;
    if (!function_reaped(pid))
        return;
    take_reports();
    if (!ending.kind)
        ending = (struct init_report){.magic = INIT_MAGIC, .kind = INIT_SIGNALED, .value = SIGKILL};
    end_due_ms = now_ms() + FLUSH_FOR_MS;
}

void control_watch(void)
{
    control_place = watch(control, POLLIN);
    reports_place = function_reports() >= 0 && !end_due_ms ? watch(function_reports(), POLLIN) : -1;
}

void control_work(void)
{
    if (happened(reports_place))
        take_reports();
    if (relay_has_held())
        tell(GUEST_HELD, 0, NULL, 0);
    int64_t now = now_ms();
    if (function_launched() && !end_told && now >= memory_due_ms) {
        memory_due_ms = now + MEMORY_EVERY_MS;
        tell_memory(false);
    }
    if (end_due_ms && !end_told && (relay_outputs_empty() || now >= end_due_ms)) {
        end_told = true;
        tell_memory(true);
        tell(GUEST_REPORT, 0, &ending, sizeof ending);
    }
    take_orders();
}
