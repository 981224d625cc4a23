/* The places where images.c mounts: names in a small file system of the jail's own. */
#ifndef STOKER_JAIL_IMAGE_PLACES_H
#define STOKER_JAIL_IMAGE_PLACES_H

/* The folder of places, below the state folder; -errno. */
int image_places_open(const char *state);

/* Whether the kernel has this file system, or loads it. */
int image_has_file_system(const char *name);

/* Makes a place and attaches a detached mount there. 0 or -errno. */
int image_place_fill(int places, const char *name, int mount, int is_folder);

/* Ends the connection of the FUSE file system mounted there to its server: reads fail at once. */
void image_place_abort(int places, const char *name);

/* 0 when there is no such place any more; -EBUSY while something is mounted there. */
int image_place_remove(int places, const char *name, int is_folder);

#endif
