#define _GNU_SOURCE
#include "pid1.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "connects.h"
#include "execs.h"
#include "files.h"
#include "msg.h"
#include "requests.h"
#include "rights.h"
#include "users.h"
#include "watches.h"

#define REMOVALS_MAX 64
#define PAGE_ROOM 1024
#define WATCHES_MAX 16

/* A tree being removed by a child; the request is answered when it ends. */
struct removal {
	pid_t pid;
	uint32_t id;
};

/* A child that watches a directory, and the end of its pipe that tells when nobody reads any more. Normally the child sees
 * that by itself; but it is the user's, who can stop it. */
struct watching {
	pid_t pid;
	int out;
};

struct pid1 {
	int control;
	int signals;
	struct execs execs;
	size_t removal_count;
	struct removal removals[REMOVALS_MAX];
	size_t watch_count;
	struct watching watches[WATCHES_MAX];
	int given; /* the descriptor that came with the request that is handled; -1 for none */
	int source; /* the second one, where two came */
};

static uint8_t received[MSG_MAX];
static uint8_t answer[MSG_MAX];
static char *arguments;
static size_t arguments_length;

void pid1_remember_arguments(int argc, char **argv)
{
	arguments = argv[0];
	arguments_length = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
}

void pid1_hide_arguments(void)
{
	if (!arguments)
		return;
	memset(arguments, 0, arguments_length);
	strncpy(arguments, "init", arguments_length);
}

static int reply(const struct pid1 *pid1, const struct msg_writer *writer, const int *fds, size_t count)
{
	return msg_send(pid1->control, writer, fds, count, 0);
}

/* Answered when the command runs, or cannot: see answer_begun. */
static int start_exec(struct pid1 *pid1, uint32_t id, struct msg_reader fields, struct err *e)
{
	static struct exec_request request;
	struct exec *exec;
	int code = execs_parse(fields, &request, e);

	return code ? code : execs_start(&pid1->execs, &request, id, &exec, e);
}

static int answer_start(struct pid1 *pid1, const struct exec *exec)
{
	struct msg_writer writer;
	uint64_t which;
	size_t count;
	int fds[3];

	msg_begin(&writer, answer, sizeof answer, M_OK, exec->request);
	msg_put_number(&writer, T_PID, (uint64_t)exec->pid);
	count = execs_streams(exec, fds, &which);
	msg_put_number(&writer, T_STREAMS, which);
	return reply(pid1, &writer, fds, count);
}

static void answer_begun(struct pid1 *pid1)
{
	struct err e = {0};
	struct exec *exec;
	int code;

	while ((exec = execs_begun(&pid1->execs, &code, &e))) {
		uint32_t id = exec->request;

		if (!code && (code = answer_start(pid1, exec))) {
			execs_abandon(&pid1->execs, exec);
			err_set(&e, -code, "limits", "cannot hand over the streams of a command");
		}
		if (code)
			msg_send_error(pid1->control, id, &e, 0);
	}
}

static int list_execs(struct pid1 *pid1, uint32_t id, uint64_t cursor)
{
	struct msg_writer writer;
	size_t i;

	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	for (i = cursor; i < pid1->execs.count; i++) {
		struct exec *exec = &pid1->execs.list[i];
		size_t entry;

		if (exec->released)
			continue;
		if (writer.length + exec->label_length + PAGE_ROOM > sizeof answer)
			break;
		exec->listed = true;
		entry = msg_begin_nested(&writer, T_ENTRY);
		msg_put_number(&writer, T_NUMBER, exec->number);
		msg_put_number(&writer, T_PID, (uint64_t)exec->pid);
		if (execs_is_over(exec))
			msg_put_number(&writer, T_STATUS, (uint64_t)(uint32_t)exec->status);
		msg_put(&writer, T_LABEL, exec->label, exec->label_length);
		msg_end_nested(&writer, entry);
	}
	msg_put_number(&writer, T_CURSOR, i);
	msg_put_number(&writer, T_MORE, i < pid1->execs.count);
	return reply(pid1, &writer, NULL, 0);
}

/* M_EXEC_ATTACH, M_EXEC_RELEASE, M_SIGNAL, M_STDIN_CLOSE and M_RESIZE name an exec. */
static int on_exec(struct pid1 *pid1, const struct msg_header *header, struct msg_reader fields, struct err *e)
{
	struct msg_writer writer;
	struct exec_order order;
	struct exec *exec;
	int fds[3], code = requests_exec(fields, &order, e);
	uint64_t which;
	size_t count;

	if (code)
		return code;
	exec = execs_find(&pid1->execs, order.number);
	if (!exec)
		return err_set(e, ESRCH, "exec", "no exec %llu", (unsigned long long)order.number);
	msg_begin(&writer, answer, sizeof answer, M_OK, header->id);
	switch (header->type) {
	case M_EXEC_ATTACH:
		count = execs_streams(exec, fds, &which);
		msg_put_number(&writer, T_STREAMS, which);
		return reply(pid1, &writer, fds, count);
	case M_STDIN_CLOSE: execs_close_stdin(exec); break;
	case M_RESIZE:
		code = execs_resize(exec, order.rows, order.columns, e);
		if (code)
			return code;
		break;
	case M_EXEC_RELEASE:
		if (!exec->exited)
			return err_set(e, EBUSY, "exec", "exec %llu still runs", (unsigned long long)order.number);
		execs_release(exec);
		break;
	default:
		if (order.signal < 1 || order.signal > 64)
			return err_set(e, EINVAL, "signal", "no signal %llu", (unsigned long long)order.signal);
		code = execs_signal(&pid1->execs, exec, (int)order.signal, order.tree, e);
		if (code)
			return code;
	}
	return reply(pid1, &writer, NULL, 0);
}

static int answer_stat(struct pid1 *pid1, uint32_t id, const struct file_record *record, const char *target)
{
	struct msg_writer writer;

	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	msg_put(&writer, T_STAT, record, sizeof *record);
	msg_put(&writer, T_TARGET, target, record->target_length);
	return reply(pid1, &writer, NULL, 0);
}

/* Answers with a file that was opened, or returns the negative errno that is in its place. */
static int send_file(struct pid1 *pid1, uint32_t id, int fd)
{
	struct msg_writer writer;
	int code;

	if (fd < 0)
		return fd;
	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	code = reply(pid1, &writer, &fd, 1);
	close(fd);
	return code;
}

static int walk(struct pid1 *pid1, uint32_t id, const struct user *user, const struct file_request *request,
		struct err *e)
{
	struct msg_writer writer;
	int pair[2], code;
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_set(e, errno, "walk", "cannot make a pipe");
	pid = files_walk(user, request->path, request->recursive, request->limit, pair[1], e);
	close(pair[1]);
	if (pid > 0) {
		msg_begin(&writer, answer, sizeof answer, M_OK, id);
		code = reply(pid1, &writer, &pair[0], 1);
	} else {
		code = (int)pid;
	}
	close(pair[0]);
	return code;
}

static int watch(struct pid1 *pid1, uint32_t id, const struct user *user, const struct file_request *request,
		 struct err *e)
{
	struct msg_writer writer;
	int pair[2], code;
	pid_t pid;

	if (pid1->watch_count == WATCHES_MAX)
		return err_set(e, EAGAIN, "watch", "%d directories are watched already", WATCHES_MAX);
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_set(e, errno, "watch", "cannot make a pipe");
	pid = watches_start(user, request->path, request->recursive, pair[1], e);
	if (pid > 0) {
		pid1->watches[pid1->watch_count++] = (struct watching){pid, pair[1]};
		msg_begin(&writer, answer, sizeof answer, M_OK, id);
		code = reply(pid1, &writer, &pair[0], 1);
	} else {
		close(pair[1]);
		code = (int)pid;
	}
	close(pair[0]);
	return code;
}

static int remove_file(struct pid1 *pid1, uint32_t id, const struct user *user, const struct file_request *request,
		       struct err *e)
{
	int code = files_remove(user, request->path, e);
	pid_t pid;

	if (code != -ENOTEMPTY || !request->recursive)
		return code ? code : msg_send_ok(pid1->control, id, 0);
	if (pid1->removal_count == REMOVALS_MAX)
		return err_set(e, EAGAIN, "remove", "%d trees are being removed already", REMOVALS_MAX);
	pid = files_remove_tree(user, request->path, e);
	if (pid < 0)
		return (int)pid;
	pid1->removals[pid1->removal_count++] = (struct removal){pid, id};
	return 0;
}

/* Its child is taken before us when memory is short: it is who takes it. */
static int fill_file(struct pid1 *pid1, uint32_t id, const struct user *user, struct err *e)
{
	pid_t pid;

	if (pid1->source < 0)
		return err_set(e, EINVAL, "path", "fill what with what?");
	if (pid1->removal_count == REMOVALS_MAX)
		return err_set(e, EAGAIN, "fill", "%d processes work on files already", REMOVALS_MAX);
	execs_score(&pid1->execs, true);
	pid = files_fill(user, pid1->given, pid1->source, e);
	execs_score(&pid1->execs, false);
	if (pid < 0)
		return (int)pid;
	pid1->removals[pid1->removal_count++] = (struct removal){pid, id};
	return 0;
}

static int on_file(struct pid1 *pid1, const struct msg_header *header, struct msg_reader fields, struct err *e)
{
	struct file_request request;
	struct file_record record;
	struct msg_writer writer;
	char target[PATH_MAX];
	struct user user;
	bool created = false;
	int code = requests_file(fields, &request, e);

	if (!code) {
		code = users_find(request.user, &user, e);
		if (code)
			e->stage = "user";
	}
	if (code)
		return code;
	switch (header->type) {
	case M_OPEN:
		return send_file(pid1, header->id,
				 files_open(&user, request.path, (int)request.flags, (mode_t)request.mode, e));
	case M_STAT:
		code = files_stat(&user, request.path, request.follow, &record, target, e);
		return code ? code : answer_stat(pid1, header->id, &record, target);
	case M_MKDIR:
		code = files_mkdir(&user, request.path, (mode_t)request.mode, request.parents, &created, e);
		if (code)
			return code;
		msg_begin(&writer, answer, sizeof answer, M_OK, header->id);
		msg_put_number(&writer, T_CREATED, created);
		return reply(pid1, &writer, NULL, 0);
	case M_REMOVE:
		return remove_file(pid1, header->id, &user, &request, e);
	case M_RENAME:
		code = request.to ? files_rename(&user, request.path, request.to, request.exclusive, e)
				  : err_set(e, EINVAL, "path", "rename to what?");
		return code ? code : msg_send_ok(pid1->control, header->id, 0);
	case M_CHANGE:
		if (pid1->given >= 0)
			code = files_change_open(&user, pid1->given, &request.change, e);
		else if (request.below)
			code = files_change_below(&user, request.path, request.follow, request.below, &request.change, e);
		else
			code = files_change(&user, request.path, request.follow, &request.change, e);
		return code ? code : msg_send_ok(pid1->control, header->id, 0);
	case M_SYMLINK:
		code = request.target ? files_symlink(&user, request.target, request.path, e)
				      : err_set(e, EINVAL, "path", "a link to what?");
		return code ? code : msg_send_ok(pid1->control, header->id, 0);
	case M_LINK:
		code = request.to ? files_link(&user, request.path, request.to, e)
				  : err_set(e, EINVAL, "path", "link as what?");
		return code ? code : msg_send_ok(pid1->control, header->id, 0);
	case M_DRAFT: return send_file(pid1, header->id, files_draft(&user, request.path, (mode_t)request.mode, e));
	case M_PLACE:
		code = pid1->given >= 0 ? files_place(&user, pid1->given, request.path, request.exclusive, e)
					: err_set(e, EINVAL, "path", "name what?");
		return code ? code : msg_send_ok(pid1->control, header->id, 0);
	case M_WATCH: return watch(pid1, header->id, &user, &request, e);
	case M_FILL: return fill_file(pid1, header->id, &user, e);
	default:
		return walk(pid1, header->id, &user, &request, e);
	}
}

static int connect_to(struct pid1 *pid1, uint32_t id, struct msg_reader fields, struct err *e)
{
	struct connect_request request;
	struct msg_writer writer;
	int fd, code = requests_connect(fields, &request, e);

	if (code)
		return code;
	fd = connects_open(request.port, request.version, request.name, e);
	if (fd < 0)
		return fd;
	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	code = reply(pid1, &writer, &fd, 1);
	close(fd);
	return code;
}

/* The root is an overlay, and tells what its writable layer has and uses. */
static int tell_usage(struct pid1 *pid1, uint32_t id, struct err *e)
{
	struct msg_writer writer;
	struct statfs facts;

	if (statfs("/", &facts) < 0)
		return err_set(e, errno, "usage", "cannot look at the disk");
	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	msg_put_number(&writer, T_USED, (uint64_t)(facts.f_blocks - facts.f_bfree) * (uint64_t)facts.f_bsize);
	msg_put_number(&writer, T_SIZE, (uint64_t)facts.f_blocks * (uint64_t)facts.f_bsize);
	return reply(pid1, &writer, NULL, 0);
}

static void handle(struct pid1 *pid1, const uint8_t *data, size_t length)
{
	struct err e = {0};
	struct msg_header header;
	struct msg_reader fields;
	struct msg_field field;
	uint64_t cursor = 0;
	int code;

	if (msg_open(data, length, &header, &fields))
		return;
	switch (header.type) {
	case M_PING: code = msg_send_ok(pid1->control, header.id, 0); break;
	case M_EXEC: code = start_exec(pid1, header.id, fields, &e); break;
	case M_CONNECT: code = connect_to(pid1, header.id, fields, &e); break;
	case M_USAGE: code = tell_usage(pid1, header.id, &e); break;
	case M_EXEC_LIST:
		if (msg_next(&fields, &field) > 0 && field.tag == T_CURSOR)
			msg_number(&field, &cursor);
		code = list_execs(pid1, header.id, cursor);
		break;
	case M_EXEC_ATTACH:
	case M_EXEC_RELEASE:
	case M_STDIN_CLOSE:
	case M_RESIZE:
	case M_SIGNAL: code = on_exec(pid1, &header, fields, &e); break;
	case M_OPEN:
	case M_STAT:
	case M_MKDIR:
	case M_REMOVE:
	case M_RENAME:
	case M_CHANGE:
	case M_SYMLINK:
	case M_LINK:
	case M_DRAFT:
	case M_PLACE:
	case M_WATCH:
	case M_FILL:
	case M_WALK: code = on_file(pid1, &header, fields, &e); break;
	default: code = err_set(&e, ENOSYS, "request", "unknown request %u", header.type);
	}
	if (code && !e.code) /* root inside has as many on their way to itself as its user may have, and we are that user */
		err_set(&e, -code, "answer", "cannot hand over a descriptor");
	if (code)
		msg_send_error(pid1->control, header.id, &e, 0);
}

/* Tells the worker of exits it has not heard of. Never waits: without a reader they stay noted until there is one. */
static bool tell_exits(struct pid1 *pid1)
{
	for (size_t i = 0; i < pid1->execs.count; i++) {
		struct exec *exec = &pid1->execs.list[i];
		uint8_t buffer[64];
		struct msg_writer writer;

		if (!exec->unsent || !execs_is_over(exec))
			continue;
		msg_begin(&writer, buffer, sizeof buffer, M_EXEC_EXITED, 0);
		msg_put_number(&writer, T_NUMBER, exec->number);
		msg_put_number(&writer, T_STATUS, (uint64_t)(uint32_t)exec->status);
		if (msg_send(pid1->control, &writer, NULL, 0, MSG_DONTWAIT))
			return false;
		exec->unsent = false;
	}
	return true;
}

static void finish_removal(struct pid1 *pid1, pid_t pid, int status)
{
	for (size_t i = 0; i < pid1->removal_count; i++) {
		struct removal removal = pid1->removals[i];
		struct err e;

		if (removal.pid != pid)
			continue;
		pid1->removals[i] = pid1->removals[--pid1->removal_count];
		if (WIFEXITED(status) && !WEXITSTATUS(status)) {
			msg_send_ok(pid1->control, removal.id, 0);
			return;
		}
		err_set(&e, WIFEXITED(status) ? WEXITSTATUS(status) : ENOSPC, "tree", "the work on files has broken off");
		msg_send_error(pid1->control, removal.id, &e, 0);
		return;
	}
}

static void finish_watch(struct pid1 *pid1, pid_t pid)
{
	for (size_t i = 0; i < pid1->watch_count; i++)
		if (pid1->watches[i].pid == pid) {
			if (pid1->watches[i].out >= 0)
				close(pid1->watches[i].out);
			pid1->watches[i] = pid1->watches[--pid1->watch_count];
			return;
		}
}

static size_t poll_watches(const struct pid1 *pid1, struct pollfd *polls)
{
	for (size_t i = 0; i < pid1->watch_count; i++)
		polls[i] = (struct pollfd){.fd = pid1->watches[i].out};
	return pid1->watch_count;
}

/* A watch whose reader is gone ends, and gives its place back when it is reaped. */
static void end_watches(struct pid1 *pid1, const struct pollfd *polls)
{
	for (size_t i = 0; i < pid1->watch_count; i++)
		if (polls[i].revents) {
			kill(pid1->watches[i].pid, SIGKILL);
			close(pid1->watches[i].out);
			pid1->watches[i].out = -1;
		}
}

static void reap(struct pid1 *pid1)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(pid1->signals, &info, sizeof info) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!execs_reaped(&pid1->execs, pid, status)) {
			finish_removal(pid1, pid, status);
			finish_watch(pid1, pid);
		}
}

static void receive(struct pid1 *pid1)
{
	int fds[MSG_FDS_MAX];
	size_t count;
	ssize_t length = msg_receive(pid1->control, received, sizeof received, fds, &count, MSG_DONTWAIT);

	if (!length || length == -ECONNRESET)
		_exit(0); /* worker and spawner are both gone: nobody could ever reach this sandbox again */
	pid1->given = count == 1 || count == 2 ? fds[0] : -1;
	pid1->source = count == 2 ? fds[1] : -1;
	if (length > 0)
		handle(pid1, received, (size_t)length);
	msg_close_fds(fds, count);
}

static _Noreturn void serve(struct pid1 *pid1)
{
	static struct pollfd polls[2 + EXECS_POLLS + WATCHES_MAX];

	for (;;) {
		size_t count = 2, watches;
		bool told;

		answer_begun(pid1); /* before its end is told */
		told = tell_exits(pid1);
		execs_tidy(&pid1->execs);
		polls[0] = (struct pollfd){.fd = pid1->control, .events = (short)(POLLIN | (told ? 0 : POLLOUT))};
		polls[1] = (struct pollfd){.fd = pid1->signals, .events = POLLIN};
		count += execs_poll(&pid1->execs, polls + 2);
		watches = count;
		count += poll_watches(pid1, polls + watches);
		if (poll(polls, count, execs_patience(&pid1->execs)) < 0)
			continue;
		execs_relay(&pid1->execs, polls + 2);
		end_watches(pid1, polls + watches); /* before any is reaped, which moves the others */
		if (polls[1].revents)
			reap(pid1);
		if (polls[0].revents & (POLLIN | POLLHUP | POLLERR))
			receive(pid1);
	}
}

_Noreturn void pid1_run(int control, int cgroup, int score)
{
	static struct pid1 pid1;
	uint8_t buffer[64];
	struct msg_writer writer;
	sigset_t all;

	pid1.control = control;
	rights_reset_signals(); /* commands inherit what is ignored */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	pid1.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (pid1.signals < 0)
		_exit(1);
	execs_init(&pid1.execs, cgroup, score);
	msg_begin(&writer, buffer, sizeof buffer, M_READY, 0);
	if (msg_send(control, &writer, NULL, 0, 0))
		_exit(0);
	serve(&pid1);
}
