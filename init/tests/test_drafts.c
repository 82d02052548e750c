#define _GNU_SOURCE
#include "files.h"

#include "people.h"
#include "places.h"

static struct err e;

static int begun(const struct user *user, const char *path, const char *text)
{
	int fd = files_draft(user, path, 0640, &e);

	if (fd >= 0)
		need(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write");
	return fd;
}

static struct stat facts_of(const char *path)
{
	struct stat facts;

	need(!lstat(path, &facts), path);
	return facts;
}

static int names_in(const char *path)
{
	char command[PATH_MAX + 64];
	FILE *found;
	int count = -1;

	snprintf(command, sizeof command, "ls -A '%s' | wc -l", path);
	found = popen(command, "r");
	need(found && fscanf(found, "%d", &count) == 1, "ls");
	pclose(found);
	return count;
}

static void test_placing(void)
{
	struct stat facts;
	int fd = begun(&me, at("new/deep/file"), "text");

	need(fd >= 0, "a file without a name");
	is(names_in(at("new/deep")), 0, "a draft has no name, in a directory that is made");
	is(files_place(&me, fd, at("new/deep/file"), false, &e), 0, "and gets one");
	is_string(file_text(at("new/deep/file")), "text", "with its content");
	facts = facts_of(at("new/deep/file"));
	ok((facts.st_mode & 07777) == 0640 && facts.st_nlink == 1, "its bits, and no other name");
	is(files_place(&me, fd, at("new/deep/file"), true, &e), -EEXIST, "but not where one is, if that is asked for");
	close(fd);
	file_make(at("old"), "old", 0600);
	fd = begun(&me, at("old"), "new");
	is(files_place(&me, fd, at("old"), true, &e), -EEXIST, "nothing is replaced");
	is_string(file_text(at("old")), "old", "unless it is said");
	is(files_place(&me, fd, at("old"), false, &e), 0, "which it is");
	is_string(file_text(at("old")), "new", "now");
	close(fd);
	fd = begun(&me, at("x"), "x");
	is(files_place(&me, fd, at("new"), false, &e), -EISDIR, "a directory is not replaced");
	is(files_place(&me, fd, at("none/x"), false, &e), -ENOENT, "what is not there holds no file");
	is(files_place(&me, fd, "/", false, &e), -EBUSY, "nor does nothing hold the root");
	is(names_in(at("new")), 1, "and nothing stays behind");
	close(fd);
	is(files_draft(&me, "/proc/x", 0600, &e), -EOPNOTSUPP, "where there can be none, that is told");
}

static void test_named(void)
{
	int fd = open(at("named"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	need(fd >= 0 && write(fd, "mine", 4) == 4, "open");
	need(!rename(at("named"), at("away")), "rename");
	file_make(at("named"), "another's", 0666);
	is(files_place(&me, fd, at("placed"), false, &e), 0, "a file that has a name gets another");
	is_string(file_text(at("placed")), "mine", "whatever its own leads to by now");
	need(!unlink(at("away")) && !unlink(at("placed")), "unlink");
	is(files_place(&me, fd, at("placed"), false, &e), -ENOENT, "one that has lost all of them is gone");
	close(fd);
}

static void test_rights(void)
{
	int fd;

	if (!guest_exists()) {
		skip("rights count", "needs root and other users");
		return;
	}
	directory_make(at("shut"), 0755);
	directory_make(at("open"), 0777);
	is(begun(&guest, at("shut/x"), ""), -EACCES, "nothing is begun where the user may not write");
	fd = begun(&guest, at("open/x"), "guest's");
	is(files_place(&guest, fd, at("shut/x"), false, &e), -EACCES, "nor named");
	is(files_place(&guest, fd, at("open/x"), false, &e), 0, "but where it may");
	is(facts_of(at("open/x")).st_uid, GUEST, "as its own");
	close(fd);
}

int main(void)
{
	people_make();
	place_make();
	test_placing();
	test_named();
	test_rights();
	place_remove();
	return tap_end();
}
