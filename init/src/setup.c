#define _GNU_SOURCE
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "networks.h"

int setup_parse(struct msg_reader fields, struct setup_op *op, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*op = (struct setup_op){0};
	while ((more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_OPCODE: good = good && msg_number(&field, &op->opcode); break;
		case T_FLAGS: good = good && msg_number(&field, &op->flags); break;
		case T_MODE: good = good && msg_number(&field, &op->mode); break;
		case T_INDEX: good = good && msg_number(&field, &op->index); break;
		case T_PATH: good = (op->path = msg_string(&field)) && good; break;
		case T_SOURCE: good = (op->source = msg_string(&field)) && good; break;
		case T_FSTYPE: good = (op->fstype = msg_string(&field)) && good; break;
		case T_OPTIONS: good = (op->options = msg_string(&field)) && good; break;
		case T_VALUE: good = (op->value = msg_string(&field)) && good; break;
		default: good = false;
		}
	}
	switch (op->opcode) {
	case OP_MKDIR: case OP_MOVE: case OP_PIVOT: case OP_CHMOD: good = good && op->path; break;
	case OP_MOUNT: good = good && op->path && op->source && op->fstype; break;
	case OP_BIND: case OP_MASK: case OP_SYMLINK: good = good && op->path && op->source; break;
	case OP_WRITE: good = good && op->path && op->value; break;
	case OP_HOSTNAME: good = good && op->value; break;
	case OP_LOOPBACK: case OP_ENTER: break;
	default: good = false;
	}
	if (more < 0 || !good)
		return err_set(e, EBADMSG, "setup", "malformed step with opcode %llu", (unsigned long long)op->opcode);
	return 0;
}

static int bind_mount(const struct setup_op *op, struct err *e)
{
	int fd = sys_open_tree(AT_FDCWD, op->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int code = 0;

	if (fd < 0)
		return err_set(e, errno, "bind", "cannot clone the mount at '%s'", op->source);
	if (op->flags) {
		struct kernel_mount_attr attr = {.attr_set = op->flags};

		if (sys_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0)
			code = errno;
	}
	if (!code && sys_move_mount(fd, "", AT_FDCWD, op->path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		code = errno;
	close(fd);
	if (code && !(op->opcode == OP_MASK && code == ENOENT))
		return err_set(e, code, "bind", "cannot bind '%s' at '%s'", op->source, op->path);
	return 0;
}

/* A mask over a directory binds an empty directory, over a file an empty file; the plan names the right source. */
static int mask(const struct setup_op *op, struct err *e)
{
	struct stat there;

	if (lstat(op->path, &there) < 0 && errno == ENOENT)
		return 0;
	return bind_mount(op, e);
}

static int write_file(const struct setup_op *op, struct err *e)
{
	int fd = open(op->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | (int)op->flags, (mode_t)op->mode);
	size_t length = strlen(op->value);
	int code = 0;

	if (fd < 0)
		return err_set(e, errno, "write", "cannot open '%s'", op->path);
	if (length && write(fd, op->value, length) != (ssize_t)length)
		code = errno;
	if (!code && (op->flags & O_CREAT) && fchmod(fd, (mode_t)op->mode) < 0)
		code = errno;
	close(fd);
	return code ? err_set(e, code, "write", "cannot write '%s'", op->path) : 0;
}

/* Both arguments of pivot_root may be "." (pivot_root(2), notes): the old root lands on top and is let go of at once. */
static int pivot(const struct setup_op *op, struct err *e)
{
	if (chdir(op->path) < 0)
		return err_set(e, errno, "pivot", "cannot enter '%s'", op->path);
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return err_set(e, errno, "pivot", "cannot pivot to '%s'", op->path);
	if (umount2(".", MNT_DETACH) < 0)
		return err_set(e, errno, "pivot", "cannot detach the old root");
	if (chdir("/") < 0)
		return err_set(e, errno, "pivot", "cannot enter the new root");
	return 0;
}

/* "size=64m,mode=755" as one fsconfig call a pair. */
static int configure(int context, const char *options)
{
	char copy[256], *rest = copy, *pair;

	if (strlen(options) >= sizeof copy)
		return -ENAMETOOLONG;
	strcpy(copy, options);
	while ((pair = strsep(&rest, ","))) {
		char *value = strchr(pair, '=');

		if (!value)
			return -EINVAL;
		*value++ = 0;
		if (sys_fsconfig(context, FSCONFIG_SET_STRING, pair, value) < 0)
			return -errno;
	}
	return 0;
}

int setup_tmpfs(const char *options, unsigned attributes, struct err *e)
{
	int context = sys_fsopen("tmpfs", FSOPEN_CLOEXEC), fd = -1, code;

	if (context < 0)
		return err_set(e, errno, "enter", "cannot open a tmpfs");
	code = configure(context, options);
	if (!code && sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
		code = -errno;
	if (!code && (fd = sys_fsmount(context, FSMOUNT_CLOEXEC, attributes)) < 0)
		code = -errno;
	close(context);
	return code ? err_set(e, -code, "enter", "cannot make a tmpfs with '%s'", options) : fd;
}

static int enter(const struct setup_op *op, const int *layers, size_t layer_count, struct err *e)
{
	int fd, code = 0;

	if (!op->options && op->index >= layer_count)
		return err_set(e, EBADMSG, "enter", "there is no layer %llu", (unsigned long long)op->index);
	fd = op->options ? setup_tmpfs(op->options, (unsigned)op->flags, e) : layers[op->index];
	if (fd < 0)
		return fd;
	if (sys_move_mount(fd, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(fd) < 0)
		code = err_set(e, errno, "enter", "cannot enter the stage");
	if (op->options)
		close(fd);
	return code;
}

static int loopback(struct err *e)
{
	int code = networks_prepare();

	return code ? err_set(e, -code, "loopback", "cannot bring 'lo' up") : 0;
}

int setup_run(const struct setup_op *op, const int *layers, size_t layer_count, struct err *e)
{
	switch (op->opcode) {
	case OP_MKDIR:
		if (mkdir(op->path, (mode_t)op->mode) < 0 && errno != EEXIST)
			return err_set(e, errno, "mkdir", "cannot make '%s'", op->path);
		return 0;
	case OP_CHMOD:
		if (chmod(op->path, (mode_t)op->mode) < 0)
			return err_set(e, errno, "chmod", "cannot set the mode of '%s'", op->path);
		return 0;
	case OP_ENTER:
		return enter(op, layers, layer_count, e);
	case OP_MOUNT:
		if (mount(op->source, op->path, op->fstype, op->flags, op->options) < 0)
			return err_set(e, errno, "mount", "cannot mount %s at '%s' with '%s'", op->fstype, op->path,
				       op->options ? op->options : "");
		return 0;
	case OP_MOVE:
		if (op->index >= layer_count)
			return err_set(e, EBADMSG, "layer", "there is no layer %llu", (unsigned long long)op->index);
		if (sys_move_mount(layers[op->index], "", AT_FDCWD, op->path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return err_set(e, errno, "layer", "cannot attach a layer at '%s'", op->path);
		return 0;
	case OP_BIND:
		return bind_mount(op, e);
	case OP_MASK:
		return mask(op, e);
	case OP_SYMLINK:
		if (symlink(op->source, op->path) < 0 && errno != EEXIST)
			return err_set(e, errno, "symlink", "cannot link '%s' to '%s'", op->path, op->source);
		return 0;
	case OP_WRITE:
		return write_file(op, e);
	case OP_PIVOT:
		return pivot(op, e);
	case OP_HOSTNAME:
		if (sethostname(op->value, strlen(op->value)) < 0)
			return err_set(e, errno, "hostname", "cannot set the host name '%s'", op->value);
		return 0;
	case OP_LOOPBACK:
		return loopback(e);
	default:
		return err_set(e, EBADMSG, "setup", "unknown opcode %llu", (unsigned long long)op->opcode);
	}
}
