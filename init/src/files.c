/* One file at a time. Whatever is opened here crosses to the worker, which has other rights than the sandbox; so only
 * regular files cross, and of those that the kernel makes up on reading (procfs and its kin) only a copy: their text
 * may depend on who reads, and must not depend on the worker. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "paths.h"
#include "rights.h"

#define OPEN_FLAGS (O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_APPEND)
#define COPY_MAX ((size_t)4 << 20)
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1U
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int check_path(const char *path, const char *stage, struct err *e)
{
	if (path[0] != '/')
		return err_set(e, EINVAL, stage, "'%.200s' is not absolute", path);
	if (strnlen(path, PATH_MAX) == PATH_MAX)
		return err_set(e, ENAMETOOLONG, stage, "the path is longer than %d bytes", PATH_MAX - 1);
	return 0;
}

long files_kernel_magic(int fd)
{
	static const long magics[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};
	struct statfs filesystem;

	if (fstatfs(fd, &filesystem) < 0)
		return 0;
	for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
		if ((long)filesystem.f_type == magics[i])
			return magics[i];
	return 0;
}

/* The path that a descriptor was reached by, told by the kernel; false if /proc is not procfs. */
static bool path_of(int fd, char path[PATH_MAX])
{
	int dir = paths_open(AT_FDCWD, "/proc/self/fd", O_PATH | O_DIRECTORY, 0);
	ssize_t length = -1;
	char name[16];

	if (dir < 0)
		return false;
	snprintf(name, sizeof name, "%d", fd);
	if (files_kernel_magic(dir) == PROC_SUPER_MAGIC)
		length = readlinkat(dir, name, path, PATH_MAX - 1);
	close(dir);
	if (length < 0)
		return false;
	path[length] = 0;
	return true;
}

/* Says whether a file of procfs belongs to a process. Those are refused: the kernel decides on most of them by
 * comparing the target with the caller, and the caller is the init, for whom /proc/self and /proc/1 are always open:
 * `mem` holds what all users' commands were started with. A command that reads them is judged by its own rights. Not
 * refused are the two things that are links into the reader's own directory and tell nothing of it: /proc/mounts and
 * /proc/net. */
static bool belongs_to_process(int fd)
{
	static const char root[] = "/proc/";
	char path[PATH_MAX], *name = path + sizeof root - 1, *rest;

	if (!path_of(fd, path) || strncmp(path, root, sizeof root - 1))
		return true; /* not where procfs belongs: nothing is known about it */
	rest = name + strspn(name, "0123456789");
	if (rest == name || (*rest && *rest != '/'))
		return false;
	return strcmp(rest, "/mounts") && strncmp(rest, "/net/", 5);
}

static int copy_text(int from, int to)
{
	char buffer[16384];
	size_t total = 0;

	for (;;) {
		ssize_t got = read(from, buffer, sizeof buffer);

		if (got < 0 && errno == EINTR)
			continue;
		if (!got || (got < 0 && errno == EAGAIN))
			return 0;
		if (got < 0)
			return -errno;
		total += (size_t)got;
		if (total > COPY_MAX)
			return -EFBIG;
		if (write(to, buffer, (size_t)got) != got)
			return -ENOMEM;
	}
}

/* Returns a sealed copy of an interface of the kernel. It has the true size, which the original does not tell. */
static int copy_of(int fd)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int copy = memfd_create("file", flags | MFD_NOEXEC_SEAL), code;

	if (copy < 0 && errno == EINVAL) /* before Linux 6.3 */
		copy = memfd_create("file", flags);
	if (copy < 0)
		return -errno;
	code = copy_text(fd, copy);
	if (!code && (lseek(copy, 0, SEEK_SET) < 0 ||
		      fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0))
		code = -errno;
	if (!code)
		return copy;
	close(copy);
	return code;
}

static int check_regular(int fd)
{
	struct stat facts;

	if (fstat(fd, &facts) < 0)
		return -errno;
	if (S_ISDIR(facts.st_mode))
		return -EISDIR;
	return S_ISREG(facts.st_mode) ? 0 : -EINVAL;
}

/* Looks at a file without opening it: opening is an act on a FIFO, whose writer would wake up to nobody, and on
 * devices. Something else may stand there a moment later; then the act is done, but nothing waits for it. */
static int check_before(const char *path)
{
	int fd = paths_open(AT_FDCWD, path, O_PATH, 0), code;

	if (fd < 0)
		return 0; /* opening it will say what is wrong */
	code = check_regular(fd);
	close(fd);
	return code;
}

/* Opens without O_TRUNC: what is emptied must be known to be a file first. */
static int open_checked(const char *path, int flags, mode_t mode)
{
	const int quiet = O_NONBLOCK | O_NOCTTY;
	const char *last;
	int dir, fd, code = flags & O_EXCL ? 0 : check_before(path);

	flags &= ~O_TRUNC;
	if (code)
		return code;
	fd = paths_open(AT_FDCWD, path, flags | quiet, mode);
	if (fd == -ENOENT && (flags & O_CREAT)) {
		dir = paths_open_parent(path, true, &last);
		if (dir < 0)
			return dir;
		fd = paths_open(dir, last, flags | quiet, mode);
		close(dir);
	}
	return fd == -ENXIO ? -EINVAL : fd; /* a FIFO without a reader, a socket, a device without a driver */
}

/* Decides on an opened file. Returns it, or a copy, or a negative errno; what is not returned is closed. */
static int admit(int fd, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	long magic = files_kernel_magic(fd);
	int code = check_regular(fd);

	if (!code && magic) {
		if (writes || (magic == PROC_SUPER_MAGIC && belongs_to_process(fd)))
			code = -EACCES;
		else
			code = copy_of(fd);
	} else if (!code) {
		if (!(flags & O_TRUNC) || !ftruncate(fd, 0))
			return fd;
		code = -errno;
	}
	close(fd);
	return code;
}

/* A user's write takes the set-id bits off a file, and the kernel sees to it; but these writes will be the worker's,
 * which may have the right to keep them. So they go now. */
static int drop_set_ids(int fd)
{
	struct stat facts;
	mode_t bits;

	if (fstat(fd, &facts) < 0)
		return -errno;
	bits = facts.st_mode & (S_ISUID | (facts.st_mode & S_IXGRP ? S_ISGID : 0));
	return bits && fchmod(fd, facts.st_mode & 07777 & ~bits) < 0 ? -errno : 0;
}

int files_open(const struct user *user, const char *path, int flags, mode_t mode, struct err *e)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	struct rights saved;
	int fd, code = check_path(path, "open", e);

	flags &= OPEN_FLAGS;
	if (!code && ((flags & O_ACCMODE) == O_ACCMODE || (!writes && (flags & O_TRUNC))))
		code = err_set(e, EINVAL, "open", "flags %#o make no sense", (unsigned)flags);
	if (!code)
		code = rights_take(user, &saved, e);
	if (code)
		return code;
	fd = open_checked(path, flags, mode);
	if (fd >= 0)
		fd = admit(fd, flags);
	rights_return(&saved);
	if (fd >= 0 && writes && user->uid && (code = drop_set_ids(fd))) {
		close(fd);
		fd = code;
	}
	return fd < 0 ? err_set(e, -fd, "open", "cannot open '%s'", path) : fd;
}

static int describe(int fd, struct file_record *record, char *target)
{
	struct stat facts;
	ssize_t length = 0;

	if (fstat(fd, &facts) < 0)
		return -errno;
	paths_record(&facts, record);
	if (files_kernel_magic(fd))
		record->inode = 0; /* what is opened is a copy */
	/* The links of a process in procfs lead to its descriptors; those of the init are nobody's business. */
	if (S_ISLNK(facts.st_mode) && !(files_kernel_magic(fd) == PROC_SUPER_MAGIC && belongs_to_process(fd)))
		length = readlinkat(fd, "", target, PATH_MAX);
	record->target_length = length > 0 ? (uint32_t)length : 0;
	return 0;
}

int files_stat(const struct user *user, const char *path, bool follow, struct file_record *record, char *target,
	       struct err *e)
{
	struct rights saved;
	int fd, code = check_path(path, "stat", e);

	if (!code)
		code = rights_take(user, &saved, e);
	if (code)
		return code;
	fd = paths_open(AT_FDCWD, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	if (fd >= 0) {
		code = describe(fd, record, target);
		close(fd);
	} else {
		code = fd;
	}
	rights_return(&saved);
	return code ? err_set(e, -code, "stat", "cannot look at '%s'", path) : 0;
}

static int make_directory(const char *path, mode_t mode, bool parents, bool *created)
{
	const char *last;
	int dir = paths_open_parent(path, parents, &last), code = 0;

	*created = false;
	if (dir < 0)
		return dir == -EBUSY ? 0 : dir; /* the root is there */
	*created = !mkdirat(dir, last, mode & 07777);
	if (!*created && errno != EEXIST)
		code = -errno;
	if (!*created && !code) {
		int fd = paths_open(dir, last, O_PATH | O_DIRECTORY, 0);

		if (fd >= 0)
			close(fd);
		else
			code = fd == -ENOTDIR || fd == -ENOENT ? -EEXIST : fd;
	}
	close(dir);
	return code;
}

int files_mkdir(const struct user *user, const char *path, mode_t mode, bool parents, bool *created, struct err *e)
{
	struct rights saved;
	int code = check_path(path, "mkdir", e);

	if (!code)
		code = rights_take(user, &saved, e);
	if (code)
		return code;
	code = make_directory(path, mode, parents, created);
	rights_return(&saved);
	return code ? err_set(e, -code, "mkdir", "cannot make directory '%s'", path) : 0;
}

static int remove_one(const char *path)
{
	const char *last;
	int dir = paths_open_parent(path, false, &last), code = 0;

	if (dir < 0)
		return dir;
	/* Linux tells a directory by EISDIR, where POSIX has EPERM. */
	if (unlinkat(dir, last, 0) < 0 && (errno != EISDIR || unlinkat(dir, last, AT_REMOVEDIR) < 0))
		code = -errno;
	close(dir);
	return code;
}

int files_remove(const struct user *user, const char *path, struct err *e)
{
	struct rights saved;
	int code = check_path(path, "remove", e);

	if (!code)
		code = rights_take(user, &saved, e);
	if (code)
		return code;
	code = remove_one(path);
	rights_return(&saved);
	return code ? err_set(e, -code, "remove", "cannot remove '%s'", path) : 0;
}

static int rename_one(const char *path, const char *to, bool exclusive)
{
	const char *last, *to_last;
	int code = 0, to_dir, dir = paths_open_parent(path, false, &last);

	if (dir < 0)
		return dir;
	to_dir = paths_open_parent(to, false, &to_last);
	if (to_dir < 0) {
		close(dir);
		return to_dir;
	}
	if (last - path == to_last - to && !memcmp(path, to, (size_t)(last - path))) {
		close(to_dir);
		to_dir = dir;
	}
	if (syscall(SYS_renameat2, dir, last, to_dir, to_last, exclusive ? RENAME_NOREPLACE : 0) < 0)
		code = -errno;
	close(dir);
	if (to_dir != dir)
		close(to_dir);
	return code;
}

int files_rename(const struct user *user, const char *path, const char *to, bool exclusive, struct err *e)
{
	struct rights saved;
	int code = check_path(path, "rename", e);

	if (!code)
		code = check_path(to, "rename", e);
	if (!code)
		code = rights_take(user, &saved, e);
	if (code)
		return code;
	code = rename_one(path, to, exclusive);
	rights_return(&saved);
	return code ? err_set(e, -code, "rename", "cannot rename '%.100s' to '%.100s'", path, to) : 0;
}
