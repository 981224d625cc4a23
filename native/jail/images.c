/* The table of mounted images and volumes; see images.h. */
#define _GNU_SOURCE
#include "images.h"

#include "image_child.h"
#include "image_places.h"
#include "mounts.h"
#include "namespaces.h"
#include "passing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN_MAX 64
#define MOUNT_WAIT_MS 20000  /* a superblock may come from a store far away */
#define UNMOUNT_WAIT_MS 2000 /* then the volume's reads are ended */

enum image_state {
    NONE,
    OPENED,   /* a volume without its image */
    MOUNTING, /* a child is at it */
    MOUNTED,
    LEAVING,  /* to be unmounted; a child may be at it */
};

struct image {
    enum image_state state;
    int is_volume;
    uint64_t handle;
    struct jail_answer answer; /* to be given when the child is done; id 0: nobody waits */
    pid_t child;
    int is_unmounting; /* what that child does, or did */
    int notes;         /* from the child; -1 */
    int64_t deadline_ms;
    dev_t device; /* of the mounted image */
    char image_name[16], volume_name[16]; /* in the folder of mounts */
};

static struct image images[IMAGES_MAX];
static int mounts = -1;
static int only_loop;
static uint32_t top; /* no slot from here on was ever taken */
static uint32_t children, leaving;
static uint64_t generation;
static images_done on_done;
static images_watch on_watch;
static images_unwatch on_unwatch;

void images_on_done(images_done done)
{
    on_done = done;
}

void images_on_watch(images_watch watch, images_unwatch unwatch)
{
    on_watch = watch;
    on_unwatch = unwatch;
}

uint32_t images_pending(void)
{
    return children + leaving;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- what the host offers ----------------------------------------------------------------------------------------- */

uint32_t images_open(const char *state, int by_loop)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* Handles of an earlier jail name nothing in this one. */
    generation = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    only_loop = by_loop;
    if (!image_has_file_system("erofs"))
        return 0;
    mounts = image_places_open(state);
    if (mounts < 0) {
        fprintf(stderr, "stoker-jail: no images: %s\n", strerror(-mounts));
        return 0;
    }
    int has_volumes = access("/dev/fuse", R_OK | W_OK) == 0 && image_has_file_system("fuse");
    return JAIL_IMAGES | (has_volumes ? JAIL_VOLUMES : 0);
}

/* --- slots -------------------------------------------------------------------------------------------------------- */

static struct image *take(void)
{
    uint32_t slot = 0;
    while (slot < top && images[slot].state != NONE)
        slot++;
    if (slot == IMAGES_MAX)
        return NULL;
    top = slot == top ? top + 1 : top;
    struct image *image = &images[slot];
    *image = (struct image){.state = OPENED, .notes = -1, .handle = ++generation << 32 | slot};
    snprintf(image->image_name, sizeof image->image_name, "image%u", slot);
    snprintf(image->volume_name, sizeof image->volume_name, "volume%u", slot);
    return image;
}

static struct image *find(uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    struct image *image = slot < top ? &images[slot] : NULL;
    return image && image->state != NONE && image->handle == handle ? image : NULL;
}

static void become(struct image *image, enum image_state state)
{
    leaving += (state == LEAVING) - (image->state == LEAVING);
    image->state = state;
}

static void refuse(struct jail_answer *answer, int status, const char *stage)
{
    answer->status = status;
    snprintf(answer->stage, sizeof answer->stage, "%s", stage);
}

/* Gives the answer that somebody waits for, once. */
static void settle(struct image *image, int status, const char *stage, int root)
{
    struct jail_answer answer = image->answer;
    image->answer.id = 0;
    if (!answer.id)
        return;
    refuse(&answer, status, stage);
    on_done(&answer, root);
}

static void abort_volume(const struct image *image)
{
    if (image->is_volume)
        image_place_abort(mounts, image->volume_name);
}

/* --- children ----------------------------------------------------------------------------------------------------- */

static void adopt(struct image *image, pid_t child, int wait_ms)
{
    image->child = child;
    image->deadline_ms = now_ms() + wait_ms;
    children++;
    on_watch(image->notes, (uint32_t)(image - images));
}

static void stop_listening(struct image *image)
{
    if (image->notes < 0)
        return;
    on_unwatch(image->notes);
    close(image->notes);
    image->notes = -1;
}

/* True when there is no child any more. */
static int reap(struct image *image)
{
    siginfo_t info = {0};
    if (image->child && waitid(P_PID, (id_t)image->child, &info, WEXITED | WNOHANG) == 0 && info.si_pid) {
        image->child = 0;
        children--;
    }
    return image->child == 0;
}

/* False: something is mounted there still. */
static int forget(struct image *image)
{
    if (image_place_remove(mounts, image->image_name, 1) || image_place_remove(mounts, image->volume_name, 0))
        return 0;
    become(image, NONE);
    settle(image, 0, "", -1);
    return 1;
}

static void start_mount(struct image *image, int source, const struct jail_answer *answer)
{
    pid_t child = children >= CHILDREN_MAX ? -EBUSY : image_child_mount(source, only_loop, &image->notes);
    image->answer = *answer;
    become(image, child < 0 ? LEAVING : MOUNTING);
    image->is_unmounting = 0;
    if (child < 0)
        return settle(image, child, "starting to mount", -1);
    adopt(image, child, MOUNT_WAIT_MS);
}

static void start_unmount(struct image *image)
{
    become(image, LEAVING);
    if (image->child || children >= CHILDREN_MAX)
        return; /* a tick tries again */
    stop_listening(image);
    image->is_unmounting = 1;
    pid_t child = image_child_unmount(mounts, image->image_name, image->volume_name, &image->notes);
    if (child > 0)
        adopt(image, child, UNMOUNT_WAIT_MS);
    else
        image->is_unmounting = 0;
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

void images_open_volume(struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX])
{
    struct image *image = mounts < 0 ? NULL : take();
    if (!image)
        return refuse(answer, mounts < 0 ? -EOPNOTSUPP : -EMFILE, "taking a place");
    image->is_volume = 1;
    int device = -1, mount = image_volume_mount(&device);
    int error = mount < 0 ? mount : image_place_fill(mounts, image->volume_name, mount, 0);
    if (mount >= 0)
        close(mount);
    if (device >= 0) {
        fds[JAIL_FD_DEVICE] = device;
        answer->fds |= 1u << JAIL_FD_DEVICE;
    }
    answer->sandbox = image->handle;
    if (error) {
        become(image, LEAVING);
        refuse(answer, error, "opening a volume");
    }
}

static int is_readable_file(int fd)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_WRONLY && fstat(fd, &status) == 0 &&
           S_ISREG(status.st_mode);
}

void images_mount_file(const struct jail_message *message, struct jail_answer *answer)
{
    if (mounts < 0 || !is_readable_file(message->fds[0]))
        return refuse(answer, mounts < 0 ? -EOPNOTSUPP : -EINVAL, "taking the image");
    struct image *image = take();
    if (!image)
        return refuse(answer, -EMFILE, "taking a place");
    answer->sandbox = image->handle;
    start_mount(image, message->fds[0], answer);
}

void images_mount_volume(uint64_t handle, struct jail_answer *answer)
{
    struct image *image = find(handle);
    if (!image || image->state != OPENED)
        return refuse(answer, -ESRCH, "finding the volume");
    int source = openat(mounts, image->volume_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (source < 0)
        return refuse(answer, -errno, "opening the volume's file");
    start_mount(image, source, answer);
    close(source);
}

void images_unmount(uint64_t handle, struct jail_answer *answer)
{
    struct image *image = find(handle);
    if (!image || (image->state != OPENED && image->state != MOUNTED))
        return refuse(answer, -ESRCH, "finding the mount");
    image->answer = *answer;
    start_unmount(image);
}

void images_abort(uint64_t handle, struct jail_answer *answer)
{
    struct image *image = find(handle);
    if (!image || !image->is_volume)
        return refuse(answer, -ESRCH, "finding the volume");
    abort_volume(image);
}

void images_drop_all(void)
{
    for (uint32_t slot = 0; slot < top; slot++) {
        struct image *image = &images[slot];
        if (image->state == NONE)
            continue;
        image->answer.id = 0;
        abort_volume(image);
        if (image->state != LEAVING)
            start_unmount(image);
    }
}

/* --- what children tell ------------------------------------------------------------------------------------------- */

static int place_image(struct image *image, int mount)
{
    struct stat status;
    int error = image_place_fill(mounts, image->image_name, mount, 1);
    if (!error && fstat(mount, &status) < 0)
        error = -errno;
    image->device = error ? 0 : status.st_dev;
    return error;
}

static void take_mount(struct image *image)
{
    struct passed_note note = {0};
    int mount = -1;
    int count = passing_receive(image->notes, &note, &mount, 1);
    int error = count < 0 ? count : note.error ? note.error : count == 1 ? 0 : -EPROTO;
    stop_listening(image);
    if (!error && image->state == MOUNTING)
        error = place_image(image, mount);
    if (error || image->state != MOUNTING) {
        become(image, LEAVING);
        abort_volume(image); /* nothing is left of what failed */
        settle(image, error, note.error ? note.step : "attaching the image", -1);
    } else {
        become(image, MOUNTED);
        settle(image, 0, "", mount);
    }
    if (mount >= 0)
        close(mount);
}

void images_ready(uint32_t slot)
{
    struct image *image = &images[slot];
    if (image->notes < 0)
        return;
    if (image->state == MOUNTING)
        take_mount(image);
    else
        stop_listening(image);
    images_tick();
}

static void expire(struct image *image)
{
    abort_volume(image); /* its child's reads end now, and so does the child */
    if (!image->is_unmounting)
        kill(image->child, SIGKILL);
    image->deadline_ms = now_ms() + UNMOUNT_WAIT_MS;
    become(image, LEAVING);
    settle(image, -ETIMEDOUT, "waiting for the image", -1);
}

static void tick(struct image *image)
{
    if (!reap(image)) {
        if (now_ms() >= image->deadline_ms)
            expire(image);
        return;
    }
    if (image->state == LEAVING && !(image->is_unmounting && forget(image)))
        start_unmount(image);
}

void images_tick(void)
{
    for (uint32_t slot = 0; slot < top; slot++)
        if (images[slot].child || images[slot].state == LEAVING)
            tick(&images[slot]);
}

int images_clone_folder(int folder)
{
    struct stat status;
    if (fstat(folder, &status) < 0)
        return -errno;
    for (uint32_t slot = 0; slot < top; slot++)
        if (images[slot].state == MOUNTED && images[slot].device == status.st_dev)
            return mounts_clone_folder(folder);
    return namespaces_clone_folder(folder);
}
