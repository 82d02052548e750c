#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"

#define PARENT_MODE 0755
#define SECOND_NS 1000000000

int paths_open(int dir, const char *path, int flags, mode_t mode)
{
	struct kernel_open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		/* openat2 refuses a mode that has no use */
		.mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? mode & 07777 : 0,
		.resolve = RESOLVE_NO_MAGICLINKS,
	};
	int fd = sys_openat2(dir, path, &how);

	return fd < 0 ? -errno : fd;
}

int paths_open_below(int dir, const char *path)
{
	struct kernel_open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	int fd = sys_openat2(dir, path, &how);

	return fd < 0 ? -errno : fd;
}

/* Enters one directory, made if it is missing. Links are followed, as everywhere on the way to a file: in most images
 * /bin, /lib and /var/run are links. */
static int enter(int dir, const char *name)
{
	int fd = paths_open(dir, name, O_PATH | O_DIRECTORY, 0);
	bool there;

	if (fd != -ENOENT)
		return fd;
	there = mkdirat(dir, name, PARENT_MODE) < 0;
	if (there && errno != EEXIST)
		return -errno;
	fd = paths_open(dir, name, O_PATH | O_DIRECTORY, 0);
	return there && fd == -ENOENT ? -EEXIST : fd; /* a link to nowhere */
}

/* Enters an absolute path that ends with a slash, which this takes apart. */
static int enter_all(char *path)
{
	int dir = paths_open(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
	char *name = path + 1, *slash;

	while (dir >= 0 && (slash = strchr(name, '/'))) {
		*slash = 0;
		if (slash > name) {
			int next = enter(dir, name);

			close(dir);
			dir = next;
		}
		name = slash + 1;
	}
	return dir;
}

int paths_open_parent(const char *path, bool make, const char **last)
{
	size_t end = strnlen(path, PATH_MAX), start;
	char parent[PATH_MAX];
	int fd;

	if (end == PATH_MAX)
		return -ENAMETOOLONG;
	if (path[0] != '/')
		return -EINVAL;
	while (end && path[end - 1] == '/')
		end--;
	if (!end)
		return -EBUSY;
	for (start = end; path[start - 1] != '/'; start--)
		;
	*last = path + start;
	memcpy(parent, path, start);
	parent[start] = 0;
	fd = paths_open(AT_FDCWD, parent, O_PATH | O_DIRECTORY, 0);
	return fd == -ENOENT && make ? enter_all(parent) : fd;
}

/* Times are whatever the owner of a file set them to, which may be more than nanoseconds can count. */
static int64_t nanoseconds(const struct timespec *time)
{
	int64_t value;

	if (__builtin_mul_overflow((int64_t)time->tv_sec, SECOND_NS, &value) ||
	    __builtin_add_overflow(value, (int64_t)time->tv_nsec, &value))
		return time->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return value;
}

void paths_record(const struct stat *facts, struct file_record *record)
{
	*record = (struct file_record){
		.mode = facts->st_mode,
		.size = (uint64_t)facts->st_size,
		.modified_ns = nanoseconds(&facts->st_mtim),
		.uid = facts->st_uid,
		.gid = facts->st_gid,
		.inode = S_ISREG(facts->st_mode) ? facts->st_ino : 0,
	};
}
