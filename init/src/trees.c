/* Whole trees, in a child process that is the user: a tree may be large, and the init answers others meanwhile.
 *
 * The tree changes while it is walked, perhaps on purpose: every step goes by the descriptor of a directory and one
 * name, never following links; depth is bounded, and so is the number of names looked at, whatever became of them. */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"
#include "paths.h"
#include "rights.h"
#include "trees.h"

/* On the stack, once for each level. */
#define NAMES_ROOM 4096
#define OUTPUT_ROOM 32768
/* A directory that somebody keeps filling is read so often. */
#define PASSES_MAX 16
#define REMOVALS_MAX ((uint64_t)1 << 24)

/* What getdents64 writes; the libraries disagree on its name. */
struct directory_entry {
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

bool trees_scan(int dir, trees_visit *visit, void *context, int *error)
{
	_Alignas(struct directory_entry) char names[NAMES_ROOM];
	long got;

	while ((got = syscall(SYS_getdents64, dir, names, sizeof names)) > 0) {
		const struct directory_entry *entry;

		for (long at = 0; at < got; at += entry->length) {
			entry = (const struct directory_entry *)(const void *)(names + at);
			if (!strcmp(entry->name, ".") || !strcmp(entry->name, ".."))
				continue;
			if (!visit(context, dir, entry->name))
				return false;
		}
	}
	if (got < 0 && errno != ENOENT) /* ENOENT: the directory itself was removed */
		*error = errno;
	return true;
}

static void close_others(int a, int b)
{
	unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

	if (low)
		sys_close_range(0, low - 1, 0);
	if (high > low + 1)
		sys_close_range(low + 1, high - 1, 0);
	sys_close_range(high + 1, ~0U, 0);
}

pid_t trees_fork(const struct user *user, int a, int b, int *code)
{
	struct err e;
	pid_t pid = fork();

	if (pid)
		return pid;
	close_others(a, b);
	rights_reset_signals();
	*code = rights_become(user, &e);
	return 0;
}

/* A walk, in the child. */
struct walk {
	int out;
	bool recursive;
	uint64_t left;	    /* names that may still be looked at */
	uint64_t more;
	int error;
	unsigned depth;
	size_t path_length; /* of the directory being read, slash included; relative to where the walk began */
	char path[TREE_DEPTH_MAX * (NAME_MAX + 1)];
	size_t buffered;
	char buffer[OUTPUT_ROOM];
};

static void flush(struct walk *walk)
{
	size_t done = 0;

	while (done < walk->buffered) {
		ssize_t put = write(walk->out, walk->buffer + done, walk->buffered - done);

		if (put > 0) {
			done += (size_t)put;
		} else if (put < 0 && errno == EAGAIN) {
			struct pollfd room = {.fd = walk->out, .events = POLLOUT};

			poll(&room, 1, -1);
		} else if (put == 0 || errno != EINTR) {
			_exit(1); /* nobody listens any more */
		}
	}
	walk->buffered = 0;
}

static void put(struct walk *walk, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		size_t room = sizeof walk->buffer - walk->buffered;
		size_t piece = length < room ? length : room;

		memcpy(walk->buffer + walk->buffered, at, piece);
		walk->buffered += piece;
		at += piece;
		length -= piece;
		if (walk->buffered == sizeof walk->buffer)
			flush(walk);
	}
}

static void put_record(struct walk *walk, const struct stat *facts, const char *target, size_t target_length,
		       size_t path_length)
{
	struct file_record record;

	paths_record(facts, &record);
	record.path_length = (uint32_t)path_length;
	record.target_length = (uint32_t)target_length;
	record.length = (uint32_t)(sizeof record + path_length + target_length);
	put(walk, &record, sizeof record);
	put(walk, walk->path, path_length);
	put(walk, target, target_length);
}

static void put_end(struct walk *walk)
{
	struct file_record record = {
		.length = sizeof record,
		.size = (uint64_t)walk->error,
		.modified_ns = (int64_t)walk->more,
	};

	put(walk, &record, sizeof record);
	flush(walk);
}

static trees_visit walk_entry;

/* A directory that may not be read, or is none any more, was at least named; that is all there is to tell. Only what
 * goes wrong with the walk itself ends it. */
static bool walk_into(struct walk *walk, int dir, const char *name)
{
	int fd;
	bool more;

	if (walk->depth == TREE_DEPTH_MAX) {
		walk->error = ELOOP;
		return true;
	}
	fd = openat(dir, name, TREE_DIRECTORY_FLAGS);
	if (fd < 0) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
			return true;
		walk->error = errno;
		return false;
	}
	walk->path[walk->path_length++] = '/';
	walk->depth++;
	more = trees_scan(fd, walk_entry, walk, &walk->error);
	walk->depth--;
	close(fd);
	return more;
}

static bool walk_entry(void *context, int dir, const char *name)
{
	struct walk *walk = context;
	size_t above = walk->path_length, length = strlen(name);
	char target[PATH_MAX];
	ssize_t target_length = 0;
	struct stat facts;
	bool more = true;

	if (!walk->left) {
		walk->more = 1;
		return false;
	}
	walk->left--;
	if (length > NAME_MAX || fstatat(dir, name, &facts, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return true; /* gone meanwhile */
	if (S_ISLNK(facts.st_mode))
		target_length = readlinkat(dir, name, target, sizeof target);
	memcpy(walk->path + above, name, length);
	walk->path_length = above + length;
	put_record(walk, &facts, target, target_length > 0 ? (size_t)target_length : 0, walk->path_length);
	if (walk->recursive && S_ISDIR(facts.st_mode))
		more = walk_into(walk, dir, name);
	walk->path_length = above;
	return more;
}

static _Noreturn void walk_tree(struct walk *walk, int dir, int code)
{
	walk->error = -code;
	walk->depth = 1;
	if (!code)
		trees_scan(dir, walk_entry, walk, &walk->error);
	put_end(walk);
	_exit(0);
}

pid_t files_walk(const struct user *user, const char *path, bool recursive, uint64_t limit, int out, struct err *e)
{
	static struct walk walk; /* its pages come into being in the child only */
	struct rights saved;
	int dir, code;
	pid_t pid;

	if (path[0] != '/')
		return err_set(e, EINVAL, "walk", "'%.200s' is not absolute", path);
	code = rights_take(user, &saved, e);
	if (code)
		return code;
	dir = paths_open(AT_FDCWD, path, TREE_DIRECTORY_FLAGS & ~O_NOFOLLOW, 0);
	rights_return(&saved);
	if (dir < 0)
		return err_set(e, -dir, "walk", "cannot list '%s'", path);
	pid = trees_fork(user, dir, out, &code);
	if (!pid) {
		walk.out = out;
		walk.recursive = recursive;
		walk.left = limit;
		walk_tree(&walk, dir, code);
	}
	code = pid < 0 ? err_set(e, errno, "walk", "cannot start a process") : 0;
	close(dir);
	return code ? code : pid;
}

/* A removal, in the child. */
struct removal {
	uint64_t left;	  /* names that may still be looked at */
	uint64_t removed;
	int error;	  /* the first one */
	unsigned depth;
};

static void note(struct removal *removal, int error)
{
	if (!removal->error)
		removal->error = error;
}

static trees_visit remove_entry;

/* Some filesystems lose their place when names go while they are listed: read again until nothing more is found. */
static void empty(struct removal *removal, int dir)
{
	for (int pass = 0; pass < PASSES_MAX; pass++) {
		uint64_t before = removal->removed;
		int error = 0;

		if (lseek(dir, 0, SEEK_SET) < 0 || !trees_scan(dir, remove_entry, removal, &error))
			return;
		if (error)
			note(removal, error);
		if (error || removal->removed == before)
			return;
	}
}

static bool remove_directory(struct removal *removal, int dir, const char *name)
{
	int fd;

	if (removal->depth == TREE_DEPTH_MAX) {
		note(removal, ELOOP);
		return false;
	}
	fd = openat(dir, name, TREE_DIRECTORY_FLAGS);
	if (fd >= 0) {
		removal->depth++;
		empty(removal, fd);
		removal->depth--;
		close(fd);
	} else if (errno != ENOENT && errno != EACCES) {
		note(removal, errno);
		return false;
	}
	if (unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		/* One that may not be read and is not empty fails for want of rights. */
		note(removal, fd < 0 && errno == ENOTEMPTY ? EACCES : errno);
		return false;
	}
	removal->removed++;
	return true;
}

static bool remove_entry(void *context, int dir, const char *name)
{
	struct removal *removal = context;

	if (!removal->left) {
		note(removal, EBUSY);
		return false;
	}
	removal->left--;
	if (!unlinkat(dir, name, 0))
		removal->removed++;
	else if (errno == EISDIR)
		remove_directory(removal, dir, name);
	else if (errno != ENOENT)
		note(removal, errno);
	return true; /* as much as can go, goes */
}

/* Copies the last component without its slashes: with one behind it, even O_NOFOLLOW would follow a link. */
static int copy_name(const char *last, char name[NAME_MAX + 1])
{
	size_t length = strcspn(last, "/");

	if (length > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, last, length);
	name[length] = 0;
	return !strcmp(name, ".") || !strcmp(name, "..") ? -EINVAL : 0;
}

/* Opens the directory that holds the tree and sees that the tree is there. Returns a descriptor or a negative errno. */
static int find_tree(const char *path, char name[NAME_MAX + 1])
{
	const char *last;
	struct stat facts;
	int dir = paths_open_parent(path, false, &last), code;

	if (dir < 0)
		return dir;
	code = copy_name(last, name);
	if (!code && fstatat(dir, name, &facts, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		code = -errno;
	if (!code && strchr(last, '/') && !S_ISDIR(facts.st_mode))
		code = -ENOTDIR;
	if (!code)
		return dir;
	close(dir);
	return code;
}

static _Noreturn void remove_tree(int dir, const char *name)
{
	struct removal removal = {.left = REMOVALS_MAX};

	if (!unlinkat(dir, name, 0))
		_exit(0);
	if (errno != EISDIR)
		_exit(errno);
	/* What failed on the way does not count once the tree is gone. */
	_exit(remove_directory(&removal, dir, name) ? 0 : removal.error);
}

pid_t files_remove_tree(const struct user *user, const char *path, struct err *e)
{
	char name[NAME_MAX + 1];
	struct rights saved;
	int dir, code = rights_take(user, &saved, e);
	pid_t pid;

	if (code)
		return code;
	dir = find_tree(path, name);
	rights_return(&saved);
	if (dir < 0)
		return err_set(e, -dir, "remove", "cannot remove '%s'", path);
	pid = trees_fork(user, dir, dir, &code);
	if (!pid) {
		if (code)
			_exit(-code);
		remove_tree(dir, name);
	}
	code = pid < 0 ? err_set(e, errno, "remove", "cannot start a process") : 0;
	close(dir);
	return code ? code : pid;
}

static _Noreturn void fill(int to, int from)
{
	static char block[1 << 16];

	for (;;) {
		ssize_t got = read(from, block, sizeof block), done = 0;

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			_exit(got ? errno : 0);
		while (done < got) {
			ssize_t put = write(to, block + done, (size_t)(got - done));

			if (put < 0 && errno != EINTR)
				_exit(errno);
			done += put > 0 ? put : 0;
		}
	}
}

pid_t files_fill(const struct user *user, int to, int from, struct err *e)
{
	int code;
	pid_t pid = trees_fork(user, to, from, &code);

	if (!pid) {
		if (code)
			_exit(-code);
		fill(to, from);
	}
	return pid < 0 ? err_set(e, errno, "fill", "cannot start a process") : pid;
}
