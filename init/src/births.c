#define _GNU_SOURCE
#include "births.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "caps.h"
#include "kernel.h"
#include "overlays.h"
#include "pid1.h"
#include "seccomp.h"

#define ALL_NAMESPACES                                                                                                 \
	(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

/* When the whole host is short of memory, the kernel should take a sandbox before it takes a worker. */
#define OOM_SCORE "500"
#define NOBODY 65534

/* Descriptors that a new child needs until it has joined its cgroups. */
struct inheritance {
	int control;
	int score;                 /* oom_score_adj of the child, comes with M_GO */
	int cgroup;                /* directory of the v2 cgroup, -1 for none */
	size_t task_count;
	int tasks[CGROUPS_MAX];    /* "tasks" of each v1 cgroup, opened by us: the opener's rights count */
};

static int parse_field(const struct msg_field *field, struct birth *birth, struct err *e)
{
	bool good = true;

	switch (field->tag) {
	case T_ID: good = (birth->id = msg_string(field)) && field->length <= ID_MAX; break;
	case T_LABEL:
		birth->label = field->data;
		birth->label_length = field->length;
		good = field->length <= LABEL_MAX;
		break;
	case T_DEADLINE: good = msg_number(field, &birth->deadline); break;
	case T_CLONE_FLAGS:
		good = msg_number(field, &birth->clone_flags) && !(birth->clone_flags & ~(uint64_t)ALL_NAMESPACES);
		break;
	case T_UID_MAP: good = (birth->uid_map = msg_string(field)); break;
	case T_GID_MAP: good = (birth->gid_map = msg_string(field)); break;
	case T_OWNER: good = msg_number(field, &birth->owner); break;
	case T_CAPS: good = msg_number(field, &birth->caps); break;
	case T_SECCOMP: good = msg_number(field, &birth->seccomp); break;
	case T_CGROUP:
		if (birth->cgroups.count == CGROUPS_MAX)
			return err_set(e, E2BIG, "create", "more than %d cgroups", CGROUPS_MAX);
		birth->cgroup_fields[birth->cgroups.count] = msg_nested(field);
		return cgroups_parse(msg_nested(field), &birth->cgroups.list[birth->cgroups.count++], e);
	case T_LAYER:
		if (birth->layer_count == LAYERS_MAX)
			return err_set(e, E2BIG, "create", "more than %d layers", LAYERS_MAX);
		birth->layers[birth->layer_count++] = msg_nested(field);
		break;
	case T_OP:
		if (birth->op_count == OPS_MAX)
			return err_set(e, E2BIG, "create", "more than %d steps", OPS_MAX);
		return setup_parse(msg_nested(field), &birth->ops[birth->op_count++], e);
	default: good = false;
	}
	return good ? 0 : err_set(e, EBADMSG, "create", "malformed field %u", field->tag);
}

int births_parse(struct msg_reader fields, struct birth *birth, struct err *e)
{
	struct msg_field field;
	int more;

	*birth = (struct birth){.owner = (uint64_t)-1};
	while ((more = msg_next(&fields, &field)) > 0) {
		int code = parse_field(&field, birth, e);

		if (code)
			return code;
	}
	if (more < 0 || !birth->id || !birth->id[0])
		return err_set(e, EBADMSG, "create", "malformed request");
	return 0;
}

static int write_proc(pid_t pid, const char *name, const char *text, struct err *e)
{
	char path[64];
	ssize_t written;
	int fd;

	if (!text || !text[0])
		return 0;
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, errno, "proc", "cannot open '%s'", path);
	written = write(fd, text, strlen(text));
	if (written < 0) {
		int code = errno;

		close(fd);
		return err_set(e, code, "proc", "cannot write '%s' to '%s'", text, path);
	}
	close(fd);
	return 0;
}

/* A layer is a clone of a mount of the host (path), a file system of its own (a disk image on a loop device, or a tmpfs
 * with options), or an overlay (path is its lower directory, index the layer of the tmpfs with its upper one). */
struct layer {
	const char *path;
	const char *fstype;
	const char *source;
	const char *options;
	uint64_t index;
	uint64_t flags;
	uint64_t idmap;
	uint64_t recursive; /* with the mounts below: rootless, device files are such mounts */
};

static int parse_layer(struct msg_reader fields, struct layer *layer, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*layer = (struct layer){0};
	while ((more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_PATH: good = (layer->path = msg_string(&field)) && good; break;
		case T_FSTYPE: good = (layer->fstype = msg_string(&field)) && good; break;
		case T_SOURCE: good = (layer->source = msg_string(&field)) && good; break;
		case T_OPTIONS: good = (layer->options = msg_string(&field)) && good; break;
		case T_INDEX: good = good && msg_number(&field, &layer->index); break;
		case T_FLAGS: good = good && msg_number(&field, &layer->flags); break;
		case T_IDMAP: good = good && msg_number(&field, &layer->idmap); break;
		case T_RECURSIVE: good = good && msg_number(&field, &layer->recursive); break;
		default: good = false;
		}
	}
	if (more < 0 || !good || !(layer->path || (layer->fstype && (layer->source || layer->options))))
		return err_set(e, EBADMSG, "layer", "malformed layer");
	return 0;
}

static int mount_filesystem(const struct layer *layer, struct err *e)
{
	int context = sys_fsopen(layer->fstype, FSOPEN_CLOEXEC), fd = -1, code = 0;

	if (context < 0)
		return err_set(e, errno, "layer", "cannot open file system '%s'", layer->fstype);
	if (sys_fsconfig(context, FSCONFIG_SET_STRING, "source", layer->source) < 0 ||
	    sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0 ||
	    (fd = sys_fsmount(context, FSMOUNT_CLOEXEC, (unsigned)layer->flags)) < 0)
		code = errno;
	close(context);
	return code ? err_set(e, code, "layer", "cannot mount '%s' of '%s'", layer->fstype, layer->source) : fd;
}

/* The root of a tmpfs belongs to the root of the sandbox. */
static int mount_tmpfs(const struct layer *layer, uid_t owner, struct err *e)
{
	int fd = setup_tmpfs(layer->options, (unsigned)layer->flags, e);

	if (fd >= 0 && fchownat(fd, "", owner, owner, AT_EMPTY_PATH) < 0) {
		int code = errno;

		close(fd);
		return err_set(e, code, "layer", "cannot give a tmpfs away");
	}
	return fd;
}

static int clone_mount(const struct layer *layer, int userns, struct err *e)
{
	struct kernel_mount_attr attr = {.attr_set = layer->flags};
	unsigned deep = layer->recursive ? AT_RECURSIVE : 0;
	int fd;

	fd = sys_open_tree(AT_FDCWD, layer->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | deep);
	if (fd < 0)
		return err_set(e, errno, "layer", "cannot clone the mount at '%s'", layer->path);
	if (layer->idmap) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (uint64_t)userns;
	}
	if (attr.attr_set && sys_mount_setattr(fd, "", AT_EMPTY_PATH | deep, &attr) < 0) {
		int code = errno;

		close(fd);
		return err_set(e, code, "layer", "cannot set attributes of the mount of '%s'", layer->path);
	}
	return fd;
}

static int mount_overlay(const struct layer *layer, int userns, uid_t owner, const int *fds, size_t count,
			 struct overlays *overlays, struct err *e)
{
	struct layer below = *layer;
	int lower, fd, code = 0;

	if (layer->index >= count || !layer->path)
		return err_set(e, EBADMSG, "layer", "there is no tmpfs for an overlay");
	if (overlays->tmpfs < 0)
		code = overlays_begin(overlays, fds[layer->index], e);
	if (!code && overlays->tmpfs != fds[layer->index])
		code = err_set(e, EBADMSG, "layer", "overlays of two tmpfs");
	if (code)
		return code;
	below.flags |= MOUNT_ATTR_RDONLY; /* an overlay never writes there, and nobody else shall */
	lower = clone_mount(&below, userns, e);
	if (lower < 0)
		return lower;
	fd = overlays_mount(overlays, lower, owner, (unsigned)layer->flags, e);
	close(lower);
	return fd;
}

static int open_userns(pid_t pid, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_set(e, errno, "layer", "cannot open '%s'", path) : fd;
}

/* Lets go of the stage, and puts a tmpfs that the child can attach in the place of the one that was attached there. */
static int end_overlays(const struct overlays *overlays, int *fds, size_t count, struct err *e)
{
	int fd = overlays_end(overlays, e);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < count; i++)
		if (fds[i] == overlays->tmpfs)
			fds[i] = fd;
	close(overlays->tmpfs);
	return 0;
}

static int open_layers(const struct birth *birth, pid_t pid, int *fds, size_t *count, struct err *e)
{
	uid_t owner = (uid_t)birth->owner;
	struct overlays overlays = {.tmpfs = -1};
	struct err ignored;
	int userns = -1, code = 0;

	*count = 0;
	for (size_t i = 0; i < birth->layer_count && !code; i++) {
		struct layer layer;
		int fd = -1;

		code = parse_layer(birth->layers[i], &layer, e);
		if (!code && layer.idmap && userns < 0) {
			userns = open_userns(pid, e);
			code = userns < 0 ? userns : 0;
		}
		if (code)
			break;
		if (!layer.fstype)
			fd = clone_mount(&layer, userns, e);
		else if (!strcmp(layer.fstype, "overlay"))
			fd = mount_overlay(&layer, userns, owner, fds, *count, &overlays, e);
		else if (layer.options)
			fd = mount_tmpfs(&layer, owner, e);
		else
			fd = mount_filesystem(&layer, e);
		if (fd < 0)
			code = fd;
		else
			fds[(*count)++] = fd;
	}
	if (userns >= 0)
		close(userns);
	if (overlays.tmpfs >= 0) {
		int ended = end_overlays(&overlays, fds, *count, code ? &ignored : e);

		code = code ? code : ended;
	}
	return code;
}

/* The init raises its score while it starts a command, which inherits that, and could not open this by itself. */
static int open_score(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
	return open(path, O_WRONLY | O_CLOEXEC);
}

/* What only the outside may do for the child: map its users, clone its layers; then let it go on. */
static int equip(const struct birth *birth, pid_t pid, int control, struct err *e)
{
	uint8_t buffer[16];
	struct msg_writer writer;
	int fds[LAYERS_MAX + 1];
	size_t count = 0;
	int score = -1, code = write_proc(pid, "uid_map", birth->uid_map, e);

	if (!code)
		code = write_proc(pid, "gid_map", birth->gid_map, e);
	if (!code)
		code = write_proc(pid, "oom_score_adj", OOM_SCORE, e);
	if (!code)
		code = open_layers(birth, pid, fds, &count, e);
	if (!code && (score = open_score(pid)) < 0)
		code = err_set(e, errno, "proc", "cannot open the score of the init");
	if (!code) {
		fds[count++] = score;
		msg_begin(&writer, buffer, sizeof buffer, M_GO, 0);
		code = msg_send(control, &writer, fds, count, MSG_DONTWAIT);
		if (code)
			err_set(e, -code, "go", "cannot hand over the layers");
	}
	msg_close_fds(fds, count);
	return code;
}

/* Leaves the child only what it was given, at fixed low numbers, whatever the spawner has open for other sandboxes. */
static int keep_inheritance(struct inheritance *inheritance, struct err *e)
{
	int *kept[2 + CGROUPS_MAX] = {&inheritance->control, &inheritance->cgroup};
	size_t count = 2;
	int next = 3;

	for (size_t i = 0; i < inheritance->task_count; i++)
		kept[count++] = &inheritance->tasks[i];
	for (size_t i = 0; i < count; i++) {
		int moved;

		if (*kept[i] < 0)
			continue;
		moved = fcntl(*kept[i], F_DUPFD_CLOEXEC, 3 + (int)(sizeof kept / sizeof *kept));
		if (moved < 0) /* the control socket stays what it was, to tell this */
			return err_set(e, errno, "descriptors", "cannot keep descriptor %zu", i);
		*kept[i] = moved;
	}
	for (size_t i = 0; i < count; i++) {
		if (*kept[i] < 0)
			continue;
		if (dup3(*kept[i], next, O_CLOEXEC) < 0)
			return err_set(e, errno, "descriptors", "cannot move descriptor %zu", i);
		*kept[i] = next++;
	}
	if (sys_close_range((unsigned)next, ~0U, 0) < 0)
		return err_set(e, errno, "descriptors", "cannot close the rest");
	return 0;
}

/* "0" means the writing thread: the kernel then needs no lock over all forks of the machine, as it does for a pid. */
static int join_cgroups(const struct inheritance *inheritance, struct err *e)
{
	for (size_t i = 0; i < inheritance->task_count; i++) {
		if (write(inheritance->tasks[i], "0", 1) != 1)
			return err_set(e, errno, "cgroup", "cannot join v1 cgroup %zu", i);
		close(inheritance->tasks[i]);
	}
	return 0;
}

static int become_root(struct err *e)
{
	/* Without a mapped group list setgroups is refused where setgroups is denied (rootless): nothing to drop then. */
	if (setgroups(0, NULL) < 0 && errno != EPERM)
		return err_set(e, errno, "root", "cannot drop supplementary groups");
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_set(e, errno, "root", "cannot become root of the sandbox");
	return 0;
}

/* The spawner's own standard streams (its log) must not reach the sandbox. */
static int null_streams(struct err *e)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return err_set(e, errno, "descriptors", "cannot open '/dev/null' of the sandbox");
	for (int i = 0; i < 3; i++)
		if (dup2(fd, i) < 0)
			return err_set(e, errno, "descriptors", "cannot replace stream %d", i);
	if (fd > 2)
		close(fd);
	return 0;
}

static int confine(const struct birth *birth, struct err *e)
{
	int code = caps_bound(birth->caps, e);

	/* prlimit(2) asks for all six ids to be the same: with another saved gid, root inside cannot touch the init's
	 * limits. Where only root is mapped there is no other gid. */
	if (syscall(SYS_setresgid, -1, -1, NOBODY) < 0 && errno != EINVAL)
		return err_set(e, errno, "root", "cannot set the saved group");
	if (!code && birth->seccomp)
		code = seccomp_install(e); /* needs the CAP_SYS_ADMIN that caps_limit takes away */
	if (!code)
		code = caps_limit(birth->caps, e);
	return code;
}

static int set_up(const struct birth *birth, struct inheritance *inheritance, size_t *index, struct err *e)
{
	uint8_t buffer[64];
	int layers[MSG_FDS_MAX];
	size_t layer_count;
	ssize_t length = msg_receive(inheritance->control, buffer, sizeof buffer, layers, &layer_count, 0);
	int code;

	if (length <= 0)
		return err_set(e, length ? (int)-length : EPIPE, "go", "nobody waits for this sandbox");
	if (!layer_count)
		return err_set(e, EBADMSG, "go", "no score was handed over");
	inheritance->score = layers[--layer_count];
	code = join_cgroups(inheritance, e);
	if (!code && birth->clone_flags & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		code = err_set(e, errno, "cgroup", "cannot make a cgroup namespace");
	if (!code)
		code = become_root(e);
	/* Nobody inside may trace the init or read its memory; also makes its /proc entries the host's. */
	if (!code && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		code = err_set(e, errno, "dumpable", "cannot become untraceable");
	umask(0);
	for (*index = 0; *index < birth->op_count && !code; ++*index)
		code = setup_run(&birth->ops[*index], layers, layer_count, e);
	msg_close_fds(layers, layer_count);
	if (!code)
		code = null_streams(e);
	if (!code)
		code = confine(birth, e);
	return code;
}

static void report_failure(int control, size_t index, const struct err *e)
{
	uint8_t buffer[512];
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_FAILED, 0);
	msg_put_number(&writer, T_ERRNO, (uint64_t)e->code);
	msg_put_string(&writer, T_STAGE, e->stage);
	msg_put_string(&writer, T_TEXT, e->text);
	msg_put_number(&writer, T_INDEX, index);
	msg_send(control, &writer, NULL, 0, 0);
}

static _Noreturn void child_main(const struct birth *birth, struct inheritance *inheritance)
{
	struct err e = {0};
	size_t index = 0;

	prctl(PR_SET_NAME, "init", 0, 0, 0);
	pid1_hide_arguments();
	if (keep_inheritance(inheritance, &e) || set_up(birth, inheritance, &index, &e)) {
		report_failure(inheritance->control, index, &e);
		_exit(1);
	}
	pid1_run(inheritance->control, inheritance->cgroup, inheritance->score);
}

static void let_go(const struct inheritance *inheritance)
{
	if (inheritance->control >= 0)
		close(inheritance->control);
	if (inheritance->cgroup >= 0)
		close(inheritance->cgroup);
	for (size_t i = 0; i < inheritance->task_count; i++)
		close(inheritance->tasks[i]);
}

static int make_cgroups(const struct birth *birth, struct cgroups_ahead *ahead, struct cgroups *made,
			struct inheritance *inheritance, struct err *e)
{
	made->count = 0;
	for (size_t i = 0; i < birth->cgroups.count; i++) {
		const struct cgroup *cgroup = &birth->cgroups.list[i];
		char path[CGROUP_PATH_MAX + 16];
		int fd, code = cgroups_make(cgroup, birth->cgroup_fields[i], (uid_t)birth->owner, ahead, e);

		if (code)
			return code;
		made->list[made->count++] = *cgroup;
		snprintf(path, sizeof path, cgroup->kind == CGROUP_V1 ? "%s/tasks" : "%s", cgroup->path);
		/* The init keeps the v2 one: as a mount of its own, whose ".." leads nowhere. */
		fd = cgroup->kind == CGROUP_V1 ? open(path, O_WRONLY | O_CLOEXEC)
					       : sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (fd < 0)
			return err_set(e, errno, "cgroup", "cannot open '%s'", path);
		if (cgroup->kind == CGROUP_V1) {
			inheritance->tasks[inheritance->task_count++] = fd;
		} else if (inheritance->cgroup < 0) {
			inheritance->cgroup = fd;
		} else {
			close(fd);
			return err_set(e, EINVAL, "cgroup", "a second v2 cgroup at '%s'", cgroup->path);
		}
	}
	return 0;
}

/* Whoever makes a user namespace pays for what is done in it: the kernel counts inotify instances, pending signals,
 * timers and message queues against that uid out here too. If that were root, every sandbox and the host would share
 * one allowance, and one of them could use it up. */
static pid_t clone_as(uid_t owner, struct kernel_clone_args *args)
{
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), code;
	bool other = owner != (uid_t)-1 && owner != geteuid() && args->flags & CLONE_NEWUSER;
	pid_t pid;

	/* The capabilities stay: joining the cgroup needs them. */
	if (other && (prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ||
		      syscall(SYS_setresuid, -1, owner, -1) < 0))
		return -1;
	pid = sys_clone3(args);
	code = errno;
	if (other && pid) {
		syscall(SYS_setresuid, -1, 0, -1);
		prctl(PR_SET_SECUREBITS, bits, 0, 0, 0);
	}
	errno = code;
	return pid;
}

int births_start(const struct birth *birth, struct ahead *ahead, pid_t *pid, int *control, struct err *e)
{
	struct inheritance inheritance = {.control = -1, .cgroup = -1};
	/* The cgroup namespace is made later: its root is where its maker is at that moment. */
	struct kernel_clone_args args = {.flags = birth->clone_flags & ~(uint64_t)CLONE_NEWCGROUP, .exit_signal = SIGCHLD};
	struct cgroups made;
	struct err ignored;
	bool entered;
	int pair[2], code = make_cgroups(birth, &ahead->cgroups, &made, &inheritance, e);

	if (!code && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		code = err_set(e, errno, "socket", "cannot make a socket pair");
	if (code)
		goto undo_cgroups;
	inheritance.control = pair[1];
	if (inheritance.cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)inheritance.cgroup;
	}
	entered = args.flags & CLONE_NEWNET && networks_enter(&ahead->networks);
	if (entered)
		args.flags &= ~(uint64_t)CLONE_NEWNET;
	*pid = clone_as((uid_t)birth->owner, &args);
	if (*pid && entered)
		networks_leave(&ahead->networks);
	if (*pid < 0) {
		code = err_set(e, errno, "clone", "cannot start a process in new namespaces");
		close(pair[0]);
		goto undo_cgroups;
	}
	if (!*pid)
		child_main(birth, &inheritance);
	code = equip(birth, *pid, pair[0], e);
	if (code) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
		close(pair[0]);
		goto undo_cgroups;
	}
	let_go(&inheritance);
	*control = pair[0];
	return 0;

undo_cgroups:
	let_go(&inheritance);
	cgroups_remove(&made, &ignored);
	return code;
}
