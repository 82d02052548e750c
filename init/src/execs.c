#define _GNU_SOURCE
#include "execs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernel.h"
#include "users.h"

#define TREE_ROUNDS 64
#define INIT_SCORE "500"
#define COMMAND_SCORE "600"

/* Below the worker's own patience with us. */
#define BEGIN_MS 20000
/* Where a child that begins has its end of the pipe. */
#define FAILURE_FD 3

enum stage { STAGE_LIMITS, STAGE_USER, STAGE_CWD, STAGE_EXEC };

static const char *const stages[] = {"limits", "user", "cwd", "exec"};

/* What a child writes to the pipe before it gives up. When it has become its command, the kernel closes the pipe. The init
 * does not stand still until then (as with vfork): on its way a child is already the user, who can stop it for good, and
 * may have a lease on the program, for which it waits. */
struct exec_failure {
	int code;
	enum stage stage;
	char text[160]; /* the directory or the command */
};

int execs_parse(struct msg_reader fields, struct exec_request *request, struct err *e)
{
	struct msg_field field;
	bool good = true;
	int more;

	request->number = 0;
	request->label = NULL;
	request->label_length = 0;
	request->arg_count = request->env_count = 0;
	request->cwd = NULL;
	request->user = "root";
	request->stdin_pipe = request->rows = request->columns = 0;
	while (good && (more = msg_next(&fields, &field)) > 0) {
		const char *text = msg_string(&field);

		switch (field.tag) {
		case T_NUMBER: good = msg_number(&field, &request->number); break;
		case T_STDIN: good = msg_number(&field, &request->stdin_pipe); break;
		case T_ROWS: good = msg_number(&field, &request->rows) && request->rows; break;
		case T_COLUMNS: good = msg_number(&field, &request->columns) && request->columns; break;
		case T_LABEL:
			request->label = field.data;
			request->label_length = field.length;
			good = field.length <= LABEL_MAX;
			break;
		case T_CWD: good = (request->cwd = text); break;
		case T_USER: good = (request->user = text); break;
		case T_ARG:
			good = text && request->arg_count < EXEC_STRINGS_MAX;
			if (good)
				request->args[request->arg_count++] = text;
			break;
		case T_ENV:
			/* Four places stay free for what the init adds. */
			good = text && request->env_count < EXEC_STRINGS_MAX - 4;
			if (good)
				request->env[request->env_count++] = text;
			break;
		default: good = false;
		}
	}
	if (!good || more < 0 || !request->number || !request->arg_count || !request->rows != !request->columns)
		return err_set(e, EBADMSG, "request", "malformed request to start a command");
	request->args[request->arg_count] = NULL;
	request->env[request->env_count] = NULL;
	return 0;
}

void execs_init(struct execs *execs, int cgroup, int score)
{
	*execs = (struct execs){.cgroup = cgroup, .score = score};
}

static void cgroup_name(uint64_t number, const char *file, char *name, size_t size)
{
	snprintf(name, size, "e%llu%s%s", (unsigned long long)number, file[0] ? "/" : "", file);
}

static const char *find_env(const struct exec_request *request, const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < request->env_count; i++)
		if (!strncmp(request->env[i], name, length) && request->env[i][length] == '=')
			return request->env[i] + length + 1;
	return NULL;
}

/* HOME, USER, LOGNAME and SHELL, where the request does not set them. */
static void complete_env(struct exec_request *request, const struct user *user)
{
	static char home[USER_PATH_MAX + 8], shell[USER_PATH_MAX + 8], name[USER_NAME_MAX + 8], logname[USER_NAME_MAX + 10];
	char number[24];

	snprintf(number, sizeof number, "%u", (unsigned)user->uid);
	snprintf(home, sizeof home, "HOME=%s", user->home);
	snprintf(shell, sizeof shell, "SHELL=%s", user->shell);
	snprintf(name, sizeof name, "USER=%s", user->name[0] ? user->name : number);
	snprintf(logname, sizeof logname, "LOGNAME=%s", user->name[0] ? user->name : number);
	if (!find_env(request, "HOME"))
		request->env[request->env_count++] = home;
	if (!find_env(request, "SHELL"))
		request->env[request->env_count++] = shell;
	if (!find_env(request, "USER"))
		request->env[request->env_count++] = name;
	if (!find_env(request, "LOGNAME"))
		request->env[request->env_count++] = logname;
	request->env[request->env_count] = NULL;
}

static _Noreturn void give_up(int told, enum stage stage, int code, const char *text)
{
	struct exec_failure failure = {.code = code, .stage = stage};

	snprintf(failure.text, sizeof failure.text, "%s", text);
	while (write(told, &failure, sizeof failure) < 0 && errno == EINTR)
		;
	_exit(127);
}

/* execvpe, without its fallback to a shell: a file that is no program is an error here, as it is to the kernel. */
static int run(const struct exec_request *request)
{
	char *const *args = (char *const *)request->args, *const *env = (char *const *)request->env;
	const char *name = request->args[0], *path = find_env(request, "PATH");
	char full[4096];
	int code = ENOENT;

	if (!name[0])
		return ENOENT;
	if (strchr(name, '/')) {
		execve(name, args, env);
		return errno;
	}
	if (!path)
		path = "/usr/local/bin:/usr/bin:/bin";
	while (*path) {
		size_t length = strcspn(path, ":");

		if (snprintf(full, sizeof full, "%.*s/%s", length ? (int)length : 1, length ? path : ".", name) <
		    (int)sizeof full) {
			execve(full, args, env);
			if (errno != ENOENT && errno != ENOTDIR && (errno != EACCES || code == ENOENT))
				code = errno;
			if (code != ENOENT && code != EACCES)
				return code;
		}
		path += length + (path[length] == ':');
	}
	return code;
}

/* The child's side. Raw system calls for ids: the library's are for processes with threads. */
static _Noreturn void become(const struct exec_request *request, const struct user *user, const int *theirs, int told)
{
	const char *cwd = request->cwd ? request->cwd : user->home, *name = request->args[0];
	sigset_t none;
	int code;

	setsid();
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0 && dup2(theirs[i], i) < 0)
			give_up(told, STAGE_LIMITS, errno, name);
	if (request->rows && (code = terminals_enter()))
		give_up(told, STAGE_LIMITS, code, name);
	if (theirs[0] < 0 && fcntl(0, F_SETFD, 0) < 0) /* the init's own stream 0 is /dev/null */
		give_up(told, STAGE_LIMITS, errno, name);
	if (told != FAILURE_FD && dup3(told, FAILURE_FD, O_CLOEXEC) < 0)
		give_up(told, STAGE_LIMITS, errno, name);
	/* Closing on exec is too late: the working directory and the command are looked up before, and as
	 * "/proc/self/fd/N/../.." they would begin at a descriptor of the init, such as its cgroup on the host's side. The
	 * pipe is no directory, and holds nothing that could be run. */
	told = FAILURE_FD;
	if (sys_close_range(FAILURE_FD + 1, ~0U, 0) < 0)
		give_up(told, STAGE_LIMITS, errno, name);
	if (syscall(SYS_setgroups, user->group_count, user->groups) < 0 && errno != EPERM)
		give_up(told, STAGE_USER, errno, name);
	if (syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0 ||
	    syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
		give_up(told, STAGE_USER, errno, name);
	umask(022);
	if (chdir(cwd) < 0 && (request->cwd || chdir("/") < 0))
		give_up(told, STAGE_CWD, errno, cwd);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	give_up(told, STAGE_EXEC, run(request), name);
}

static int make_streams(bool stdin_pipe, int *ours, int *theirs, struct err *e)
{
	for (int i = 0; i < 3; i++)
		ours[i] = theirs[i] = -1;
	for (int i = stdin_pipe ? 0 : 1; i < 3; i++) {
		int pair[2];

		if (pipe2(pair, O_CLOEXEC) < 0)
			return err_set(e, errno, "limits", "cannot make a pipe");
		ours[i] = pair[i ? 0 : 1];
		theirs[i] = pair[i ? 1 : 0];
		if (fcntl(ours[i], F_SETFL, O_NONBLOCK) < 0)
			return err_set(e, errno, "limits", "cannot make a pipe non-blocking");
	}
	return 0;
}

/* As make_streams, but the command gets one descriptor for all three. */
static int make_terminal(struct execs *execs, const struct exec_request *request, const struct user *user,
			 struct exec *exec, int *theirs, struct err *e)
{
	theirs[0] = theirs[1] = theirs[2] = -1;
	if (execs->terminals == TERMINALS_MAX)
		return err_set(e, EAGAIN, "limits", "%d terminals are open already", TERMINALS_MAX);
	return terminals_open(request->rows, request->columns, user->uid, &exec->terminal, exec->streams, &theirs[0], e);
}

static void close_all(int *fds)
{
	for (int i = 0; i < 3; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int add(struct execs *execs, struct exec **exec, struct err *e)
{
	if (execs->count >= EXECS_MAX)
		return err_set(e, EAGAIN, "limits", "%d commands are remembered already", EXECS_MAX);
	if (execs->count == execs->capacity) {
		size_t capacity = execs->capacity ? 2 * execs->capacity : 8;
		struct exec *list = realloc(execs->list, capacity * sizeof *list);

		if (!list)
			return err_set(e, ENOMEM, "limits", "no memory for another command");
		execs->list = list;
		execs->capacity = capacity;
	}
	*exec = &execs->list[execs->count];
	**exec = (struct exec){.streams = {-1, -1, -1}, .beginning = -1};
	return 0;
}

/* Each exec has a cgroup of its own below the sandbox's, so that all that descends from it can be found and killed. */
static int make_cgroup(const struct execs *execs, uint64_t number, struct err *e)
{
	char name[40];
	int fd;

	cgroup_name(number, "", name, sizeof name);
	if (mkdirat(execs->cgroup, name, 0755) < 0 && errno != EEXIST)
		return err_set(e, errno, "limits", "cannot make a cgroup for the command");
	fd = openat(execs->cgroup, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_set(e, errno, "limits", "cannot open the cgroup of the command") : fd;
}

static bool drop_cgroup(const struct execs *execs, const struct exec *exec)
{
	char name[40];

	cgroup_name(exec->number, "", name, sizeof name);
	return !unlinkat(execs->cgroup, name, AT_REMOVEDIR) || errno == ENOENT;
}

/* A command inherits a score a little above ours: when the sandbox is short of memory the kernel must take a command, for
 * with the init everything goes. */
static void set_score(const struct execs *execs, const char *score)
{
	if (execs->score >= 0 && pwrite(execs->score, score, strlen(score), 0) < 0)
		return; /* nothing depends on it but who is taken first */
}

static bool signal_tree(struct execs *execs, const struct exec *exec, int signal);

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void execs_score(const struct execs *execs, bool command)
{
	set_score(execs, command ? COMMAND_SCORE : INIT_SCORE);
}

static int launch(struct execs *execs, struct exec_request *request, const struct user *user, struct exec *exec,
		  const int *theirs, struct err *e)
{
	struct kernel_clone_args args = {.exit_signal = SIGCHLD};
	int told[2], cgroup = -1, code = 0;
	pid_t pid;

	if (execs->cgroup >= 0) {
		cgroup = make_cgroup(execs, request->number, e);
		if (cgroup < 0)
			return cgroup;
		exec->has_cgroup = true;
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	if (pipe2(told, O_CLOEXEC | O_NONBLOCK) < 0) {
		code = err_set(e, errno, "limits", "cannot make a pipe");
	} else {
		set_score(execs, COMMAND_SCORE);
		pid = sys_clone3(&args);
		if (!pid)
			become(request, user, theirs, told[1]);
		if (pid < 0)
			code = err_set(e, errno, "limits", "cannot start another process");
		set_score(execs, INIT_SCORE);
		close(told[1]);
		if (code)
			close(told[0]);
		exec->pid = pid;
		exec->beginning = told[0];
		exec->patience = now_ms() + BEGIN_MS;
	}
	if (cgroup >= 0)
		close(cgroup);
	return code;
}

int execs_start(struct execs *execs, const struct exec_request *wanted, uint32_t id, struct exec **result, struct err *e)
{
	static struct exec_request request;
	struct exec *exec = NULL;
	struct user user;
	int theirs[3], code = users_find(wanted->user, &user, e);

	if (code) {
		e->stage = "user";
		return code;
	}
	if (execs_find(execs, wanted->number))
		return err_set(e, EEXIST, "request", "exec %llu exists", (unsigned long long)wanted->number);
	code = add(execs, &exec, e);
	if (code)
		return code;
	request = *wanted;
	complete_env(&request, &user);
	exec->number = request.number;
	exec->request = id;
	code = request.rows ? make_terminal(execs, &request, &user, exec, theirs, e)
			    : make_streams(request.stdin_pipe, exec->streams, theirs, e);
	if (!code && request.label_length) {
		exec->label = malloc(request.label_length);
		exec->label_length = request.label_length;
		if (exec->label)
			memcpy(exec->label, request.label, request.label_length);
		else
			code = err_set(e, ENOMEM, "limits", "no memory for a label");
	}
	if (!code)
		code = launch(execs, &request, &user, exec, theirs, e);
	close_all(theirs);
	if (code) {
		close_all(exec->streams);
		if (exec->terminal)
			terminals_close(exec->terminal);
		free(exec->label);
		if (exec->has_cgroup)
			drop_cgroup(execs, exec);
		return code;
	}
	execs->count++;
	execs->terminals += exec->terminal != NULL;
	execs->beginning++;
	*result = exec;
	return 0;
}

/* Says whether it is decided, and what: *code is 0, or why the exec could not be started. */
static bool is_decided(struct exec *exec, uint64_t now, int *code, struct err *e)
{
	struct exec_failure failure;
	ssize_t length = read(exec->beginning, &failure, sizeof failure);

	*code = 0;
	if (length == (ssize_t)sizeof failure && failure.stage <= STAGE_EXEC) {
		failure.text[sizeof failure.text - 1] = 0;
		*code = err_set(e, failure.code, stages[failure.stage], "%s", failure.text);
	} else if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
		if (now < exec->patience)
			return false;
		kill(exec->pid, SIGKILL);
		*code = err_set(e, ETIMEDOUT, "limits", "exec %llu does not begin", (unsigned long long)exec->number);
	}
	return true;
}

/* Whoever has listed it waits for its end, which comes; of any other nothing is told but that it could not be started. */
static void fail(struct execs *execs, struct exec *exec)
{
	if (exec->terminal) {
		terminals_close(exec->terminal);
		exec->terminal = NULL;
		execs->terminals--;
	}
	if (exec->listed)
		return;
	close_all(exec->streams);
	execs_release(exec);
}

void execs_abandon(struct execs *execs, struct exec *exec)
{
	signal_tree(execs, exec, SIGKILL);
	fail(execs, exec);
}

struct exec *execs_begun(struct execs *execs, int *code, struct err *e)
{
	uint64_t now = execs->beginning ? now_ms() : 0;

	for (size_t i = 0; i < execs->count && execs->beginning; i++) {
		struct exec *exec = &execs->list[i];

		if (exec->beginning < 0 || !is_decided(exec, now, code, e))
			continue;
		close(exec->beginning);
		exec->beginning = -1;
		execs->beginning--;
		if (*code)
			fail(execs, exec);
		return exec;
	}
	return NULL;
}

int execs_patience(const struct execs *execs)
{
	uint64_t now = execs->beginning ? now_ms() : 0, least = BEGIN_MS;

	for (size_t i = 0; i < execs->count && execs->beginning; i++) {
		const struct exec *exec = &execs->list[i];

		if (exec->beginning >= 0 && (exec->patience <= now || exec->patience - now < least))
			least = exec->patience <= now ? 0 : exec->patience - now;
	}
	return execs->beginning ? (int)least : -1;
}

static void end_terminal(struct execs *execs, struct exec *exec)
{
	if (!exec->terminal || !terminals_done(exec->terminal))
		return;
	terminals_close(exec->terminal);
	exec->terminal = NULL;
	execs->terminals--;
}

struct exec *execs_find(struct execs *execs, uint64_t number)
{
	for (size_t i = 0; i < execs->count; i++)
		if (execs->list[i].number == number)
			return &execs->list[i];
	return NULL;
}

bool execs_reaped(struct execs *execs, pid_t pid, int status)
{
	for (size_t i = 0; i < execs->count; i++) {
		struct exec *exec = &execs->list[i];

		if (exec->pid != pid || exec->exited)
			continue;
		exec->exited = true;
		exec->status = status;
		exec->unsent = !exec->released;
		if (exec->terminal) {
			terminals_end(exec->terminal);
			end_terminal(execs, exec);
		}
		return true;
	}
	return false;
}

static bool write_cgroup(const struct execs *execs, uint64_t number, const char *file, const char *text)
{
	char name[64];
	bool done;
	int fd;

	cgroup_name(number, file, name, sizeof name);
	fd = openat(execs->cgroup, name, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) > 0;
	close(fd);
	return done;
}

/* Signals each process that the exec's cgroup lists; returns how many. */
static int signal_cgroup(const struct execs *execs, uint64_t number, int signal)
{
	char name[64], line[32];
	int fd, count = 0;
	FILE *file;

	cgroup_name(number, "cgroup.procs", name, sizeof name);
	fd = openat(execs->cgroup, name, O_RDONLY | O_CLOEXEC);
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (!file) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (fgets(line, sizeof line, file)) {
		pid_t pid = (pid_t)strtol(line, NULL, 10);

		if (pid > 1 && !kill(pid, signal))
			count++;
	}
	fclose(file);
	return count;
}

/* Parent and session of a process; false if it is gone. The name in stat may hold anything, ")" too. */
static bool read_stat(pid_t pid, pid_t *parent, pid_t *session)
{
	char path[32], text[512], *end;
	int fd, fields[3];
	ssize_t length;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = 0;
	end = strrchr(text, ')');
	if (!end || sscanf(end + 1, " %*c %d %d %d", &fields[0], &fields[1], &fields[2]) != 3)
		return false;
	*parent = fields[0];
	*session = fields[2];
	return true;
}

static bool descends(pid_t pid, pid_t from)
{
	pid_t parent, session;

	for (int steps = 0; steps < 512 && pid > 1 && read_stat(pid, &parent, &session); steps++) {
		if (pid == from || session == from || parent == from)
			return true;
		pid = parent;
	}
	return false;
}

/* Without cgroups (rootless hosts without delegation) a tree is what /proc shows of it: its session and descendants. A
 * process that has left the session and whose parents are gone is missed; `traforo doctor` says so. */
static int signal_descendants(pid_t from, int signal)
{
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	int count = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 1 && descends(pid, from) && !kill(pid, signal))
			count++;
	}
	closedir(dir);
	return count;
}

static bool signal_tree(struct execs *execs, const struct exec *exec, int signal)
{
	int count = 0;

	if (exec->has_cgroup) {
		if (signal == SIGKILL && write_cgroup(execs, exec->number, "cgroup.kill", "1"))
			return true;
		return signal_cgroup(execs, exec->number, signal) > 0;
	}
	for (int round = 0; round < (signal == SIGKILL ? TREE_ROUNDS : 1); round++) {
		int found = signal_descendants(exec->pid, signal);

		count += found;
		if (!found)
			break;
	}
	return count > 0;
}

int execs_signal(struct execs *execs, struct exec *exec, int signal, bool tree, struct err *e)
{
	if (tree) {
		if (!signal_tree(execs, exec, signal) && exec->exited)
			return err_set(e, ESRCH, "signal", "nothing of exec %llu is left", (unsigned long long)exec->number);
		return 0;
	}
	if (exec->exited)
		return err_set(e, ESRCH, "signal", "exec %llu has ended", (unsigned long long)exec->number);
	if (kill(exec->pid, signal) < 0)
		return err_set(e, errno, "signal", "cannot signal exec %llu", (unsigned long long)exec->number);
	return 0;
}

bool execs_is_over(const struct exec *exec)
{
	return exec->exited && exec->beginning < 0 && (!exec->terminal || terminals_drained(exec->terminal));
}

int execs_resize(const struct exec *exec, uint64_t rows, uint64_t columns, struct err *e)
{
	if (exec->exited)
		return err_set(e, ESRCH, "resize", "exec %llu has ended", (unsigned long long)exec->number);
	if (!exec->terminal)
		return err_set(e, ENOTTY, "resize", "exec %llu runs on no terminal", (unsigned long long)exec->number);
	return terminals_resize(exec->terminal, rows, columns, e);
}

void execs_close_stdin(struct exec *exec)
{
	if (exec->streams[0] >= 0)
		close(exec->streams[0]);
	exec->streams[0] = -1;
}

void execs_release(struct exec *exec)
{
	exec->released = true;
	exec->unsent = false;
	execs_close_stdin(exec);
	free(exec->label);
	exec->label = NULL;
	exec->label_length = 0;
}

size_t execs_poll(const struct execs *execs, struct pollfd *polls)
{
	size_t count = 0;

	for (size_t i = 0; i < execs->count && count < TERMINAL_POLLS * execs->terminals; i++)
		if (execs->list[i].terminal) {
			terminals_poll(execs->list[i].terminal, polls + count);
			count += TERMINAL_POLLS;
		}
	for (size_t i = 0; i < execs->count; i++) {
		const struct exec *exec = &execs->list[i];

		if (exec->beginning >= 0)
			polls[count++] = (struct pollfd){.fd = exec->beginning, .events = POLLIN};
		for (int stream = 1; stream < 3 && exec->released; stream++)
			if (exec->streams[stream] >= 0)
				polls[count++] = (struct pollfd){.fd = exec->streams[stream], .events = POLLIN};
	}
	return count;
}

void execs_relay(struct execs *execs, const struct pollfd *polls)
{
	size_t left = execs->terminals;

	for (size_t i = 0; i < execs->count && left; i++) {
		struct exec *exec = &execs->list[i];
		short found = 0;

		if (!exec->terminal)
			continue;
		left--;
		for (int n = 0; n < TERMINAL_POLLS; n++)
			found |= (polls++)->revents;
		if (found) {
			terminals_move(exec->terminal);
			end_terminal(execs, exec);
		}
	}
}

/* Bounded, so that one loud process cannot keep the init from its other work. */
static void discard(int *fd)
{
	static char waste[4096];

	for (int round = 0; round < 64; round++) {
		ssize_t length = read(*fd, waste, sizeof waste);

		if (length > 0)
			continue;
		if (!length || (errno != EAGAIN && errno != EINTR)) {
			close(*fd);
			*fd = -1;
		}
		return;
	}
}

void execs_tidy(struct execs *execs)
{
	for (size_t i = 0; i < execs->count;) {
		struct exec *exec = &execs->list[i];

		for (int stream = 1; stream < 3 && exec->released; stream++)
			if (exec->streams[stream] >= 0)
				discard(&exec->streams[stream]);
		if (exec->exited && exec->released && exec->has_cgroup && drop_cgroup(execs, exec))
			exec->has_cgroup = false;
		if (exec->exited && exec->released && !exec->has_cgroup && exec->streams[1] < 0 && exec->streams[2] < 0)
			*exec = execs->list[--execs->count];
		else
			i++;
	}
}

size_t execs_streams(const struct exec *exec, int *fds, uint64_t *which)
{
	size_t count = 0;

	*which = 0;
	for (int stream = 0; stream < 3; stream++)
		*which |= exec->streams[stream] >= 0 ? 1u << stream : 0;
	for (int stream = 1; stream < 3; stream++)
		if (exec->streams[stream] >= 0)
			fds[count++] = exec->streams[stream];
	if (exec->streams[0] >= 0)
		fds[count++] = exec->streams[0];
	return count;
}
