/* Makes the folder of a sandbox's own root its root, in the place of the template's.
 *
 * What is in that folder comes from strangers: no link in it may lead anywhere but back into it.
 */
#ifndef STOKER_JAIL_ROOT_H
#define STOKER_JAIL_ROOT_H

/* The caller's mount namespace has the root at MOUNTS_NEW_ROOT, and /proc and /tmp in the template as the sandbox is
 * to have them. These, /dev and the files that name the host and its resolver go into the new root; then everything
 * else of the template goes. 0 or -errno: -ENOENT when the root lacks a folder to put one of them on. */
int root_enter(void);

#endif
