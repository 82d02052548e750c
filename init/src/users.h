/* Users of the sandbox, read from its own /etc/passwd and /etc/group: files that the sandbox may have written. */
#ifndef TRAFORO_USERS_H
#define TRAFORO_USERS_H

#include <sys/types.h>

#include "err.h"

#define USER_GROUPS_MAX 32
#define USER_NAME_MAX 64
#define USER_PATH_MAX 256

struct user {
	uid_t uid;
	gid_t gid;
	char name[USER_NAME_MAX];    /* "" for a number that passwd does not know */
	char home[USER_PATH_MAX];    /* "/" where passwd does not say, or says something that is not absolute */
	char shell[USER_PATH_MAX];   /* "/bin/sh" where passwd does not say */
	size_t group_count;          /* supplementary groups, gid included */
	gid_t groups[USER_GROUPS_MAX];
};

/* Finds "name", "uid", "name:group" or "uid:gid" (group by name or number). Numbers need no entry. Ids are below 65535.
 * Reads at most 1 MiB of each file, never blocks (they may be FIFOs), and skips lines it cannot read.
 * Returns 0, -ENOENT for an unknown name, -EINVAL for a malformed spec. */
int users_find(const char *spec, struct user *user, struct err *e);
/* The same over given texts (no I/O): what tests and the fuzzer drive. Either text may be empty; neither needs a NUL. */
int users_find_in(const char *spec, const char *passwd, size_t passwd_length, const char *group, size_t group_length,
		  struct user *user, struct err *e);

#endif
