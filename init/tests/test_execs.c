#define _GNU_SOURCE
#include "execs.h"

#include <signal.h>
#include <sys/syscall.h>

#include "people.h"
#include "places.h"

static struct execs execs;
static struct err e;
static char output[8192];

/* Waits until it is decided whether the one command that was started could be. */
static int begin(void)
{
	struct pollfd polls[4];
	struct exec *exec;
	int code;

	while (!(exec = execs_begun(&execs, &code, &e)))
		poll(polls, execs_poll(&execs, polls), execs_patience(&execs));
	return code;
}

/* Reaps what could not be started. */
static void reap(struct exec *exec)
{
	int status;

	need(waitpid(exec->pid, &status, 0) == exec->pid, "waitpid");
	need(execs_reaped(&execs, exec->pid, status), "execs_reaped");
	execs_tidy(&execs);
	need(!execs.count && !execs.beginning, "an exec is left");
}

/* Starts a command as its init would, waits for its end and keeps what it printed. Returns 0 or the errno. */
static int run_in(const char *cwd, const char *user, const char *const *args, const char *const *env)
{
	static struct exec_request request;
	static uint64_t number;
	struct exec *exec;
	size_t length = 0;
	ssize_t got;
	int code, status;

	request = (struct exec_request){.number = ++number, .cwd = cwd, .user = user};
	while (args[request.arg_count]) {
		request.args[request.arg_count] = args[request.arg_count];
		request.arg_count++;
	}
	while (env && env[request.env_count]) {
		request.env[request.env_count] = env[request.env_count];
		request.env_count++;
	}
	output[0] = 0;
	code = execs_start(&execs, &request, 1, &exec, &e);
	if (code)
		return code;
	code = begin();
	if (code) {
		reap(exec);
		return code;
	}
	fcntl(exec->streams[1], F_SETFL, 0);
	while (length < sizeof output - 1 &&
	       (got = read(exec->streams[1], output + length, sizeof output - 1 - length)) > 0)
		length += (size_t)got;
	output[length] = 0;
	need(waitpid(exec->pid, &status, 0) == exec->pid, "waitpid");
	need(execs_reaped(&execs, exec->pid, status), "execs_reaped");
	execs_release(exec);
	execs_tidy(&execs);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int shell(const char *script)
{
	return run_in(NULL, "0", (const char *const[]){"/bin/sh", "-c", script, NULL}, NULL);
}

static int command(const char *name)
{
	return run_in("/", "0", (const char *const[]){name, NULL}, NULL);
}

static void test_run(void)
{
	is(shell("echo out; exit 7"), 7, "a command runs and ends with its status");
	is_string(output, "out\n", "what it prints can be read");
	is(shell("kill -9 $$"), 1009, "one that is killed tells so");
	is(command("true"), 0, "a name is looked up in the usual places");
	is(run_in("/", "0", (const char *const[]){"true", NULL}, (const char *const[]){"PATH=/nowhere", NULL}), -ENOENT,
	   "or where PATH says");
	is(command("no-such-command-here"), -ENOENT, "a missing one is told");
	is_string(e.stage, "exec", "as such");
	is(command("/"), -EACCES, "a directory is no command");
	file_make(at("text"), "text", 0755);
	is(command(at("text")), -ENOEXEC, "nor is a text");
	need(!mkfifo(at("fifo"), 0777), "mkfifo");
	is(command(at("fifo")), -EACCES, "nor a FIFO, and nobody waits");
	is(command(""), -ENOENT, "nor nothing");
	is(run_in("/none", "0", (const char *const[]){"true", NULL}, NULL), -ENOENT, "a missing directory is told");
	is_string(e.stage, "cwd", "as such");
	is(run_in("/", "no-such-user", (const char *const[]){"true", NULL}, NULL), -ENOENT, "so is a missing user");
	is_string(e.stage, "user", "as such");
	is(run_in("/tmp", "0", (const char *const[]){"pwd", NULL}, NULL), 0, "a command starts where it should");
	is_string(output, "/tmp\n", "there");
	is(run_in("/", "4711", (const char *const[]){"/usr/bin/env", NULL},
		  (const char *const[]){"A=b", "HOME=/h", NULL}),
	   0, "with the environment it was given");
	ok(strstr(output, "A=b\n") && strstr(output, "HOME=/h\n") && strstr(output, "USER=4711\n"),
	   "and what was missing");
}

/* The init holds descriptors of the host's side. They close on exec; the working directory and the command itself are
 * looked up before that. */
static void test_no_way_out(void)
{
	char path[64];
	int dir = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), inside;

	file_make(at("program"), "#!/bin/sh\n", 0755);
	inside = fcntl(dir, F_DUPFD_CLOEXEC, 40);
	need(dir >= 0 && inside >= 0, "open");
	snprintf(path, sizeof path, "/proc/self/fd/%d", inside);
	is(run_in(path, "0", (const char *const[]){"pwd", NULL}, NULL), -ENOENT,
	   "no command starts in a descriptor of the init");
	snprintf(path, sizeof path, "/proc/self/fd/%d/program", inside);
	is(command(path), -ENOENT, "nor is one found behind it");
	snprintf(path, sizeof path, "PATH=/proc/self/fd/%d", inside);
	is(run_in("/", "0", (const char *const[]){"program", NULL}, (const char *const[]){path, NULL}), -ENOENT,
	   "in whatever way");
	is(shell("echo /proc/self/fd/*"), 0, "a command sees");
	ok(strstr(output, "/proc/self/fd/2") && !strstr(output, "/proc/self/fd/40"), "its own descriptors only");
	close(dir);
	close(inside);
}

static struct exec *start(const char *name)
{
	static struct exec_request request;
	static uint64_t number = 1000;
	struct exec *exec;

	request = (struct exec_request){.number = ++number, .cwd = "/", .user = "0", .args = {name}, .arg_count = 1};
	need(!execs_start(&execs, &request, 1, &exec, &e), "execs_start");
	return exec;
}

static void finish(struct exec *exec)
{
	int status;

	need(waitpid(exec->pid, &status, 0) == exec->pid && execs_reaped(&execs, exec->pid, status), "waitpid");
	execs_release(exec);
	execs_tidy(&execs);
}

/* A child that is its user already and not yet its command can be stopped by that user, or made to wait: for the kernel,
 * which asks whoever has a lease on a file to give it back before anybody else opens it. */
static void test_waiting(void)
{
	struct exec *slow, *found;
	int fd, code;

	file_make(at("leased"), "#!/bin/sh\n", 0755);
	fd = open(at("leased"), O_RDONLY | O_CLOEXEC);
	need(fd >= 0, "open");
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0) {
		skip("a command that does not begin", "this file system has no leases");
		close(fd);
		return;
	}
	slow = start(at("leased"));
	is(execs.beginning, 1, "a command that waits for its program is not waited for");
	ok(!execs_is_over(slow) && execs_patience(&execs) > 0, "nor has it ended");
	found = start("/bin/true");
	while (!(found = execs_begun(&execs, &code, &e)))
		poll(NULL, 0, 1);
	ok(found == &execs.list[1] && !code, "others begin meanwhile");
	finish(found);
	slow = &execs.list[0];
	need(!fcntl(fd, F_SETLEASE, F_UNLCK), "F_UNLCK");
	is(begin(), 0, "it begins when it may");
	finish(slow);
	need(!execs.count && !fcntl(fd, F_SETLEASE, F_WRLCK), "F_SETLEASE");
	slow = start(at("leased"));
	need(execs.beginning == 1 && !kill(slow->pid, SIGSTOP), "kill");
	ok(!execs_begun(&execs, &code, &e), "there is a time to wait");
	slow->patience = 0;
	is(execs_patience(&execs), 0, "which ends");
	ok(execs_begun(&execs, &code, &e) == slow && code == -ETIMEDOUT, "then it is given up");
	is_string(e.stage, "limits", "in words");
	reap(slow);
	close(fd);
}

static void test_signals(void)
{
	is(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"), 0, "a command sees its signals");
	is_string(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "none is blocked or ignored");
}

int main(void)
{
	static const unsigned long standard[4];
	sigset_t all;

	/* As in the init: nothing is ignored, everything is blocked. */
	for (int number = 1; number <= 64; number++)
		syscall(SYS_rt_sigaction, number, standard, NULL, 8);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	people_make();
	place_make();
	execs_init(&execs, -1, -1);
	if (guest_exists()) {
		test_run();
		test_no_way_out();
		test_waiting();
		test_signals();
	} else {
		skip("commands run", "needs root and other users");
	}
	place_remove();
	return tap_end();
}
