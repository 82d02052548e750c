/* What can be said of a file without opening it: its owner, bits, time and names.
 *
 * A path is resolved once, without magic links, and what it led to is changed by descriptor: the calls that take a name
 * would follow any link that somebody puts there meanwhile, those into the init's own descriptors too. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"
#include "paths.h"
#include "rights.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define SECOND_NS 1000000000

int files_link_to(int fd, char name[16])
{
	int dir = paths_open(AT_FDCWD, "/proc/self/fd", O_PATH | O_DIRECTORY, 0);

	if (dir < 0)
		return dir;
	snprintf(name, 16, "%d", fd);
	if (files_kernel_magic(dir) == PROC_SUPER_MAGIC)
		return dir;
	close(dir);
	return -ENOSYS;
}

static int change_mode(int fd, mode_t mode)
{
	char name[16];
	int dir, code = 0;

	if (!syscall(SYS_fchmodat2, fd, "", mode & 07777, AT_EMPTY_PATH))
		return 0;
	if (errno != ENOSYS) /* before Linux 6.6 */
		return -errno;
	dir = files_link_to(fd, name);
	if (dir < 0)
		return dir;
	if (fchmodat(dir, name, mode & 07777, 0) < 0)
		code = -errno;
	close(dir);
	return code;
}

static int change_time(int fd, int64_t modified_ns, bool is_link)
{
	int64_t seconds = modified_ns / SECOND_NS, rest = modified_ns % SECOND_NS;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
	char name[16];
	int dir, code = 0;

	if (rest < 0) {
		rest += SECOND_NS;
		seconds--;
	}
	times[1].tv_sec = seconds;
	times[1].tv_nsec = rest;
	if (!syscall(SYS_utimensat, fd, "", times, AT_EMPTY_PATH))
		return 0;
	if (errno != EINVAL || is_link) /* before Linux 5.8 */
		return -errno;
	dir = files_link_to(fd, name);
	if (dir < 0)
		return dir;
	if (utimensat(dir, name, times, 0) < 0)
		code = -errno;
	close(dir);
	return code;
}

/* The owner first: that takes the set-id bits away, which may be among those that are wanted. */
static int apply(int fd, const struct file_change *change)
{
	struct stat facts;
	int code = 0;

	if (fstat(fd, &facts) < 0)
		return -errno;
	if (files_kernel_magic(fd))
		return -EACCES;
	if (change->mode_given && S_ISLNK(facts.st_mode))
		return -EOPNOTSUPP;
	if ((change->uid_given || change->gid_given) &&
	    fchownat(fd, "", change->uid_given ? change->uid : (uid_t)-1, change->gid_given ? change->gid : (gid_t)-1,
		     AT_EMPTY_PATH) < 0)
		return -errno;
	if (change->mode_given)
		code = change_mode(fd, change->mode);
	if (!code && change->modified_given)
		code = change_time(fd, change->modified_ns, S_ISLNK(facts.st_mode));
	return code;
}

int files_change(const struct user *user, const char *path, bool follow, const struct file_change *change, struct err *e)
{
	struct rights saved;
	int fd, code = rights_take(user, &saved, e);

	if (code)
		return code;
	fd = paths_open(AT_FDCWD, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	code = fd < 0 ? fd : apply(fd, change);
	if (fd >= 0)
		close(fd);
	rights_return(&saved);
	return code ? err_set(e, -code, "change", "cannot change '%s'", path) : 0;
}

int files_change_below(const struct user *user, const char *path, bool follow, const char *below,
		       const struct file_change *change, struct err *e)
{
	struct rights saved;
	int dir, fd = -1, code = rights_take(user, &saved, e);

	if (code)
		return code;
	dir = paths_open(AT_FDCWD, path, O_PATH | O_DIRECTORY | (follow ? 0 : O_NOFOLLOW), 0);
	if (dir >= 0) {
		fd = paths_open_below(dir, below);
		close(dir);
	}
	code = dir < 0 ? dir : fd < 0 ? fd : apply(fd, change);
	if (fd >= 0)
		close(fd);
	rights_return(&saved);
	return code ? err_set(e, -code, "change", "cannot change '%.100s' below '%.100s'", below, path) : 0;
}

int files_change_open(const struct user *user, int fd, const struct file_change *change, struct err *e)
{
	struct rights saved;
	int code = rights_take(user, &saved, e);

	if (code)
		return code;
	code = apply(fd, change);
	rights_return(&saved);
	return code ? err_set(e, -code, "change", "cannot change an open file") : 0;
}

int files_symlink(const struct user *user, const char *target, const char *path, struct err *e)
{
	struct rights saved;
	const char *last;
	int dir, code = rights_take(user, &saved, e);

	if (code)
		return code;
	dir = paths_open_parent(path, false, &last);
	code = dir < 0 ? dir : symlinkat(target, dir, last) < 0 ? -errno : 0;
	if (dir >= 0)
		close(dir);
	rights_return(&saved);
	return code ? err_set(e, code == -EBUSY ? EEXIST : -code, "symlink", "cannot make the link '%s'", path) : 0;
}

static int link_one(const char *path, const char *to)
{
	const char *last, *to_last;
	int code = 0, to_dir, dir = paths_open_parent(path, false, &last);

	if (dir < 0)
		return dir == -EBUSY ? -EPERM : dir;
	to_dir = paths_open_parent(to, false, &to_last);
	if (to_dir < 0)
		code = to_dir == -EBUSY ? -EEXIST : to_dir;
	else if (linkat(dir, last, to_dir, to_last, 0) < 0)
		code = -errno;
	close(dir);
	if (to_dir >= 0)
		close(to_dir);
	return code;
}

int files_link(const struct user *user, const char *path, const char *to, struct err *e)
{
	struct rights saved;
	int code = rights_take(user, &saved, e);

	if (code)
		return code;
	code = link_one(path, to);
	rights_return(&saved);
	return code ? err_set(e, -code, "link", "cannot link '%.100s' as '%.100s'", path, to) : 0;
}
