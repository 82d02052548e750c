#include "requests.h"

#include <errno.h>

/* Reads an id; the largest number means "no change" to the kernel. */
static bool read_id(const struct msg_field *field, bool *given, uid_t *id)
{
	uint64_t value;

	if (!msg_number(field, &value) || value >= UINT32_MAX)
		return false;
	*given = true;
	*id = (uid_t)value;
	return true;
}

static bool read_mode(const struct msg_field *field, struct file_request *request)
{
	if (!msg_number(field, &request->mode))
		return false;
	request->change.mode_given = true;
	request->change.mode = (mode_t)request->mode & 07777;
	return true;
}

static bool read_time(const struct msg_field *field, struct file_change *change)
{
	uint64_t value;

	if (!msg_number(field, &value))
		return false;
	change->modified_given = true;
	change->modified_ns = (int64_t)value;
	return true;
}

static bool read_file_field(const struct msg_field *field, struct file_request *request)
{
	switch (field->tag) {
	case T_PATH: return (request->path = msg_string(field));
	case T_TO: return (request->to = msg_string(field));
	case T_BELOW: return (request->below = msg_string(field));
	case T_TARGET: return (request->target = msg_string(field));
	case T_USER: return (request->user = msg_string(field));
	case T_FLAGS: return msg_number(field, &request->flags);
	case T_MODE: return read_mode(field, request);
	case T_FOLLOW: return msg_number(field, &request->follow);
	case T_PARENTS: return msg_number(field, &request->parents);
	case T_RECURSIVE: return msg_number(field, &request->recursive);
	case T_LIMIT: return msg_number(field, &request->limit);
	case T_EXCLUSIVE: return msg_number(field, &request->exclusive);
	case T_UID: return read_id(field, &request->change.uid_given, &request->change.uid);
	case T_GID: return read_id(field, &request->change.gid_given, &request->change.gid);
	case T_MODIFIED: return read_time(field, &request->change);
	default: return false;
	}
}

int requests_file(struct msg_reader fields, struct file_request *request, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*request = (struct file_request){.user = "root", .follow = 1};
	while (good && (more = msg_next(&fields, &field)) > 0)
		good = read_file_field(&field, request);
	if (!good || more < 0 || !request->path || request->path[0] != '/' || (request->to && request->to[0] != '/'))
		return err_set(e, EINVAL, "path", "malformed request on a file");
	return 0;
}

int requests_exec(struct msg_reader fields, struct exec_order *order, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*order = (struct exec_order){0};
	while (good && (more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_NUMBER: good = msg_number(&field, &order->number); break;
		case T_SIGNAL: good = msg_number(&field, &order->signal); break;
		case T_TREE: good = msg_number(&field, &order->tree); break;
		case T_ROWS: good = msg_number(&field, &order->rows); break;
		case T_COLUMNS: good = msg_number(&field, &order->columns); break;
		default: good = false;
		}
	}
	return !good || more < 0 ? err_set(e, EINVAL, "exec", "malformed request on an exec") : 0;
}

int requests_connect(struct msg_reader fields, struct connect_request *request, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*request = (struct connect_request){0};
	while (good && (more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_PORT: good = msg_number(&field, &request->port); break;
		case T_VERSION: good = msg_number(&field, &request->version); break;
		case T_NAME: good = (request->name = msg_string(&field)); break;
		default: good = false;
		}
	}
	return !good || more < 0 ? err_set(e, EINVAL, "connect", "malformed request to connect") : 0;
}
