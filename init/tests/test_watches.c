#define _GNU_SOURCE
#include "watches.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#include "people.h"
#include "places.h"

#define WAIT_MILLISECONDS 20000

static struct err e;
static pid_t child;
static int records;

/* The last record that was read. */
static struct watch_record record;
static char path[PATH_MAX], from[PATH_MAX];

static bool read_exactly(void *data, size_t length)
{
	uint8_t *to = data;

	while (length) {
		struct pollfd ready = {.fd = records, .events = POLLIN};
		ssize_t got = poll(&ready, 1, WAIT_MILLISECONDS) > 0 ? read(records, to, length) : -1;

		if (got <= 0)
			return false;
		to += got;
		length -= (size_t)got;
	}
	return true;
}

static bool next(void)
{
	if (!read_exactly(&record, sizeof record) || record.path_length >= PATH_MAX || record.from_length >= PATH_MAX ||
	    record.length != sizeof record + record.path_length + record.from_length)
		return false;
	path[record.path_length] = from[record.from_length] = 0;
	return read_exactly(path, record.path_length) && read_exactly(from, record.from_length);
}

/* Reads on until something is told of a path. */
static bool told(int kind, const char *what)
{
	while (next())
		if (record.kind == kind && !strcmp(path, what))
			return true;
	return false;
}

static int watch_as(const struct user *user, const char *what, bool recursive)
{
	int pair[2];

	need(!pipe2(pair, O_CLOEXEC), "pipe");
	child = watches_start(user, what, recursive, pair[1], &e);
	close(pair[1]);
	records = pair[0];
	if (child < 0) {
		close(records);
		return (int)child;
	}
	return next() && record.kind == WATCH_READY ? record.error : -1;
}

static int ended(void)
{
	int status;

	close(records);
	need(waitpid(child, &status, 0) == child, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void make(const char *what)
{
	file_make(what, "", 0644);
}

static void test_changes(void)
{
	directory_make(at("top"), 0755);
	directory_make(at("top/old"), 0755);
	is(watch_as(&me, at("top"), true), 0, "a tree is watched");
	make(at("top/file"));
	ok(told(WATCH_CREATED, "file") && !record.directory, "a new file is told");
	file_make(at("top/old/file"), "text", 0600);
	ok(told(WATCH_CREATED, "old/file"), "below too");
	ok(told(WATCH_MODIFIED, "old/file"), "and what is written");
	ok(told(WATCH_ATTRIBUTES, "old/file"), "and other bits");
	need(!rename(at("top/old"), at("top/new")), "rename");
	ok(told(WATCH_CREATED, "new") && record.directory && !strcmp(from, "old"), "a move is told with both places");
	make(at("top/new/later"));
	ok(told(WATCH_CREATED, "new/later"), "and what comes later has the new path");
	need(!rename(at("top/new"), at("out")), "rename");
	ok(told(WATCH_DELETED, "new"), "what goes away is told");
	make(at("out/unseen"));
	need(!rename(at("out"), at("top/back")), "rename");
	ok(next() && record.kind == WATCH_CREATED && !strcmp(path, "back"), "but nothing of it until it comes back");
	ok(told(WATCH_CREATED, "back/unseen"), "with what is in it");
	need(!unlink(at("top/back/unseen")), "unlink");
	ok(told(WATCH_DELETED, "back/unseen"), "which is watched again");
	is(ended(), 0, "it ends when nobody listens");
}

static void test_swaps(void)
{
	directory_make(at("swaps"), 0755);
	is(watch_as(&me, at("swaps"), true), 0, "another is watched");
	need(!kill(child, SIGSTOP), "kill");
	for (int i = 0; i < 200; i++) {
		directory_make(at("swaps/a"), 0755);
		need(!rename(at("swaps/a"), at("swaps/b%d", i)), "rename");
	}
	directory_make(at("swaps/a"), 0755);
	need(!kill(child, SIGCONT), "kill");
	make(at("swaps/mark"));
	ok(told(WATCH_CREATED, "mark"), "names that change faster than they can be looked at");
	for (int i = 0; i < 200; i += 40) {
		char name[32];

		make(at("swaps/b%d/in", i));
		snprintf(name, sizeof name, "b%d/in", i);
		ok(told(WATCH_CREATED, name), "lose nothing");
	}
	make(at("swaps/a/in"));
	ok(told(WATCH_CREATED, "a/in"), "and mix nothing up");
	is(ended(), 0, "it ends");
}

static void test_end(void)
{
	directory_make(at("short"), 0755);
	directory_make(at("short/in"), 0755);
	is(watch_as(&me, at("short"), true), 0, "a directory is watched");
	need(!rmdir(at("short/in")) && !rmdir(at("short")), "rmdir");
	ok(told(WATCH_DELETED, "in"), "until");
	ok(!next(), "it is gone");
	is(ended(), 0, "then the watch is over");
	directory_make(at("short"), 0755);
	is(watch_as(&me, at("short"), false), 0, "another");
	need(!rename(at("short"), at("long")), "rename");
	ok(!next(), "is over when it is somewhere else");
	is(ended(), 0, "too");
	is(watch_as(&me, at("none"), true), -ENOENT, "what is not there is told");
	make(at("plain"));
	is(watch_as(&me, at("plain"), true), -ENOTDIR, "and what is no directory");
}

static void test_depth(void)
{
	int top = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir = -1;

	need(!mkdirat(top, "deep", 0755), "mkdir");
	dir = openat(top, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 300; i++) {
		int next_dir;

		need(!mkdirat(dir, "d", 0755), "mkdir");
		next_dir = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close(dir);
		dir = next_dir;
	}
	is(watch_as(&me, at("deep"), true), ENOSPC, "a tree that is too deep is refused");
	is(ended(), 0, "and left");
	is(watch_as(&me, at("deep"), false), 0, "but not its top");
	is(ended(), 0, "alone");
	close(dir);
	close(top);
}

/* A directory that is unmounted ends before one that is mounted in it and still open. */
static void test_unmount(void)
{
	int inner;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		skip("mounts end", "needs the right to mount");
		return;
	}
	directory_make(at("mounts"), 0755);
	directory_make(at("mounts/outer"), 0755);
	need(!mount("none", at("mounts/outer"), "tmpfs", 0, NULL), "mount");
	directory_make(at("mounts/outer/inner"), 0755);
	need(!mount("none", at("mounts/outer/inner"), "tmpfs", 0, NULL), "mount");
	inner = open(at("mounts/outer/inner"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	is(watch_as(&me, at("mounts"), true), 0, "mounts are watched");
	need(!kill(child, SIGSTOP), "kill");
	need(!umount2(at("mounts/outer"), MNT_DETACH), "umount");
	close(openat(inner, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	need(!kill(child, SIGCONT), "kill");
	ok(told(WATCH_OVERFLOW, ""), "when they go in the wrong order, that is told");
	make(at("mounts/mark"));
	ok(told(WATCH_CREATED, "mark"), "and the rest is watched on");
	is(ended(), 0, "to the end");
	close(inner);
}

static void test_guest(void)
{
	if (!guest_exists()) {
		skip("rights count", "needs root and other users");
		return;
	}
	directory_make(at("rights"), 0755);
	directory_make(at("rights/shut"), 0700);
	directory_make(at("rights/open"), 0755);
	is(watch_as(&guest, at("rights/shut"), true), -EACCES, "what may not be read is not watched");
	is(watch_as(&guest, at("rights"), true), 0, "the rest is");
	make(at("rights/shut/unseen"));
	make(at("rights/open/seen"));
	ok(next() && !strcmp(path, "open/seen"), "without what may not be read");
	is(ended(), 0, "by a process of the guest's");
	is(watch_as(&guest, at("rights"), true), 0, "which");
	need(!kill(child, SIGKILL), "kill");
	ok(!next(), "somebody may kill");
	is(ended(), 1009, "and nothing else happens");
}

int main(void)
{
	people_make();
	place_make();
	test_changes();
	test_swaps();
	test_end();
	test_depth();
	test_guest();
	test_unmount();
	place_remove();
	return tap_end();
}
