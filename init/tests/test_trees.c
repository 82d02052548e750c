#define _GNU_SOURCE
#include "files.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "people.h"
#include "places.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

#define SEEN_MAX 70000

/* Two calls of the C library, as the code under test gets them here: on the way back from those that tell a directory,
 * an enemy swaps it with a link to somewhere else. */

static bool swap;

static void swap_now(const char *name)
{
	if (swap && !strcmp(name, "d"))
		syscall(SYS_renameat2, AT_FDCWD, at("victim/d"), AT_FDCWD, at("trap"), RENAME_EXCHANGE);
}

int unlinkat(int dir, const char *name, int flags)
{
	int code = (int)syscall(SYS_unlinkat, dir, name, flags), saved = errno;

	if (code < 0 && saved == EISDIR)
		swap_now(name);
	errno = saved;
	return code;
}

int fstatat(int dir, const char *name, struct stat *facts, int flags)
{
	int code = (int)syscall(SYS_newfstatat, dir, name, facts, flags);

	if (!code && S_ISDIR(facts->st_mode))
		swap_now(name);
	return code;
}

static struct err e;

/* What a walk told. */
struct seen {
	size_t count;
	bool whole;   /* every record was well formed and the last one came last */
	int error;
	bool more;
	size_t longest; /* path */
	int status;   /* of the child */
	char *paths[SEEN_MAX];
	struct file_record records[SEEN_MAX];
	char *targets[SEEN_MAX];
};

static struct seen seen;

static void forget(void)
{
	for (size_t i = 0; i < seen.count; i++) {
		free(seen.paths[i]);
		free(seen.targets[i]);
	}
	memset(&seen, 0, offsetof(struct seen, paths));
}

static bool read_exactly(int fd, void *data, size_t length)
{
	uint8_t *to = data;

	while (length) {
		ssize_t got = read(fd, to, length);

		if (got <= 0)
			return false;
		to += got;
		length -= (size_t)got;
	}
	return true;
}

static char *read_text(int fd, size_t length)
{
	char *text = calloc(1, length + 1);

	need(text, "calloc");
	if (read_exactly(fd, text, length))
		return text;
	free(text);
	return NULL;
}

/* Reads records up to the last one. */
static void read_records(int fd)
{
	while (seen.count < SEEN_MAX) {
		struct file_record *record = &seen.records[seen.count];
		char byte;

		if (!read_exactly(fd, record, sizeof *record) ||
		    record->length != sizeof *record + record->path_length + record->target_length)
			return;
		if (!record->mode) {
			seen.error = (int)record->size;
			seen.more = record->modified_ns;
			seen.whole = !record->path_length && !record->target_length && read(fd, &byte, 1) == 0;
			return;
		}
		if (!record->path_length || record->target_length >= PATH_MAX)
			return;
		seen.paths[seen.count] = read_text(fd, record->path_length);
		seen.targets[seen.count] = seen.paths[seen.count] ? read_text(fd, record->target_length) : NULL;
		if (!seen.targets[seen.count])
			return;
		if (record->path_length > seen.longest)
			seen.longest = record->path_length;
		seen.count++;
	}
}

static int walk_with(const struct user *user, const char *path, bool recursive, uint64_t limit, int pipe_flags)
{
	int pair[2], status = 0;
	pid_t pid;

	forget();
	need(!pipe2(pair, O_CLOEXEC | pipe_flags), "pipe2");
	fcntl(pair[0], F_SETFL, 0);
	pid = files_walk(user, path, recursive, limit, pair[1], &e);
	close(pair[1]);
	if (pid > 0) {
		read_records(pair[0]);
		need(waitpid(pid, &status, 0) == pid, "waitpid");
		seen.status = status;
	}
	close(pair[0]);
	return pid < 0 ? (int)pid : 0;
}

static int walk(const struct user *user, const char *path, bool recursive, uint64_t limit)
{
	return walk_with(user, path, recursive, limit, 0);
}

static const struct file_record *find(const char *path)
{
	for (size_t i = 0; i < seen.count; i++)
		if (!strcmp(seen.paths[i], path))
			return &seen.records[i];
	return NULL;
}

static void test_walk(void)
{
	const struct file_record *record;

	directory_make(at("w"), 0755);
	directory_make(at("w/sub"), 0750);
	directory_make(at("w/sub/deep"), 0755);
	file_make(at("w/file"), "12345", 0604);
	file_make(at("w/sub/n\nl \xff\xfe"), "x", 0644);
	file_make(at("outside"), "x", 0644);
	need(!symlink("sub", at("w/link")) && !symlink("nowhere", at("w/dangling")) && !symlink("w", at("to-w")),
	     "symlink");
	need(!mkfifo(at("w/fifo"), 0600), "mkfifo");

	is(walk(&me, at("w"), false, 100), 0, "a directory is walked");
	ok(seen.whole && !seen.error && !seen.more && !seen.status, "to its end");
	is(seen.count, 5, "one level of it");
	record = find("file");
	ok(record && record->mode == (S_IFREG | 0604) && record->size == 5 && record->uid == me.uid,
	   "a file has its facts");
	ok(record && record->modified_ns > 0, "and its time");
	record = find("link");
	ok(record && S_ISLNK(record->mode) && !strcmp(seen.targets[record - seen.records], "sub"),
	   "a link has its target");
	ok(find("fifo") && find("dangling") && find("sub"), "the rest is there too");

	is(walk(&me, at("w"), true, 100), 0, "a tree is walked");
	ok(seen.whole && !seen.error && !seen.more && seen.count == 7, "to its end");
	ok(find("sub/deep") && find("sub/n\nl \xff\xfe"), "with paths from where it began, of any bytes");
	ok(!find("link/deep"), "and links are not followed");
	is(walk(&me, at("to-w"), false, 100), 0, "a link may be where it begins");
	is(seen.count, 5, "and is followed");
	is(walk(&me, at("w/sub/deep"), true, 100), 0, "an empty directory is walked");
	ok(seen.whole && !seen.count && !seen.more, "and has nothing");
	is(walk(&me, at("none"), true, 100), -ENOENT, "a missing one is not");
	is(walk(&me, at("w/file"), true, 100), -ENOTDIR, "nor is a file");
	is(walk(&me, at("w/fifo"), true, 100), -ENOTDIR, "nor a FIFO");
	is(walk(&me, "w", true, 100), -EINVAL, "nor a relative path");
	is(walk(&me, "/proc/self/cwd", true, 100), -ELOOP, "nor a magic link");
}

static void test_limit(void)
{
	is(walk(&me, at("w"), true, 7), 0, "a limit may be just enough");
	ok(seen.whole && seen.count == 7 && !seen.more, "for everything");
	is(walk(&me, at("w"), true, 6), 0, "or one too few");
	ok(seen.whole && seen.count == 6 && seen.more && !seen.error, "then more is there");
	is(walk(&me, at("w"), true, 0), 0, "or nothing");
	ok(seen.whole && !seen.count && seen.more, "then all of it is more");
	is(walk(&me, at("w"), true, UINT64_MAX), 0, "or everything there could be");
	ok(seen.whole && seen.count == 7 && !seen.more, "which ends where the tree ends");
}

/* Makes a chain of `levels` directories below a new one. */
static void make_chain(const char *path, int levels)
{
	int dir, next;

	directory_make(path, 0755);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < levels; i++) {
		need(!mkdirat(dir, "d", 0755), "mkdirat");
		next = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		need(next >= 0, "openat");
		close(dir);
		dir = next;
	}
	close(dir);
}

static pid_t last_removal;

static int remove_tree(const struct user *user, const char *path)
{
	int status;

	last_removal = files_remove_tree(user, path, &e);
	if (last_removal < 0)
		return (int)last_removal;
	need(waitpid(last_removal, &status, 0) == last_removal, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void test_deep(void)
{
	make_chain(at("deep"), 300);
	is(walk(&me, at("deep"), true, 1000), 0, "a deep tree is walked");
	ok(seen.whole && seen.count == 256 && seen.longest == 2 * 256 - 1, "256 levels of it");
	is(seen.error, ELOOP, "and the end says that this was not all");
	is(remove_tree(&me, at("deep")), ELOOP, "nor is it removed");
	ok(is_there(at("deep/d/d/d")), "in part");
	make_chain(at("deep2"), 255);
	is(walk(&me, at("deep2"), true, 1000), 0, "one of 255 levels is walked");
	ok(seen.whole && seen.count == 255 && !seen.error, "as a whole");
	is(remove_tree(&me, at("deep2")), 0, "and removed");
	ok(!is_there(at("deep2")), "for good");
}

static void test_long_names(void)
{
	int dir, next;

	directory_make(at("long"), 0755);
	dir = open(at("long"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 40; i++) {
		char name[NAME_MAX + 1];

		memset(name, 'a' + i % 26, NAME_MAX);
		name[NAME_MAX] = 0;
		need(!mkdirat(dir, name, 0755), "mkdirat");
		next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		need(next >= 0, "openat");
		close(dir);
		dir = next;
	}
	close(dir);
	is(walk(&me, at("long"), true, 1000), 0, "paths longer than any path are walked");
	ok(seen.whole && seen.count == 40 && seen.longest == 40 * 256 - 1, "and told");
	is(remove_tree(&me, at("long")), 0, "and removed");
}

static void make_files(const char *path, int count)
{
	directory_make(path, 0777);
	for (int i = 0; i < count; i++) {
		char name[PATH_MAX + 32];

		snprintf(name, sizeof name, "%s/a-file-with-a-name-of-some-length-%d", path, i);
		need(!mknod(name, S_IFREG | 0644, 0), name);
	}
}

static void test_many(void)
{
	make_files(at("many"), 5000);
	is(walk(&me, at("many"), true, 10000), 0, "a large directory is walked");
	ok(seen.whole && seen.count == 5000, "all of it");
	is(walk_with(&me, at("many"), true, 10000, O_NONBLOCK), 0, "also into a pipe that does not wait");
	ok(seen.whole && seen.count == 5000, "all of it");
	is(remove_tree(&me, at("many")), 0, "and removed");
	ok(!is_there(at("many")), "for good");
}

static void test_lost_reader(void)
{
	int pair[2], status = 0;
	pid_t pid;

	make_files(at("unread"), 3000);
	need(!pipe2(pair, O_CLOEXEC), "pipe2");
	pid = files_walk(&me, at("unread"), false, 10000, pair[1], &e);
	close(pair[0]);
	close(pair[1]);
	need(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid");
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE, "a walk that nobody reads ends");
}

/* The child has none of the caller's descriptors: a pipe held by a walk that waits for its reader sees its end at once.
 */
static void test_no_descriptors(void)
{
	int pair[2], held[2], status = 0;
	struct pollfd end;
	char byte;
	pid_t pid;

	need(!pipe2(pair, O_CLOEXEC) && !pipe2(held, O_CLOEXEC), "pipe2");
	pid = files_walk(&me, at("unread"), false, 10000, pair[1], &e);
	need(pid > 0, "files_walk");
	/* The first byte comes from a child that has closed all else. */
	need(read(pair[0], &byte, 1) == 1, "read");
	close(held[1]);
	end = (struct pollfd){.fd = held[0], .events = POLLIN};
	ok(poll(&end, 1, 0) == 1 && read(held[0], &byte, 1) == 0, "a walk holds no descriptor but its own");
	close(pair[0]);
	close(pair[1]);
	close(held[0]);
	need(waitpid(pid, &status, 0) == pid, "waitpid");
}

static void test_remove_tree(void)
{
	directory_make(at("x"), 0755);
	directory_make(at("x/a"), 0755);
	directory_make(at("x/a/b"), 0000);
	directory_make(at("x/kept"), 0755);
	file_make(at("x/kept/f"), "x", 0644);
	file_make(at("x/a/f\n\xff"), "x", 0000);
	need(!symlink("../kept", at("x/a/link")) && !mkfifo(at("x/a/fifo"), 0600) && !symlink("a", at("x/to-a")),
	     "symlink");
	is(remove_tree(&me, at("x/a/link/")), -ENOTDIR, "a link with a slash is no tree");
	is(remove_tree(&me, at("x/a/.")), -EINVAL, "nor is a dot");
	is(remove_tree(&me, at("x/a/..")), -EINVAL, "nor two");
	is(remove_tree(&me, "/"), -EBUSY, "nor the root");
	is(remove_tree(&me, at("x/none")), -ENOENT, "nor what is missing");
	is(remove_tree(&me, "x"), -EINVAL, "nor a relative path");
	is(remove_tree(&me, "/proc/self/cwd/x"), -ELOOP, "nor a magic link");
	is(remove_tree(&me, at("x/to-a")), 0, "a link is removed");
	ok(is_there(at("x/a/b")), "and not where it leads");
	is(remove_tree(&me, at("x/a/")), 0, "a tree is removed, whatever is in it");
	ok(!is_there(at("x/a")) && is_there(at("x/kept/f")), "and nothing that links in it lead to");
	is(remove_tree(&me, at("x/kept/f")), 0, "a file is a small tree");
	ok(!is_there(at("x/kept/f")), "and goes");
}

static void test_users(void)
{
	directory_make(at("g"), 0777);
	directory_make(at("g/u"), 0777);
	directory_make(at("g/u/closed"), 0700);
	file_make(at("g/u/closed/secret"), "x", 0644);
	directory_make(at("g/u/shut"), 0711);
	file_make(at("g/u/shut/f"), "x", 0644);
	file_make(at("g/u/f"), "x", 0600);
	is(walk(&guest, at("g/u"), true, 100), 0, "a guest walks");
	ok(seen.whole && !seen.error && seen.count == 3, "over what it may");
	ok(find("closed") && !find("closed/secret") && !find("shut/f"), "and closed directories stay closed");
	is(walk(&guest, at("g/u/closed"), true, 100), -EACCES, "also as a beginning");
	is(remove_tree(&guest, at("g/u/closed/secret")), -EACCES, "nothing in them is removed");
	is(remove_tree(&guest, at("g/u/closed")), EACCES, "nor the whole");
	is(remove_tree(&guest, at("g/u")), EACCES, "a tree is removed as far as the user may");
	ok(is_there(at("g/u/closed/secret")) && is_there(at("g/u/shut/f")) && !is_there(at("g/u/f")), "and no further");
	file_make(at("g/u/f"), "x", 0666);
	need(!chmod(at("g"), 0755), "chmod");
	is(remove_tree(&guest, at("g/u")), EACCES, "one that may not go itself");
	ok(is_there(at("g/u/f")), "is not emptied either");
	is(remove_tree(&me, at("g/u")), 0, "root may");
}

/* Runs a function that changes a tree in a loop, until stopped; returns when it is at it. */
static pid_t disturb(void (*once)(unsigned turn))
{
	int pair[2];
	char byte;
	pid_t pid;

	need(!pipe2(pair, O_CLOEXEC), "pipe2");
	fflush(stdout);
	pid = fork();
	need(pid >= 0, "fork");
	if (pid) {
		close(pair[1]);
		need(read(pair[0], &byte, 1) == 1, "read");
		close(pair[0]);
		return pid;
	}
	/* Should the test die, this one ends too; not by SIGALRM, which is blocked. */
	for (unsigned turn = 0; getppid() != 1; turn++) {
		once(turn);
		if (turn == 10)
			need(write(pair[1], "x", 1) == 1, "write");
	}
	_exit(0);
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void churn(unsigned turn)
{
	char name[64];

	snprintf(name, sizeof name, "churn/d%u", turn % 50);
	mkdir(at("%s", name), 0755);
	rename(at("%s", name), at("churn/d%u/inner", (turn + 7) % 50));
	close(open(at("churn/f%u", turn), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	unlink(at("churn/f%u", turn - 20));
	if (!symlink("..", at("churn/l%u", turn % 10)))
		return;
	unlink(at("churn/l%u", turn % 10));
}

static void test_churn(void)
{
	int whole = 0, bounded = 0;
	pid_t pid;

	directory_make(at("churn"), 0777);
	pid = disturb(churn);
	for (int i = 0; i < 20; i++) {
		walk(&me, at("churn"), true, 5000);
		whole += seen.whole && !seen.status;
		bounded += seen.count <= 5000;
	}
	stop(pid);
	is(whole, 20, "a walk over a tree that changes has an end and whole records");
	is(bounded, 20, "and keeps its limit");
}

static void fill(unsigned turn)
{
	close(open(at("filled/sub/f%u", turn), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	mkdir(at("filled/sub"), 0755);
}

static void test_fill(void)
{
	int code;
	pid_t pid;

	directory_make(at("filled"), 0777);
	directory_make(at("filled/sub"), 0777);
	pid = disturb(fill);
	code = remove_tree(&me, at("filled"));
	stop(pid);
	ok(code == 0 || code == ENOTEMPTY, "removing a tree that somebody fills has an end");
	ok(!remove_tree(&me, at("filled")) || !is_there(at("filled")), "and works once nobody does");
}

static void swap_test(const char *what, int (*act)(void))
{
	directory_make(at("precious"), 0755);
	file_make(at("precious/file"), "x", 0644);
	directory_make(at("victim"), 0755);
	directory_make(at("victim/d"), 0755);
	file_make(at("victim/d/file"), "x", 0644);
	need(!symlink(at("precious"), at("trap")), "symlink");
	swap = true;
	ok(act(), "%s", what);
	swap = false;
	ok(is_there(at("precious/file")), "and what it leads to is untouched");
	remove_tree(&me, at("victim"));
	remove_tree(&me, at("trap"));
	remove_tree(&me, at("precious"));
}

static int remove_victim(void)
{
	/* Between the two steps the directory has become a link, which stays: nobody said that it should go. */
	return remove_tree(&me, at("victim")) == ENOTDIR;
}

static int walk_victim(void)
{
	return !walk(&me, at("victim"), true, 100) && seen.whole && seen.count == 1 && find("d");
}

static void test_swap(void)
{
	swap_test("a directory that turns into a link does not lead a removal astray", remove_victim);
	swap_test("nor a walk", walk_victim);
}

/* What the walking child is: seen from the kernel's side, while it waits for its reader. */
static void test_child(void)
{
	char path[64], text[4096] = "", line[64];
	int pair[2], fd, status = 0;
	char byte;
	pid_t pid;

	need(!pipe2(pair, O_CLOEXEC), "pipe2");
	need(!chmod(at("unread"), 0755), "chmod");
	pid = files_walk(&guest, at("unread"), false, 10000, pair[1], &e);
	need(pid > 0 && read(pair[0], &byte, 1) == 1, "files_walk");
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	need(fd >= 0 && read(fd, text, sizeof text - 1) > 0, "status");
	close(fd);
	snprintf(line, sizeof line, "\nUid:\t%d\t%d\t%d\t%d\n", GUEST, GUEST, GUEST, GUEST);
	ok(strstr(text, line) != NULL, "a walk has become its user for good");
	ok(strstr(text, "\nGroups:\t1000 4000") != NULL, "with its groups");
	ok(strstr(text, "\nCapPrm:\t0000000000000000\n") && strstr(text, "\nCapEff:\t0000000000000000\n"),
	   "and no rights beyond");
	ok(strstr(text, "\nSigBlk:\t0000000000000000\n") && strstr(text, "\nSigIgn:\t0000000000000000\n"),
	   "and waits for no signal");
	close(pair[0]);
	close(pair[1]);
	need(waitpid(pid, &status, 0) == pid, "waitpid");
}

int main(void)
{
	const unsigned long ignore[4] = {(unsigned long)SIG_IGN};
	sigset_t all;

	/* As in the init, and signals ignored by whoever started it, among them one that the C library keeps to itself.
	 */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	need(!syscall(SYS_rt_sigaction, 33, ignore, NULL, 8) && signal(SIGPIPE, SIG_IGN) != SIG_ERR, "ignore");
	people_make();
	place_make();
	test_walk();
	test_limit();
	test_deep();
	test_long_names();
	test_many();
	test_lost_reader();
	test_no_descriptors();
	test_remove_tree();
	test_churn();
	test_fill();
	test_swap();
	if (guest_exists()) {
		test_users();
		test_child();
	} else {
		skip("users are kept apart", "needs root and other users");
	}
	forget();
	place_remove();
	return tap_end();
}
