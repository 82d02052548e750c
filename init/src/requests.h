/* Requests of the worker, read and checked. What starts a command is read by execs.h. */
#ifndef TRAFORO_REQUESTS_H
#define TRAFORO_REQUESTS_H

#include <stdint.h>

#include "err.h"
#include "files.h"
#include "msg.h"

/* A request on files, with every field that any of them has. Strings point into the message. */
struct file_request {
	const char *path; /* absolute */
	const char *to;   /* absolute, or NULL */
	const char *below; /* relative to `path`, or NULL */
	const char *target;
	const char *user;
	uint64_t flags, mode, follow, parents, recursive, limit, exclusive;
	struct file_change change;
};

/* A request that names an exec. */
struct exec_order {
	uint64_t number, signal, tree, rows, columns;
};

struct connect_request {
	uint64_t port, version;
	const char *name; /* NULL for a port */
};

/* All return 0, or a negative errno with the record filled. */
int requests_file(struct msg_reader fields, struct file_request *request, struct err *e);
int requests_exec(struct msg_reader fields, struct exec_order *order, struct err *e);
int requests_connect(struct msg_reader fields, struct connect_request *request, struct err *e);

#endif
