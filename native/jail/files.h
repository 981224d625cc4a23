/* Small reads and writes of kernel files relative to an open folder. Never follows a symbolic link at the end. */
#ifndef STOKER_JAIL_FILES_H
#define STOKER_JAIL_FILES_H

#include <stddef.h>
#include <sys/types.h>

/* 0 or -errno. */
int files_write(int folder, const char *path, const char *text);
int files_write_number(int folder, const char *path, unsigned long long number);

/* Length read, NUL-terminated, or -errno. */
ssize_t files_read(int folder, const char *path, char *text, size_t room);

#endif
