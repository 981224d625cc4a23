/* The children that mount and unmount images: they may hang in the kernel, the jail may not. For images.c alone. */
#ifndef STOKER_JAIL_IMAGE_CHILD_H
#define STOKER_JAIL_IMAGE_CHILD_H

#include <sys/types.h>

/* Mounts the image in the regular file `source` (O_PATH will do); a note with the detached mount comes back through
 * *notes. The child's pid or -errno. */
pid_t image_child_mount(int source, int by_loop, int *notes);

/* Unmounts `image`, and then `volume`, names in the folder `mounts`; *notes ends when that is done. */
pid_t image_child_unmount(int mounts, const char *image, const char *volume, int *notes);

/* A detached mount of a FUSE file system whose root is one regular file; *device is what serves it. -errno. */
int image_volume_mount(int *device);

#endif
