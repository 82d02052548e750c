#define _GNU_SOURCE
#include "spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "births.h"
#include "kernel.h"
#include "msg.h"
#include "registry.h"
#include "seccomp.h"

#define CONNECTIONS_MAX 8
#define PAGE_ROOM 1024
#define RETRY_MS 10
#define IDLE_MS 2 /* a sandbox that was just made has the processors for itself until then */

/* What an epoll event is about; pid descriptors carry the index of their sandbox. */
enum source { FROM_LISTENER, FROM_SIGNALS, FROM_CONNECTION, FROM_PIDFD };

struct connection {
	int fd; /* -1 for a free place */
	bool subscribed;
};

struct spawner {
	int epoll;
	int listener;
	int signals;
	bool stopping;
	struct connection connections[CONNECTIONS_MAX];
	struct registry registry;
	struct ahead ahead;
};

static struct spawner spawner;
static uint8_t received[MSG_MAX];
static uint8_t answer[MSG_MAX];

static int watch(int fd, enum source source, size_t index)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | index};

	return epoll_ctl(spawner.epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void disconnect(struct connection *connection)
{
	close(connection->fd);
	*connection = (struct connection){.fd = -1};
}

static void broadcast(const struct msg_writer *writer)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *connection = &spawner.connections[i];

		/* A worker that cannot keep up is cut off: it connects again and lists, and so misses nothing. */
		if (connection->fd >= 0 && connection->subscribed && msg_send(connection->fd, writer, NULL, 0, MSG_DONTWAIT))
			disconnect(connection);
	}
}

static void tell_end(const struct sandbox *sandbox)
{
	const struct sandbox_detail *detail = registry_detail(&spawner.registry, sandbox);
	uint8_t buffer[512];
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_SANDBOX_EXITED, 0);
	msg_put_string(&writer, T_ID, detail->id);
	if (sandbox->status_known)
		msg_put_number(&writer, T_STATUS, (uint64_t)(uint32_t)sandbox->status);
	msg_put_string(&writer, T_REASON, detail->reason);
	msg_put_number(&writer, T_OOM_KILLS, sandbox->oom_kills);
	broadcast(&writer);
}

/* A sandbox is dead when its init and its cgroups are gone: then what it held is free for others. */
static void bury(struct sandbox *sandbox)
{
	struct err e;

	if (cgroups_remove(&registry_detail(&spawner.registry, sandbox)->cgroups, &e))
		return; /* a process still dies; the main loop tries again */
	sandbox->state = SANDBOX_DEAD;
	spawner.registry.live--;
	tell_end(sandbox);
}

static void note_end(struct sandbox *sandbox, bool status_known, int status)
{
	sandbox->oom_kills = cgroups_oom_kills(&registry_detail(&spawner.registry, sandbox)->cgroups);
	sandbox->state = SANDBOX_ENDING;
	sandbox->status_known = status_known;
	sandbox->status = status;
	close(sandbox->control);
	sandbox->control = -1;
	if (sandbox->pidfd >= 0)
		close(sandbox->pidfd);
	sandbox->pidfd = -1;
	bury(sandbox);
}

static void reap(void)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(spawner.signals, &info, sizeof info) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct sandbox *sandbox = registry_find_pid(&spawner.registry, pid);

		if (sandbox)
			note_end(sandbox, true, status);
	}
}

static void kill_sandbox(struct sandbox *sandbox, const char *reason)
{
	struct sandbox_detail *detail = registry_detail(&spawner.registry, sandbox);

	if (sandbox->state != SANDBOX_LIVE)
		return;
	if (!detail->reason[0])
		snprintf(detail->reason, sizeof detail->reason, "%s", reason);
	if (sandbox->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, sandbox->pidfd, SIGKILL, NULL, 0);
	else
		kill(sandbox->pid, SIGKILL); /* our child and not yet reaped: the number cannot be another process */
}

/* Kills what is past its deadline and buries what has ended; returns milliseconds until the next need, -1 for none. */
static int keep_time(void)
{
	uint64_t now = registry_now(), next = UINT64_MAX;

	for (size_t i = 0; i < spawner.registry.used; i++) {
		struct sandbox *sandbox = &spawner.registry.list[i];

		if (sandbox->state == SANDBOX_ENDING) {
			bury(sandbox);
			if (sandbox->state == SANDBOX_ENDING && now + RETRY_MS < next)
				next = now + RETRY_MS;
		}
		if (sandbox->state != SANDBOX_LIVE || !sandbox->deadline)
			continue;
		if (sandbox->deadline <= now)
			kill_sandbox(sandbox, "expired");
		else if (sandbox->deadline < next)
			next = sandbox->deadline;
	}
	if (next == UINT64_MAX)
		return -1;
	return next - now > 60000 ? 60000 : (int)(next - now);
}

/* A request that names a sandbox, with every field that any of them has. */
struct request {
	const char *id;
	const char *reason;
	const uint8_t *label;
	uint32_t label_length;
	uint64_t deadline;
	uint64_t cursor;
};

static int parse_request(struct msg_reader fields, struct request *request, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	*request = (struct request){.reason = "deleted", .label = (const uint8_t *)""};
	while ((more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_ID: good = (request->id = msg_string(&field)) && good; break;
		case T_REASON: good = (request->reason = msg_string(&field)) && good; break;
		case T_LABEL:
			request->label = field.data;
			request->label_length = field.length;
			break;
		case T_DEADLINE: good = msg_number(&field, &request->deadline) && good; break;
		case T_CURSOR: good = msg_number(&field, &request->cursor) && good; break;
		default: good = false;
		}
	}
	return more < 0 || !good ? err_set(e, EBADMSG, "request", "malformed request") : 0;
}

static int on_hello(struct connection *connection, uint32_t id)
{
	uint8_t buffer[64];
	struct msg_writer writer;

	connection->subscribed = true;
	msg_begin(&writer, buffer, sizeof buffer, M_OK, id);
	msg_put_number(&writer, T_VERSION, PROTOCOL_VERSION);
	msg_put_number(&writer, T_PID, (uint64_t)getpid());
	return msg_send(connection->fd, &writer, NULL, 0, 0);
}

static int on_create(const struct connection *connection, uint32_t id, struct msg_reader fields, struct err *e)
{
	static struct birth birth;
	uint8_t buffer[64];
	struct msg_writer writer;
	int control, code = births_parse(fields, &birth, e);
	pid_t pid;

	if (!code)
		code = registry_check(&spawner.registry, birth.id, e);
	if (!code)
		code = births_start(&birth, &spawner.ahead, &pid, &control, e);
	if (!code)
		code = registry_add(&spawner.registry, &birth, pid, control, -1, e);
	if (code)
		return code;
	msg_begin(&writer, buffer, sizeof buffer, M_OK, id);
	msg_put_number(&writer, T_PID, (uint64_t)pid);
	return msg_send(connection->fd, &writer, &control, 1, 0);
}

/* Takes over a sandbox that an earlier spawner made. */
static int on_adopt(const struct connection *connection, uint32_t id, struct msg_reader fields, const int *fds,
		    size_t fd_count, struct err *e)
{
	static struct birth birth;
	struct msg_reader rest = fields;
	struct msg_field field;
	struct sandbox *sandbox;
	uint64_t pid = 0;
	int code;

	/* The same fields as a birth's, and the pid, which births_parse does not know: it comes first. */
	if (msg_next(&rest, &field) <= 0 || field.tag != T_PID || !msg_number(&field, &pid) || fd_count != 2)
		return err_set(e, EBADMSG, "adopt", "malformed request");
	code = births_parse(rest, &birth, e);
	if (!code)
		code = registry_add(&spawner.registry, &birth, (pid_t)pid, dup(fds[0]), dup(fds[1]), e);
	if (code)
		return code;
	sandbox = registry_find(&spawner.registry, birth.id);
	fcntl(sandbox->control, F_SETFD, FD_CLOEXEC);
	fcntl(sandbox->pidfd, F_SETFD, FD_CLOEXEC);
	code = watch(sandbox->pidfd, FROM_PIDFD, (size_t)(sandbox - spawner.registry.list));
	if (code)
		return err_set(e, -code, "adopt", "cannot watch the process");
	return msg_send_ok(connection->fd, id, 0);
}

static int on_list(const struct connection *connection, uint32_t id, uint64_t cursor)
{
	struct msg_writer writer;
	size_t i;
	int code;

	msg_begin(&writer, answer, sizeof answer, M_OK, id);
	for (i = cursor; i < spawner.registry.used; i++) {
		const struct sandbox *sandbox = &spawner.registry.list[i];
		const struct sandbox_detail *detail = &spawner.registry.details[i];
		size_t entry;

		if (sandbox->state == SANDBOX_NONE)
			continue;
		if (writer.length + detail->label_length + PAGE_ROOM > sizeof answer)
			break;
		entry = msg_begin_nested(&writer, T_ENTRY);
		msg_put_string(&writer, T_ID, detail->id);
		msg_put(&writer, T_LABEL, detail->label, detail->label_length);
		msg_put_number(&writer, T_DEADLINE, sandbox->deadline);
		msg_put_number(&writer, T_PID, (uint64_t)sandbox->pid);
		msg_put_number(&writer, T_LIVE, sandbox->state == SANDBOX_LIVE || sandbox->state == SANDBOX_ENDING);
		if (sandbox->status_known)
			msg_put_number(&writer, T_STATUS, (uint64_t)(uint32_t)sandbox->status);
		msg_put_string(&writer, T_REASON, detail->reason);
		msg_put_number(&writer, T_OOM_KILLS, sandbox->oom_kills);
		msg_end_nested(&writer, entry);
	}
	msg_put_number(&writer, T_CURSOR, i);
	msg_put_number(&writer, T_MORE, i < spawner.registry.used);
	code = msg_send(connection->fd, &writer, NULL, 0, 0);
	memset(answer, 0, writer.length); /* labels, which no child may see */
	return code;
}

/* A process ends some time before the event loop reads of it; whoever is told that a sandbox lives relies on it. */
static bool lives(const struct sandbox *sandbox)
{
	struct pollfd adopted = {.fd = sandbox->pidfd, .events = POLLIN};
	siginfo_t child = {0};

	if (sandbox->state != SANDBOX_LIVE)
		return false;
	if (sandbox->pidfd >= 0)
		return poll(&adopted, 1, 0) <= 0;
	return waitid(P_PID, (id_t)sandbox->pid, &child, WEXITED | WNOHANG | WNOWAIT) == 0 && !child.si_pid;
}

static int on_sandbox(const struct connection *connection, const struct msg_header *header, struct msg_reader fields,
		      struct err *e)
{
	uint8_t buffer[16];
	struct msg_writer writer;
	struct request request;
	struct sandbox *sandbox;
	int code = parse_request(fields, &request, e);

	if (code)
		return code;
	if (header->type == M_LIST)
		return on_list(connection, header->id, request.cursor);
	sandbox = request.id ? registry_find(&spawner.registry, request.id) : NULL;
	if (!sandbox)
		return err_set(e, ENOENT, "request", "no sandbox '%s'", request.id ? request.id : "");
	msg_begin(&writer, buffer, sizeof buffer, M_OK, header->id);
	switch (header->type) {
	case M_ATTACH:
		if (!lives(sandbox))
			return err_set(e, ESRCH, "attach", "sandbox '%s' has ended", request.id);
		return msg_send(connection->fd, &writer, &sandbox->control, 1, 0);
	case M_UPDATE:
		if (!lives(sandbox))
			return err_set(e, ESRCH, "update", "sandbox '%s' has ended", request.id);
		code = registry_update(&spawner.registry, sandbox, request.label, request.label_length, request.deadline, e);
		break;
	case M_KILL:
		kill_sandbox(sandbox, request.reason);
		break;
	default: /* M_FORGET */
		if (sandbox->state != SANDBOX_DEAD)
			return err_set(e, EBUSY, "forget", "sandbox '%s' lives", request.id);
		registry_remove(&spawner.registry, sandbox);
	}
	return code ? code : msg_send(connection->fd, &writer, NULL, 0, 0);
}

static void handle(struct connection *connection, const uint8_t *data, size_t length, const int *fds, size_t fd_count)
{
	struct err e = {0};
	struct msg_header header;
	struct msg_reader fields;
	int code;

	if (msg_open(data, length, &header, &fields)) {
		disconnect(connection);
		return;
	}
	switch (header.type) {
	case M_HELLO: code = on_hello(connection, header.id); break;
	case M_CREATE: code = on_create(connection, header.id, fields, &e); break;
	case M_ADOPT: code = on_adopt(connection, header.id, fields, fds, fd_count, &e); break;
	case M_LIST:
	case M_ATTACH:
	case M_UPDATE:
	case M_KILL:
	case M_FORGET: code = on_sandbox(connection, &header, fields, &e); break;
	case M_SHUTDOWN:
		spawner.stopping = !spawner.registry.live;
		code = spawner.stopping ? msg_send_ok(connection->fd, header.id, 0)
					: err_set(&e, EBUSY, "shutdown", "%zu sandboxes live", spawner.registry.live);
		break;
	default: code = err_set(&e, ENOSYS, "request", "unknown request %u", header.type);
	}
	if (code && e.code)
		code = msg_send_error(connection->fd, header.id, &e, 0);
	if (code && connection->fd >= 0)
		disconnect(connection);
}

static void receive(struct connection *connection)
{
	int fds[MSG_FDS_MAX];
	size_t count;
	ssize_t length = msg_receive(connection->fd, received, sizeof received, fds, &count, MSG_DONTWAIT);

	if (length > 0) {
		handle(connection, received, (size_t)length, fds, count);
		/* The next child copies this memory; a message says what callers asked for. */
		memset(received, 0, (size_t)length);
	} else if (length != -EAGAIN)
		disconnect(connection);
	msg_close_fds(fds, count);
}

static void welcome(void)
{
	/* A worker that stops reading must not stop the spawner for ever. */
	struct timeval patience = {.tv_sec = 5};
	struct ucred peer = {0};
	socklen_t size = sizeof peer;
	int fd = accept4(spawner.listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid()) {
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
			if (spawner.connections[i].fd >= 0)
				continue;
			if (watch(fd, FROM_CONNECTION, i))
				break;
			spawner.connections[i] = (struct connection){.fd = fd};
			return;
		}
	}
	close(fd);
}

static void dispatch(uint64_t data)
{
	size_t index = (uint32_t)data;

	switch ((enum source)(data >> 32)) {
	case FROM_LISTENER: welcome(); break;
	case FROM_SIGNALS: reap(); break;
	case FROM_CONNECTION:
		if (spawner.connections[index].fd >= 0)
			receive(&spawner.connections[index]);
		break;
	case FROM_PIDFD:
		if (spawner.registry.list[index].state == SANDBOX_LIVE && spawner.registry.list[index].pidfd >= 0)
			note_end(&spawner.registry.list[index], false, 0);
	}
}

static int listen_at(const char *path, struct err *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof address.sun_path)
		return err_set(e, ENAMETOOLONG, "listen", "the socket path '%s' is too long", path);
	strcpy(address.sun_path, path);
	spawner.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (spawner.listener < 0)
		return err_set(e, errno, "listen", "cannot open a socket");
	unlink(path);
	umask(077);
	if (bind(spawner.listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(spawner.listener, 8) < 0)
		return err_set(e, errno, "listen", "cannot listen at '%s'", path);
	umask(022);
	return 0;
}

static int write_self(const char *name, const char *text, struct err *e)
{
	char path[64];
	ssize_t written = -1;
	int fd, code;

	snprintf(path, sizeof path, "/proc/self/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		written = write(fd, text, strlen(text));
	code = errno;
	if (fd >= 0)
		close(fd);
	return written < 0 ? err_set(e, code, "rootless", "cannot write '%s' to '%s'", text, path) : 0;
}

/* An ordinary user may mount only in a user namespace of its own, where it is root and nobody else is known. */
static int become_namespace_root(struct err *e)
{
	char uid_map[32], gid_map[32];
	int code;

	snprintf(uid_map, sizeof uid_map, "0 %u 1", (unsigned)geteuid());
	snprintf(gid_map, sizeof gid_map, "0 %u 1", (unsigned)getegid());
	if (unshare(CLONE_NEWUSER) < 0)
		return err_set(e, errno, "rootless", "cannot make a user namespace");
	code = write_self("setgroups", "deny", e);
	if (!code)
		code = write_self("uid_map", uid_map, e);
	return code ? code : write_self("gid_map", gid_map, e);
}

/* Mounts of the spawner are its own; those that the host makes later still arrive, so that new images can be used. */
static int leave_mount_namespace(struct err *e)
{
	int code = geteuid() ? become_namespace_root(e) : 0;

	if (code)
		return code;
	if (unshare(CLONE_NEWNS) < 0)
		return err_set(e, errno, "mounts", "cannot leave the mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_set(e, errno, "mounts", "cannot detach from the host's mounts");
	return 0;
}

/* Makes a device node, or binds the host's where only the host's root may make one. */
static int make_device(int dir, const char *path, const char *name, dev_t number)
{
	char source[64], target[4096];
	int fd;

	if (!mknodat(dir, name, S_IFCHR | 0666, number))
		return 0;
	if (errno != EPERM)
		return -errno;
	fd = openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	close(fd);
	snprintf(source, sizeof source, "/dev/%s", name);
	if (snprintf(target, sizeof target, "%s/%s", path, name) >= (int)sizeof target)
		return -ENAMETOOLONG;
	return mount(source, target, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

/* One /dev for all sandboxes, which bind it read-only: its nodes are the host's, and who has no root here cannot make
 * any. Directories are mount points for what each sandbox has of its own. */
static int make_devices(const char *path, struct err *e)
{
	static const struct {
		const char *name;
		unsigned major, minor;
	} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	static const char *const links[][2] = {
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	};
	static const char *const directories[] = {"pts", "shm", "mqueue"};
	int dir;

	if (mount("traforo", path, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k,nr_inodes=32") < 0)
		return err_set(e, errno, "devices", "cannot mount a tmpfs at '%s'", path);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_set(e, errno, "devices", "cannot open '%s'", path);
	umask(0);
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		int code = make_device(dir, path, nodes[i].name, makedev(nodes[i].major, nodes[i].minor));

		if (code)
			return err_set(e, -code, "devices", "cannot make the device '%s'", nodes[i].name);
	}
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		if (symlinkat(links[i][0], dir, links[i][1]) < 0)
			return err_set(e, errno, "devices", "cannot make the link '%s'", links[i][1]);
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
		if (mkdirat(dir, directories[i], 0755) < 0)
			return err_set(e, errno, "devices", "cannot make the directory '%s'", directories[i]);
	umask(022);
	close(dir);
	return 0;
}

int spawner_start(const struct spawner_options *options, struct err *e)
{
	bool privileged = !geteuid();
	sigset_t child;
	int code;

	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		spawner.connections[i].fd = -1;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	prctl(PR_SET_NAME, "traforo-spawner", 0, 0, 0);
	signal(SIGHUP, SIG_IGN); /* the end of the worker's session is not ours */
	signal(SIGPIPE, SIG_IGN);
	spawner.epoll = epoll_create1(EPOLL_CLOEXEC);
	spawner.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (spawner.epoll < 0 || spawner.signals < 0)
		return err_set(e, errno, "start", "cannot make an event loop");
	networks_init(&spawner.ahead.networks);
	code = registry_init(&spawner.registry, e);
	if (!code)
		code = seccomp_build(e);
	if (!code)
		code = leave_mount_namespace(e);
	if (privileged) /* /proc gives the maps of a child to an ordinary user only if that child can be traced */
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (!code && options->devices)
		code = make_devices(options->devices, e);
	if (!code)
		code = listen_at(options->socket_path, e);
	if (!code && (watch(spawner.listener, FROM_LISTENER, 0) || watch(spawner.signals, FROM_SIGNALS, 0)))
		code = err_set(e, errno, "start", "cannot watch descriptors");
	if (!code && chdir(options->stage) < 0)
		code = err_set(e, errno, "start", "cannot enter '%s'", options->stage);
	return code;
}

static bool ahead_wanted(void)
{
	return networks_wanted(&spawner.ahead.networks) || cgroups_wanted(&spawner.ahead.cgroups);
}

/* One thing at a time: a request may come. */
static void refill_ahead(void)
{
	if (networks_wanted(&spawner.ahead.networks))
		networks_refill(&spawner.ahead.networks);
	else
		cgroups_refill(&spawner.ahead.cgroups);
}

void spawner_serve(const struct spawner_options *options)
{
	while (!spawner.stopping) {
		struct epoll_event events[64];
		int due = keep_time();
		bool refill = ahead_wanted() && (due < 0 || due > IDLE_MS);
		int count = epoll_wait(spawner.epoll, events, 64, refill ? IDLE_MS : due);

		if (!count && refill)
			refill_ahead();
		for (int i = 0; i < count; i++)
			dispatch(events[i].data.u64);
	}
	unlink(options->socket_path);
}
