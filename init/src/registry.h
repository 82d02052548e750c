/* Every sandbox that the spawner has made or was handed, until the worker has said that its end is safe.
 *
 * What sandboxes have in common is a compact array, searched without an index: 16,384 entries of 56 bytes. Ids and labels,
 * which hold what callers asked for, are in memory that children do not inherit (MADV_DONTFORK): an init must not carry
 * the secrets of other sandboxes.
 */
#ifndef TRAFORO_REGISTRY_H
#define TRAFORO_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "births.h"
#include "cgroups.h"
#include "err.h"
#include "protocol.h"

#define SANDBOXES_MAX 16384
#define REASON_MAX 32

enum sandbox_state {
	SANDBOX_NONE,
	SANDBOX_LIVE,
	SANDBOX_ENDING, /* its init is gone, its cgroups are not yet */
	SANDBOX_DEAD,
};

struct sandbox {
	uint64_t hash; /* of the id */
	enum sandbox_state state;
	pid_t pid;
	int control;
	int pidfd;         /* of an init that is not our child, or -1 */
	bool status_known;
	int status;
	uint64_t deadline; /* milliseconds of CLOCK_BOOTTIME, 0 for none */
	uint64_t oom_kills;
};

/* The part of a sandbox that is not shared with children. */
struct sandbox_detail {
	char id[ID_MAX];
	char reason[REASON_MAX];
	struct cgroups cgroups;
	uint32_t label_length;
	uint8_t label[LABEL_MAX];
};

struct registry {
	size_t used; /* entries at and behind this were never used */
	size_t live; /* live and ending */
	struct sandbox list[SANDBOXES_MAX];
	struct sandbox_detail *details;
};

int registry_init(struct registry *registry, struct err *e);
/* Finds by id; NULL if there is none. */
struct sandbox *registry_find(struct registry *registry, const char *id);
struct sandbox *registry_find_pid(struct registry *registry, pid_t pid);
struct sandbox_detail *registry_detail(struct registry *registry, const struct sandbox *sandbox);
/* Adds a live sandbox. -EEXIST, or -ENOSPC when there are SANDBOXES_MAX. */
int registry_add(struct registry *registry, const struct birth *birth, pid_t pid, int control, int pidfd, struct err *e);
/* Whether registry_add would succeed. */
int registry_check(struct registry *registry, const char *id, struct err *e);
int registry_update(struct registry *registry, struct sandbox *sandbox, const uint8_t *label, uint32_t length,
		    uint64_t deadline, struct err *e);
void registry_remove(struct registry *registry, struct sandbox *sandbox);
/* Milliseconds of CLOCK_BOOTTIME. */
uint64_t registry_now(void);

#endif
