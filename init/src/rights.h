/* The rights of a user: put on for one action of the init, or for good in a child. */
#ifndef TRAFORO_RIGHTS_H
#define TRAFORO_RIGHTS_H

#include <sys/types.h>

#include "err.h"
#include "users.h"

#define RIGHTS_GROUPS_MAX 64

/* What rights_return puts back. */
struct rights {
	size_t group_count;
	gid_t groups[RIGHTS_GROUPS_MAX];
	mode_t mask;
};

/* From here on the calling process touches files as `user`: its filesystem ids, its groups, no file capabilities unless
 * it is root, and an umask of 0. On failure nothing has changed. Every success is followed by rights_return. */
int rights_take(const struct user *user, struct rights *saved, struct err *e);
void rights_return(const struct rights *saved);
/* Becomes `user` in every respect, without a way back. */
int rights_become(const struct user *user, struct err *e);

/* Gives every signal its standard disposition, and blocks none: a process has these from whoever started the spawner. */
void rights_reset_signals(void);

#endif
