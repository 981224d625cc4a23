/* Who a sandbox is: the ids its function sees, its host name, and the ids of the host behind them. */
#ifndef STOKER_JAIL_IDENTITY_H
#define STOKER_JAIL_IDENTITY_H

#include <stdint.h>
#include <sys/types.h>

/* As on Lambda: sbx_user1051. */
#define SANDBOX_UID 993
#define SANDBOX_GID 990
#define SANDBOX_HOST_NAME "169-254-100-6"

#define IDS_PER_SLOT 65536u
#define ID_BASE_DEFAULT 0x20000000u
#define ZYGOTE_IDS 65536u /* above those of all slots */

struct identity {
    uint32_t inside_uid, inside_gid; /* first id of the map */
    uint32_t outside;                /* what it is outside; the same number for users and groups */
    uint32_t outside_gid;
    uint32_t count;
    int may_set_groups;
    int whole; /* whether every id of IDS_PER_SLOT is there inside */
};

/* Looks at the jail's own id maps. Returns 1 when every sandbox must share one uid (rootless without ranges). */
int identity_open(uint32_t id_base, int rootless);

/* The ids of a slot; no two slots share any, unless identity_open returned 1. */
struct identity identity_of(uint32_t slot);

/* Ids of no slot, for a zygote; none gets the uid of one of the last ZYGOTE_IDS before it. They are in no sandbox's
 * map, so nothing runs under them but zygotes. */
struct identity identity_of_zygote(void);

/* The group of all zygotes. */
gid_t identity_zygotes(void);

/* Ids inside as the jail sees them. */
uid_t identity_uid(const struct identity *identity, uid_t inside);
gid_t identity_gid(const struct identity *identity, gid_t inside);

/* Writes uid_map and gid_map of a process that is alone in a new user namespace. 0 or -errno. */
int identity_map(const struct identity *identity, pid_t pid);

#endif
