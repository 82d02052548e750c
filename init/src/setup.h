/* The set-up of a sandbox as data: the worker lists the steps (T_OP), the new child runs them in order. */
#ifndef TRAFORO_SETUP_H
#define TRAFORO_SETUP_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "msg.h"

/* One step. Strings point into the message. */
struct setup_op {
	uint64_t opcode;
	const char *path;
	const char *source;
	const char *fstype;
	const char *options;
	const char *value;
	uint64_t flags;
	uint64_t mode;
	uint64_t index;
};

/* Reads one T_OP and checks that it has what its opcode needs. */
int setup_parse(struct msg_reader fields, struct setup_op *op, struct err *e);
/* Runs one step in the calling process, in its current directory. `layers` are mount descriptors that OP_MOVE may name. */
int setup_run(const struct setup_op *op, const int *layers, size_t layer_count, struct err *e);
/* Makes a tmpfs of "key=value,…" and returns a mount descriptor. */
int setup_tmpfs(const char *options, unsigned attributes, struct err *e);

#endif
