/* File system images (EROFS) that this jail has mounted, from a file or from a volume that another process serves
 * through /dev/fuse. They live in the jail's own mount namespace and die with it.
 *
 * Whatever may wait for a server (mounting reads the superblock, the last unmount waits for reads under way) is done
 * in a child with a deadline: a server that hangs never stops the jail.
 */
#ifndef STOKER_JAIL_IMAGES_H
#define STOKER_JAIL_IMAGES_H

#include "protocol.h"

#include <stdint.h>

#define IMAGES_MAX 1024

/* Bits for jail_answer.features. By loop: as kernels before 6.12 need it. Not for a rootless jail. */
uint32_t images_open(const char *state, int by_loop);

/* Each fills in the status, the stage of a failure, and what it answers with. */
void images_open_volume(struct jail_answer *answer, int fds[JAIL_ANSWER_FDS_MAX]);
void images_abort(uint64_t handle, struct jail_answer *answer);

/* Each is answered later, through images_on_done, unless the status is set on return. */
void images_mount_file(const struct jail_message *message, struct jail_answer *answer);
void images_mount_volume(uint64_t handle, struct jail_answer *answer);
void images_unmount(uint64_t handle, struct jail_answer *answer);

/* Sends an answer; `root` is the image's root folder or -1, and stays ours. */
typedef void (*images_done)(struct jail_answer *answer, int root);
void images_on_done(images_done done);

/* How a descriptor is watched, and no longer; images_ready is to be called once it is readable. */
typedef void (*images_watch)(int fd, uint32_t slot);
typedef void (*images_unwatch)(int fd);
void images_on_watch(images_watch watch, images_unwatch unwatch);
void images_ready(uint32_t slot);

/* How many children are at work; and ends what is over its deadline. */
uint32_t images_pending(void);
void images_tick(void);

/* Whoever asked for them is gone: every read of every volume fails now, every mount goes. */
void images_drop_all(void);

/* A detached read-only clone, of an image's folder or of one of the service's. */
int images_clone_folder(int folder);

#endif
