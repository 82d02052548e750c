/* The control groups of one sandbox: made before its first process, gone after its last. */
#ifndef TRAFORO_CGROUPS_H
#define TRAFORO_CGROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "msg.h"

#define CGROUPS_MAX 6
#define CGROUP_PATH_MAX 192

struct cgroup {
	uint64_t kind;                 /* CGROUP_V1 or CGROUP_V2 */
	char path[CGROUP_PATH_MAX];    /* directory of the sandbox in this hierarchy */
	char oom_file[32];             /* file in it that counts processes killed by the memory limit; empty for none */
};

struct cgroups {
	size_t count;
	struct cgroup list[CGROUPS_MAX];
};

#define CGROUPS_AHEAD 16

/* Directories made ahead, in v1 hierarchies alone: there making one takes the longest, and it can be renamed. Nobody was
 * ever in one of them; the worker removes those that are left over. */
struct cgroups_ahead {
	size_t count;
	struct {
		char parent[CGROUP_PATH_MAX];
		unsigned made, used; /* directories called "ahead.<number>": those from `used` on are there */
	} list[CGROUPS_MAX];
};

/* Reads a T_CGROUP; its settings stay in the message and are written by cgroups_make. */
int cgroups_parse(struct msg_reader fields, struct cgroup *cgroup, struct err *e);
/* Makes one directory, or takes one that was made ahead; writes its settings, gives a v2 directory to `owner`. On failure
 * nothing is left of it. `ahead` learns where sandboxes have their directories. */
int cgroups_make(const struct cgroup *cgroup, struct msg_reader fields, uid_t owner, struct cgroups_ahead *ahead,
		 struct err *e);
bool cgroups_wanted(const struct cgroups_ahead *ahead);
/* Makes one directory ahead. Gives up on a hierarchy that refuses. */
void cgroups_refill(struct cgroups_ahead *ahead);
/* Processes that the memory limit killed; 0 where no hierarchy tells. */
uint64_t cgroups_oom_kills(const struct cgroups *cgroups);
/* Kills what is left and removes the directories. -EBUSY while a process still dies. */
int cgroups_remove(const struct cgroups *cgroups, struct err *e);

#endif
