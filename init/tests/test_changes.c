#define _GNU_SOURCE
#include "files.h"

#include <dlfcn.h>
#include <sys/syscall.h>

#include "people.h"
#include "places.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

/* Plays a kernel that lacks the calls which take a descriptor made with O_PATH. It takes as many values as any call has:
 * what was not given is whatever stands there, and nobody looks at it. */
static bool old_kernel;

__attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
	static long (*real)(long, ...);
	long values[6];
	va_list rest;

	va_start(rest, number);
	for (int i = 0; i < 6; i++)
		values[i] = va_arg(rest, long);
	va_end(rest);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	if (old_kernel && (number == SYS_fchmodat2 || (number == SYS_utimensat && values[3]))) {
		errno = number == SYS_utimensat ? EINVAL : ENOSYS;
		return -1;
	}
	return real(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

static struct err e;

static struct stat facts_of(const char *path)
{
	struct stat facts;

	need(!lstat(path, &facts), path);
	return facts;
}

static int change(const struct user *user, const char *path, struct file_change wanted)
{
	return files_change(user, path, true, &wanted, &e);
}

static void test_change(void)
{
	struct stat facts;
	char path[64];
	int fd;

	file_make(at("file"), "text", 0640);
	need(!symlink("file", at("link")), "symlink");
	is(change(&me, at("file"), (struct file_change){.mode_given = true, .mode = 04711}), 0, "bits are changed");
	is(facts_of(at("file")).st_mode & 07777, 04711, "to what is wanted");
	is(change(&me, at("link"), (struct file_change){.modified_given = true, .modified_ns = -1500000000}), 0,
	   "a time is changed");
	facts = facts_of(at("file"));
	ok(facts.st_mtim.tv_sec == -2 && facts.st_mtim.tv_nsec == 500000000, "of what a link leads to, before 1970 too");
	is(files_change(&me, at("link"), false, &(struct file_change){.modified_given = true, .modified_ns = 7}, &e), 0,
	   "or of the link");
	is(facts_of(at("link")).st_mtim.tv_nsec, 7, "alone");
	is(files_change(&me, at("link"), false, &(struct file_change){.mode_given = true}, &e), -EOPNOTSUPP,
	   "which has no bits");
	is(change(&me, at("none"), (struct file_change){.mode_given = true}), -ENOENT, "what is not there is told");
	is(change(&me, "/proc/self/comm", (struct file_change){.mode_given = true}), -EACCES,
	   "what the kernel makes up is not changed");
	fd = open(at("file"), O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	is(change(&me, path, (struct file_change){.mode_given = true}), -ELOOP, "nor what a magic link leads to");
	need(!symlink(path, at("magic")), "symlink");
	is(change(&me, at("magic"), (struct file_change){.mode_given = true}), -ELOOP, "whoever it is reached by");
	close(fd);
}

static void test_old_kernel(void)
{
	old_kernel = true;
	is(change(&me, at("file"), (struct file_change){.mode_given = true, .mode = 0604, .modified_given = true,
							.modified_ns = 9000000001}),
	   0, "older kernels take another way");
	is(facts_of(at("file")).st_mode & 07777, 0604, "to the same bits");
	is(facts_of(at("file")).st_mtim.tv_nsec, 1, "and the same time");
	is(files_change(&me, at("link"), false, &(struct file_change){.modified_given = true}, &e), -EINVAL,
	   "but not of a link");
	is(facts_of(at("file")).st_mtim.tv_nsec, 1, "which is not followed instead");
	if (guest_exists())
		is(change(&guest, at("file"), (struct file_change){.mode_given = true, .mode = 0777}), -EPERM,
		   "and nobody gets more rights");
	old_kernel = false;
}

static void test_below(void)
{
	const struct file_change wanted = {.mode_given = true, .mode = 0751};
	struct file_change time = {.modified_given = true, .modified_ns = 5};

	directory_make(at("tree"), 0755);
	directory_make(at("tree/in"), 0755);
	directory_make(at("tree/out"), 0755);
	file_make(at("tree/in/file"), "", 0600);
	file_make(at("outside"), "", 0600);
	need(!symlink("tree", at("to-tree")) && !symlink("../outside", at("tree/to-outside")), "symlink");
	is(files_change_below(&me, at("tree"), false, "in/file", &wanted, &e), 0, "what is below is changed");
	is(facts_of(at("tree/in/file")).st_mode & 07777, 0751, "to what is wanted");
	is(files_change_below(&me, at("to-tree"), true, "in", &wanted, &e), 0, "below what a link leads to as well");
	is(facts_of(at("tree/in")).st_mode & 07777, 0751, "if that is wanted");
	is(files_change_below(&me, at("to-tree"), false, "in", &wanted, &e), -ENOTDIR, "and else not");
	is(files_change_below(&me, at("tree"), true, "to-outside", &time, &e), 0, "a link is changed itself");
	ok(facts_of(at("tree/to-outside")).st_mtim.tv_nsec == 5 && facts_of(at("outside")).st_mtim.tv_sec, "alone");
	need(!rename(at("tree/in"), at("elsewhere")) && !symlink("../elsewhere", at("tree/in")), "swap");
	is(files_change_below(&me, at("tree"), true, "in/file", &time, &e), -ELOOP, "no link on the way is followed");
	is(files_change_below(&me, at("tree"), true, "../outside", &time, &e), -EXDEV, "nothing leads up and out");
	is(files_change_below(&me, at("tree"), true, at("outside"), &time, &e), -EXDEV, "nor down from the root");
	ok(facts_of(at("outside")).st_mtim.tv_sec, "and nothing is changed there");
	is(files_change_below(&me, at("tree"), true, "none", &time, &e), -ENOENT, "what is not there is told");
}

static void test_open(void)
{
	const struct file_change wanted = {.mode_given = true, .mode = 04755};
	int fd;

	file_make(at("opened"), "", 0600);
	fd = open(at("opened"), O_WRONLY | O_CLOEXEC);
	need(!rename(at("opened"), at("moved")), "rename");
	file_make(at("opened"), "", 0600);
	is(files_change_open(&me, fd, &wanted, &e), 0, "an open file is changed");
	is(facts_of(at("moved")).st_mode & 07777, 04755, "whatever its name is now");
	is(facts_of(at("opened")).st_mode & 07777, 0600, "and whatever has its old one");
	if (guest_exists())
		is(files_change_open(&guest, fd, &wanted, &e), -EPERM, "by those who may");
	close(fd);
}

static void test_rights(void)
{
	if (!guest_exists()) {
		skip("rights count", "needs root and other users");
		return;
	}
	file_make(at("his"), "", 0600);
	file_make(at("mine"), "", 0600);
	is(change(&me, at("his"), (struct file_change){.uid_given = true, .uid = GUEST, .gid_given = true, .gid = CLUB,
						       .mode_given = true, .mode = 06755}),
	   0, "root gives a file away");
	ok(facts_of(at("his")).st_uid == GUEST && facts_of(at("his")).st_gid == CLUB, "to whom it wants");
	is(facts_of(at("his")).st_mode & 07777, 06755, "with the bits it wants");
	is(change(&guest, at("his"), (struct file_change){.mode_given = true, .mode = 0700}), 0,
	   "the guest changes its own");
	is(change(&guest, at("mine"), (struct file_change){.mode_given = true, .mode = 0777}), -EPERM, "not mine");
	is(change(&guest, at("mine"), (struct file_change){.modified_given = true}), -EPERM, "in no way");
	is(change(&guest, at("his"), (struct file_change){.uid_given = true, .uid = 0}), -EPERM,
	   "and gives nothing away");
	is(files_symlink(&guest, "x", at("guests"), &e), -EACCES, "it makes no link where it may not write");
	is(files_link(&guest, at("his"), at("guests"), &e), -EACCES, "of either kind");
	ok(geteuid() == 0 && access(at("mine"), W_OK) == 0, "and root has its rights back");
}

static void test_names(void)
{
	char text[16] = {0};

	is(files_symlink(&me, "some/where", at("new"), &e), 0, "a link is made");
	ok(readlink(at("new"), text, sizeof text) == 10 && !strcmp(text, "some/where"), "that says what it should");
	is(files_symlink(&me, "x", at("new"), &e), -EEXIST, "not over another");
	is(files_symlink(&me, "x", "/", &e), -EEXIST, "nor over the root");
	is(files_symlink(&me, "x", at("none/x"), &e), -ENOENT, "nor in nothing");
	is(files_symlink(&me, "", at("empty"), &e), -ENOENT, "nor to nothing");
	is(files_link(&me, at("file"), at("again"), &e), 0, "a file gets another name");
	is(facts_of(at("again")).st_ino, facts_of(at("file")).st_ino, "and is the same");
	is(files_link(&me, at("new"), at("link-again"), &e), 0, "so does a link");
	ok(S_ISLNK(facts_of(at("link-again")).st_mode), "itself");
	is(files_link(&me, at("file"), at("again"), &e), -EEXIST, "not over another");
	is(files_link(&me, at("."), at("directory"), &e), -EPERM, "a directory does not");
	is(files_link(&me, "/", at("root"), &e), -EPERM, "nor the root");
	is(files_link(&me, at("file"), "/", &e), -EEXIST, "which is there");
}

int main(void)
{
	people_make();
	place_make();
	test_change();
	test_old_kernel();
	test_below();
	test_open();
	test_rights();
	test_names();
	place_remove();
	return tap_end();
}
