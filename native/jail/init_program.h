/* Loads the init program once, so that nobody can change what sandboxes start with afterwards. */
#ifndef STOKER_JAIL_INIT_PROGRAM_H
#define STOKER_JAIL_INIT_PROGRAM_H

/* A descriptor of a sealed copy in memory, or -errno. */
int init_program_load(const char *path);

#endif
