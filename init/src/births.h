/* From one M_CREATE message to a child that is the init of a new sandbox. */
#ifndef TRAFORO_BIRTHS_H
#define TRAFORO_BIRTHS_H

#include <stdbool.h>
#include <sys/types.h>

#include "cgroups.h"
#include "err.h"
#include "msg.h"
#include "networks.h"
#include "setup.h"

#define ID_MAX 128
#define OPS_MAX 96
#define LAYERS_MAX 12

/* A request to make a sandbox, read and checked. Strings point into the message. */
struct birth {
	const char *id;
	const uint8_t *label;
	uint32_t label_length;
	uint64_t deadline;
	uint64_t clone_flags;
	const char *uid_map;
	const char *gid_map;
	uint64_t owner;
	uint64_t caps;
	uint64_t seccomp;
	struct cgroups cgroups;
	struct msg_reader cgroup_fields[CGROUPS_MAX];
	size_t layer_count;
	struct msg_reader layers[LAYERS_MAX];
	size_t op_count;
	struct setup_op ops[OPS_MAX];
};

/* What is made while there is nothing else to do, so that a birth need not. */
struct ahead {
	struct networks networks;
	struct cgroups_ahead cgroups;
};

/* Reads a request; nothing has happened when it fails. */
int births_parse(struct msg_reader fields, struct birth *birth, struct err *e);
/* Starts the child, with what was made ahead as far as there is any. On success `*control` is the worker's end of its socket, on which M_READY or M_FAILED will come.
 * On failure nothing is left. */
int births_start(const struct birth *birth, struct ahead *ahead, pid_t *pid, int *control, struct err *e);

#endif
