#define _GNU_SOURCE
#include "files.h"

#include <limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include "paths.h"
#include "people.h"
#include "places.h"

#define NEW (O_WRONLY | O_CREAT | O_TRUNC)

static struct err e;

static int open_as(const struct user *user, const char *path, int flags)
{
	return files_open(user, path, flags, 0644, &e);
}

/* Opens and closes: 0 or the errno. */
static int try_open(const struct user *user, const char *path, int flags)
{
	int fd = open_as(user, path, flags);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* Writes a text as somebody and returns 0 or the errno. */
static int put(const struct user *user, const char *path, int flags, const char *text)
{
	int fd = open_as(user, path, flags), code = 0;

	if (fd < 0)
		return fd;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		code = -errno;
	close(fd);
	return code;
}

static struct stat facts_of(const char *path)
{
	struct stat facts = {0};

	lstat(path, &facts);
	return facts;
}

static void test_open(void)
{
	mode_t before = umask(077);
	int fd;

	is(put(&me, at("f"), NEW, "one"), 0, "a file is made and written");
	is_string(file_text(at("f")), "one", "with its text");
	is(facts_of(at("f")).st_mode, S_IFREG | 0644, "its mode is as asked for, whatever the umask");
	is(umask(before), 077, "which is as it was");
	is(put(&me, at("f"), O_WRONLY | O_APPEND, "two"), 0, "text can be appended");
	is_string(file_text(at("f")), "onetwo", "behind what was there");
	is(put(&me, at("f"), O_WRONLY, "ONE"), 0, "a file can be written over");
	is_string(file_text(at("f")), "ONEtwo", "and keeps the rest");
	is(put(&me, at("f"), NEW, "3"), 0, "or emptied first");
	is_string(file_text(at("f")), "3", "and has only the new text");
	is(try_open(&me, at("f"), NEW | O_EXCL), -EEXIST, "one that must be new may not be there");
	is(try_open(&me, at("f2"), NEW | O_EXCL), 0, "but may be missing");
	fd = open_as(&me, at("f"), O_RDONLY);
	ok(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC, "what is opened closes on exec");
	is(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY, "and can only do what was asked for");
	close(fd);
	fd = open_as(&me, at("f"), O_RDWR | O_SYNC | O_DIRECT | O_ASYNC);
	ok(fd >= 0 && !(fcntl(fd, F_GETFL) & (O_DIRECT | O_ASYNC)), "other flags do not pass");
	close(fd);
	is(put(&me, at("new/sub//dir/f"), NEW, "deep"), 0, "missing parents are made");
	is_string(file_text(at("new/sub/dir/f")), "deep", "and the file in them");
	is(facts_of(at("new/sub")).st_mode, S_IFDIR | 0755, "with the usual mode");
	is(try_open(&me, at("none/f"), O_RDONLY), -ENOENT, "but not for reading");
	ok(!is_there(at("none")), "not at all");
	is(try_open(&me, at("f/x"), NEW), -ENOTDIR, "a file is no parent");
	is(try_open(&me, at("f/x/y"), NEW), -ENOTDIR, "nor a grandparent");
	is(try_open(&me, at("n\nl \xff\xfe"), NEW), 0, "any byte may be in a name");
	ok(is_there(at("n\nl \xff\xfe")), "and is kept");
}

static void test_bad_requests(void)
{
	char *path = malloc(PATH_MAX + 10);

	need(path, "malloc");
	is(try_open(&me, "f", O_RDONLY), -EINVAL, "a relative path is refused");
	is(try_open(&me, "", O_RDONLY), -EINVAL, "so is none");
	memset(path, '/', PATH_MAX + 9);
	path[PATH_MAX + 9] = 0;
	is(try_open(&me, path, O_RDONLY), -ENAMETOOLONG, "or one that is too long");
	path[PATH_MAX] = 0;
	is(try_open(&me, path, O_RDONLY), -ENAMETOOLONG, "by one byte");
	path[PATH_MAX - 1] = 0;
	is(try_open(&me, path, O_RDONLY), -EISDIR, "the longest is looked at");
	free(path);
	is(try_open(&me, at("%0256d", 0), NEW), -ENAMETOOLONG, "a name is at most 255 bytes");
	is(try_open(&me, at("f"), O_ACCMODE), -EINVAL, "an access mode of 3 is refused");
	is(try_open(&me, at("f"), O_RDONLY | O_TRUNC), -EINVAL, "so is emptying without writing");
	ok(strstr(e.text, "flags") != NULL, "and the error says so");
	is_string(e.stage, "open", "and where");
}

static void test_not_regular(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	need(!mkfifo(at("fifo"), 0666), "mkfifo");
	is(try_open(&me, at("fifo"), O_RDONLY), -EINVAL, "a FIFO is refused, and nobody waits for a writer");
	is(try_open(&me, at("fifo"), O_WRONLY), -EINVAL, "or for a reader");
	is(try_open(&me, at("fifo"), NEW), -EINVAL, "also when it should be made or emptied");
	is(try_open(&me, at("fifo"), NEW | O_EXCL), -EEXIST, "as a new file it is in the way");
	is(try_open(&me, "/dev/null", O_RDONLY), -EINVAL, "a device is refused");
	is(try_open(&me, "/dev/tty", O_RDWR), -EINVAL, "a terminal too");
	is(try_open(&me, place, O_RDONLY), -EISDIR, "a directory is one");
	is(try_open(&me, place, O_WRONLY), -EISDIR, "also for writing");
	is(try_open(&me, "/", O_RDONLY), -EISDIR, "even the root");
	is(try_open(&me, at("f/"), O_RDONLY), -ENOTDIR, "a file is no directory");
	is(try_open(&me, at("missing/"), NEW), -EISDIR, "a file is not made as one");
	snprintf(address.sun_path, sizeof address.sun_path, "%s", at("socket"));
	need(fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
	is(try_open(&me, at("socket"), O_RDWR), -EINVAL, "a socket is refused");
	close(fd);
}

static void test_links(void)
{
	need(!symlink("loop-b", at("loop-a")) && !symlink("loop-a", at("loop-b")), "symlink");
	need(!symlink("f", at("to-f")) && !symlink("nowhere", at("to-nowhere")) && !symlink("new", at("to-new")),
	     "symlink");
	need(!symlink("fifo", at("to-fifo")), "symlink");
	is(try_open(&me, at("loop-a"), O_RDONLY), -ELOOP, "links in a circle end");
	is(try_open(&me, at("loop-a/x/y"), NEW), -ELOOP, "also on the way");
	is(try_open(&me, at("to-f"), O_RDONLY), 0, "a link to a file is followed");
	is(try_open(&me, at("to-fifo"), O_RDONLY), -EINVAL, "one to a FIFO leads nowhere");
	is(put(&me, at("to-nowhere"), NEW, "x"), 0, "a file is made where a link leads");
	ok(is_there(at("nowhere")), "there");
	is(put(&me, at("to-new/other/f"), NEW, "x"), 0, "parents are made behind a link");
	ok(is_there(at("new/other/f")), "there");
	is(try_open(&me, "/proc/self/exe", O_RDONLY), -ELOOP, "magic links are not followed");
	is(try_open(&me, "/proc/self/root/etc/passwd", O_RDONLY), -ELOOP, "nor on the way");
	is(try_open(&me, "/proc/self/cwd/x", NEW), -ELOOP, "not for writing either");
	is(try_open(&me, "/proc/self/fd/0", O_RDONLY), -ELOOP, "nor to descriptors");
	is(try_open(&me, "/proc/thread-self/fd/0", O_RDONLY), -ELOOP, "in whatever way");
	is(try_open(&me, at("x/../f"), O_RDONLY), -ENOENT, "what does not exist has no parent");
	is(try_open(&me, at("new/../f"), O_RDONLY), 0, "what exists has");
}

static void test_kernel_files(void)
{
	static const char *const refused[] = {"mem",	"environ",  "maps", "cmdline",
					      "status", "fdinfo/0", "stat", "auxv"};
	struct stat facts;
	char path[64], text[8];
	int denied = 0, fd;

	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		snprintf(path, sizeof path, "/proc/self/%s", refused[i]);
		denied += try_open(&me, path, O_RDONLY) == -EACCES;
		snprintf(path, sizeof path, "/proc/%d/%s", (int)getpid(), refused[i]);
		denied += try_open(&me, path, O_RDONLY) == -EACCES;
		snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)getpid(), refused[i]);
		denied += try_open(&me, path, O_RDONLY) == -EACCES;
	}
	is(denied, 3 * sizeof refused / sizeof *refused, "what procfs has of the own process is refused");
	is(try_open(&me, "/proc/thread-self/environ", O_RDONLY), -EACCES, "under any name");
	snprintf(path, sizeof path, "/proc/%d/status", (int)getppid());
	is(try_open(&me, path, O_RDONLY), -EACCES, "like that of any other process");
	is(try_open(&me, "/proc/version", O_RDWR), -EACCES, "procfs is not written");
	is(try_open(&me, "/proc/sys/kernel/hostname", O_WRONLY), -EACCES, "not its settings either");
	is(try_open(&me, "/proc/new", NEW), -ENOENT, "and nothing is made in it");
	fd = open_as(&me, "/proc/version", O_RDONLY);
	ok(fd >= 0, "what it tells of the machine can be read");
	ok(!fstat(fd, &facts) && S_ISREG(facts.st_mode) && facts.st_size > 10, "from a file that knows its size");
	ok(read(fd, text, 5) == 5 && !memcmp(text, "Linux", 5), "from its beginning");
	ok(write(fd, "x", 1) < 0 && ftruncate(fd, 0) < 0, "and that nobody can change");
	close(fd);
	is(try_open(&me, "/proc/mounts", O_RDONLY), 0, "/proc/mounts can be read");
	is(try_open(&me, "/proc/net/dev", O_RDONLY), 0, "so can /proc/net");
	is(try_open(&me, "/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY), 0, "and sysfs");
	if (am_root())
		is(try_open(&me, "/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY), -EACCES, "but not written");
	else
		skip("but not written", "needs root");
}

/* The state that a process acts on files with. */
struct identity {
	long fsuid, fsgid, group_count;
	gid_t groups[64];
	mode_t mask;
};

static struct identity identity(void)
{
	struct identity now = {
		.fsuid = syscall(SYS_setfsuid, -1),
		.fsgid = syscall(SYS_setfsgid, -1),
		.mask = umask(0),
	};

	umask(now.mask);
	now.group_count = syscall(SYS_getgroups, 64, now.groups);
	return now;
}

static bool same_identity(const struct identity *a, const struct identity *b)
{
	return a->fsuid == b->fsuid && a->fsgid == b->fsgid && a->mask == b->mask && a->group_count == b->group_count &&
	       !memcmp(a->groups, b->groups, sizeof a->groups);
}

static void test_rights(void)
{
	struct user nobody_here = {.uid = (uid_t)-1, .gid = 0};
	struct file_record record;
	struct identity before = identity(), after;
	char target[PATH_MAX];
	bool created;
	int fd;

	file_make(at("private"), "secret", 0600);
	file_make(at("club"), "club", 0640);
	need(!chown(at("club"), 0, CLUB), "chown");
	directory_make(at("closed"), 0700);
	directory_make(at("open"), 0777);
	directory_make(at("sticky"), 01777);
	file_make(at("sticky/mine"), "", 0644);
	file_make(at("set"), "set", 06777);

	is(try_open(&guest, at("private"), O_RDONLY), -EACCES, "a guest may not read what is root's");
	is(try_open(&guest, at("club"), O_RDONLY), 0, "but what its groups may");
	is(try_open(&guest, at("club"), O_WRONLY), -EACCES, "and no more than that");
	is(try_open(&guest, at("f3"), NEW), -EACCES, "nor make a file where it may not write");
	is(put(&guest, at("open/a/b"), NEW, "x"), 0, "where it may it can");
	ok(facts_of(at("open/a/b")).st_uid == GUEST && facts_of(at("open/a/b")).st_gid == GUEST, "and owns it");
	is(facts_of(at("open/a")).st_uid, GUEST, "and its parents");
	is(try_open(&guest, at("closed/x"), O_RDONLY), -EACCES, "a closed directory stays closed");
	is(files_stat(&guest, at("closed/x"), true, &record, target, &e), -EACCES, "also for a look");
	is(files_stat(&guest, at("private"), true, &record, target, &e), 0, "a look needs no right to read");
	is(files_mkdir(&guest, at("closed/d"), 0755, true, &created, &e), -EACCES, "no directory is made in it");
	is(files_mkdir(&guest, at("open/d"), 0750, false, &created, &e), 0, "but in an open one");
	is(facts_of(at("open/d")).st_uid, GUEST, "and is the guest's");
	is(files_remove(&guest, at("private"), &e), -EACCES, "a guest may not remove what is not its own");
	is(files_remove(&guest, at("sticky/mine"), &e), -EPERM, "nor in a sticky directory");
	is(files_rename(&guest, at("open/a/b"), at("b"), false, &e), -EACCES, "nor move things where it may not write");
	is(files_rename(&guest, at("open/a/b"), at("open/b"), false, &e), 0, "but where it may");
	is(try_open(&guest, at("set"), O_RDONLY), 0, "reading a set-id file is harmless");
	is(facts_of(at("set")).st_mode & 07777, 06777, "and changes nothing");
	is(put(&guest, at("set"), O_WRONLY, "x"), 0, "writing one is allowed by its mode");
	is(facts_of(at("set")).st_mode & 07777, 0777, "and takes the bits away");
	is(try_open(&nobody_here, at("f"), O_RDONLY), -EPERM, "who cannot be become gets nothing");
	is_string(e.stage, "user", "and the error says so");
	after = identity();
	ok(same_identity(&before, &after), "after all that the process is who it was");
	fd = open(at("private"), O_RDONLY);
	ok(fd >= 0, "with its rights");
	close(fd);
}

static void test_stat(void)
{
	struct timespec late[2] = {{.tv_sec = 0}, {.tv_sec = 1, .tv_nsec = 5}};
	struct timespec odd[2] = {{.tv_sec = 0}, {.tv_sec = -9300000000, .tv_nsec = 1}};
	struct file_record record;
	char target[PATH_MAX];

	file_make(at("s"), "12345", 0604);
	need(!utimensat(AT_FDCWD, at("s"), late, 0) && !symlink("s", at("to-s")), "utimensat");
	is(files_stat(&me, at("s"), true, &record, target, &e), 0, "a file has facts");
	ok(record.mode == (S_IFREG | 0604) && record.size == 5, "mode and size");
	ok(record.modified_ns == 1000000005 && record.uid == me.uid && record.gid == facts_of(at("s")).st_gid,
	   "time and owner");
	ok(!record.target_length && !record.path_length, "and no target");
	is(record.inode, facts_of(at("s")).st_ino, "and its number");
	is(files_stat(&me, at("to-s"), true, &record, target, &e), 0, "a link can be followed");
	is(record.mode, S_IFREG | 0604, "to its file");
	is(files_stat(&me, at("to-s"), false, &record, target, &e), 0, "or not");
	ok(S_ISLNK(record.mode) && record.target_length == 1 && target[0] == 's', "and leads to its target");
	is(files_stat(&me, at("loop-a"), false, &record, target, &e), 0, "a link in a circle has facts");
	is(files_stat(&me, at("loop-a"), true, &record, target, &e), -ELOOP, "its end has not");
	is(files_stat(&me, at("fifo"), true, &record, target, &e), 0, "a FIFO has facts, and nobody waits");
	is(files_stat(&me, "/dev/null", true, &record, target, &e), 0, "so has a device");
	is(record.inode, 0, "but no number, which is a file's alone");
	is(files_stat(&me, "/proc/uptime", true, &record, target, &e), 0, "what the kernel makes up has facts");
	is(record.inode, 0, "but no number: a copy of it is opened");
	is(files_stat(&me, "/", true, &record, target, &e), 0, "so has the root");
	is(files_stat(&me, at("none"), true, &record, target, &e), -ENOENT, "what is missing has none");
	is(files_stat(&me, "s", true, &record, target, &e), -EINVAL, "what is relative neither");
	is(files_stat(&me, "/proc/self/exe", true, &record, target, &e), -ELOOP, "a magic link is not followed");
	is(files_stat(&me, "/proc/self/exe", false, &record, target, &e), 0, "but looked at");
	ok(S_ISLNK(record.mode) && !record.target_length, "and does not tell where it leads");
	is(files_stat(&me, "/proc/self", false, &record, target, &e), 0, "other links of procfs are links");
	ok(record.target_length > 0, "that tell");
	if (utimensat(AT_FDCWD, at("s"), odd, 0) || facts_of(at("s")).st_mtim.tv_sec != odd[1].tv_sec)
		skip("a time beyond what nanoseconds count stays at the end", "this filesystem has no such times");
	else
		ok(!files_stat(&me, at("s"), true, &record, target, &e) && record.modified_ns == INT64_MIN,
		   "a time beyond what nanoseconds count stays at the end");
}

/* A filesystem may not keep such times; the arithmetic is tried on its own. */
static void test_times(void)
{
	struct stat facts = {.st_mtim = {INT64_MAX, 999999999}};
	struct file_record record;

	paths_record(&facts, &record);
	is(record.modified_ns, INT64_MAX, "a time far ahead stays at the end");
	facts.st_mtim = (struct timespec){INT64_MIN, 0};
	paths_record(&facts, &record);
	is(record.modified_ns, INT64_MIN, "a time far back at the beginning");
	facts.st_mtim = (struct timespec){INT64_MAX / 1000000000, 999999999};
	paths_record(&facts, &record);
	is(record.modified_ns, INT64_MAX, "also one that is too far by less than a second");
	facts.st_mtim = (struct timespec){-2, 500000000};
	paths_record(&facts, &record);
	is(record.modified_ns, -1500000000, "a time before 1970 is negative");
}

static int make_directory(const char *path, bool parents, bool *created)
{
	return files_mkdir(&me, path, 0750, parents, created, &e);
}

static void test_mkdir(void)
{
	mode_t before = umask(077);
	bool created = false;

	is(make_directory(at("m"), false, &created), 0, "a directory is made");
	ok(created && facts_of(at("m")).st_mode == (S_IFDIR | 0750), "with its mode, whatever the umask");
	umask(before);
	is(make_directory(at("m"), false, &created), 0, "one that is there is fine");
	ok(!created, "and not new");
	is(make_directory(at("m/a/b"), false, &created), -ENOENT, "one without parents is not made");
	is(make_directory(at("m/a//b/"), true, &created), 0, "unless they may be made");
	ok(created && facts_of(at("m/a")).st_mode == (S_IFDIR | 0755), "with the usual mode");
	is(facts_of(at("m/a/b")).st_mode, S_IFDIR | 0750, "and its own");
	is(make_directory(at("m/a/../c/./d"), true, &created), 0, "dots mean what they mean");
	ok(is_there(at("m/c/d")), "to the kernel");
	is(make_directory(at("m/c/.."), true, &created), 0, "a directory can be named by them");
	ok(!created, "and is not new");
	is(make_directory(at("f"), false, &created), -EEXIST, "a file is in the way");
	is(make_directory(at("f"), true, &created), -EEXIST, "with parents or without");
	is(make_directory(at("f/d"), true, &created), -ENOTDIR, "a file is no parent");
	need(!symlink("nothing-there", at("dangling")), "symlink");
	is(make_directory(at("dangling"), true, &created), -EEXIST, "a link to nowhere is in the way");
	is(make_directory(at("dangling/x"), true, &created), -EEXIST, "of what is below, too");
	need(!symlink("m", at("to-m")), "symlink");
	is(make_directory(at("to-m/e/f"), true, &created), 0, "a link to a directory is followed");
	ok(is_there(at("m/e/f")), "into it");
	is(make_directory(at("to-m"), true, &created), 0, "and is one itself");
	is(make_directory("/", true, &created), 0, "the root is there");
	ok(!created, "and not new");
	is(make_directory("///", false, &created), 0, "with any number of slashes");
	is(make_directory("relative", true, &created), -EINVAL, "a relative path is refused");
	is(make_directory(at("m/%0256d/x", 0), true, &created), -ENAMETOOLONG, "so is a long name");
	is(make_directory("/proc/self/cwd/d", true, &created), -ELOOP, "and a magic link");
}

static void test_remove(void)
{
	directory_make(at("r"), 0755);
	directory_make(at("r/full"), 0755);
	directory_make(at("r/empty"), 0755);
	file_make(at("r/full/f"), "x", 0000);
	need(!symlink("full", at("r/link")) && !symlink("nowhere", at("r/dangling")), "symlink");
	is(files_remove(&me, at("r/empty"), &e), 0, "an empty directory goes");
	is(files_remove(&me, at("r/full"), &e), -ENOTEMPTY, "a full one does not");
	is(files_remove(&me, at("r/link/"), &e), -ENOTDIR, "a link is no directory");
	is(files_remove(&me, at("r/link"), &e), 0, "a link goes");
	ok(is_there(at("r/full/f")) && !is_there(at("r/link")), "and not what it leads to");
	is(files_remove(&me, at("r/dangling"), &e), 0, "also one to nowhere");
	is(files_remove(&me, at("r/full/f/"), &e), -ENOTDIR, "a file is no directory");
	is(files_remove(&me, at("r/full/f"), &e), 0, "a file goes, whatever its mode");
	is(files_remove(&me, at("r/full/f"), &e), -ENOENT, "once");
	is(files_remove(&me, at("r/full/."), &e), -EINVAL, "dots are not removed");
	is(files_remove(&me, at("r/full/.."), &e), -ENOTEMPTY, "nor what is above");
	is(files_remove(&me, at("r/full//"), &e), 0, "slashes behind a directory are fine");
	is(files_remove(&me, "/", &e), -EBUSY, "the root stays");
	is(files_remove(&me, "//", &e), -EBUSY, "by any name");
	is(files_remove(&me, "x", &e), -EINVAL, "a relative path is refused");
	is(files_remove(&me, "/proc/self/root/tmp/x", &e), -ELOOP, "and a magic link");
}

static void test_rename(void)
{
	file_make(at("from"), "from", 0644);
	file_make(at("over"), "over", 0644);
	directory_make(at("dir"), 0755);
	is(files_rename(&me, at("from"), at("to"), false, &e), 0, "a file is renamed");
	ok(!is_there(at("from")) && is_there(at("to")), "and has the new name only");
	is(files_rename(&me, at("to"), at("over"), false, &e), 0, "it may replace another");
	is_string(file_text(at("over")), "from", "which is gone");
	is(files_rename(&me, at("over"), at("dir"), false, &e), -EISDIR, "but no directory");
	is(files_rename(&me, at("over"), at("dir/in"), false, &e), 0, "it can move into one");
	is(files_rename(&me, at("dir"), at("dir/in/x"), false, &e), -ENOTDIR, "a directory does not move into a file");
	is(files_rename(&me, at("dir"), at("dir/x"), false, &e), -EINVAL, "nor into itself");
	is(files_rename(&me, at("dir/"), at("dir2/"), false, &e), 0, "slashes behind a directory are fine");
	is(files_rename(&me, at("none"), at("x"), false, &e), -ENOENT, "what is missing is not renamed");
	is(files_rename(&me, at("dir2"), at("none/x"), false, &e), -ENOENT, "nor to where nothing is");
	is(files_rename(&me, at("dir2"), "/", false, &e), -EBUSY, "nor to the root");
	is(files_rename(&me, "/", at("x"), false, &e), -EBUSY, "nor the root");
	is(files_rename(&me, at("dir2"), "x", false, &e), -EINVAL, "nor to a relative path");
	file_make(at("kept"), "kept", 0600);
	file_make(at("other"), "other", 0600);
	is(files_rename(&me, at("other"), at("kept"), true, &e), -EEXIST, "if asked, nothing is replaced");
	is_string(file_text(at("kept")), "kept", "and it is still there");
	is(files_rename(&me, at("other"), at("free"), true, &e), 0, "but a free name is taken");
}

/* In a child with mounts of its own; returns the number of the check that failed. */
static int small_disk(void *context)
{
	static char block[65536];
	bool created;
	int fd;

	(void)context;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 1;
	if (mount("tmpfs", at("small"), "tmpfs", 0, "size=64k,nr_inodes=4") < 0)
		return 2;
	fd = open_as(&me, at("small/f"), NEW);
	if (fd < 0 || write(fd, block, sizeof block) != sizeof block)
		return 3;
	if (write(fd, block, 1) >= 0 || errno != ENOSPC)
		return 4;
	if (try_open(&me, at("small/a/b/c"), NEW) != -ENOSPC || e.code != ENOSPC)
		return 5;
	if (files_mkdir(&me, at("small/x/y/z"), 0755, true, &created, &e) != -ENOSPC)
		return 6;
	/* Emptying gives the room back. */
	if (put(&me, at("small/f"), NEW, "x"))
		return 7;
	close(fd);
	if (mount(NULL, at("small"), NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return 8;
	if (try_open(&me, at("small/f"), O_WRONLY) != -EROFS || try_open(&me, at("small/g/h"), NEW) != -EROFS)
		return 9;
	return try_open(&me, at("small/f"), O_RDONLY) ? 10 : 0;
}

static void test_small_disk(void)
{
	directory_make(at("small"), 0755);
	is(in_child(small_disk, NULL), 0, "a full and a read-only disk are told as what they are");
}

static bool no_descriptor_left(void)
{
	for (int fd = 3; fd < 64; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return false;
	return true;
}

int main(void)
{
	/* What the caller of the tests left open would count below. */
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	people_make();
	place_make();
	test_open();
	test_bad_requests();
	test_not_regular();
	test_links();
	test_kernel_files();
	test_stat();
	test_times();
	test_mkdir();
	test_remove();
	test_rename();
	if (guest_exists())
		test_rights();
	else
		skip("users are kept apart", "needs root and other users");
	if (am_root())
		test_small_disk();
	else
		skip("a full and a read-only disk are told as what they are", "needs root");
	ok(no_descriptor_left(), "no descriptor is left open");
	place_remove();
	return tap_end();
}
