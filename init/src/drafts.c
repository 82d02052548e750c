/* Files that are written before they have a name, and take it when they are whole: there is nothing that could stay behind
 * half done, and nothing that somebody else who may write the directory could put in their place. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "paths.h"
#include "rights.h"

/* Names that are tried; they are random, so the second is used never. */
#define NAMES_MAX 8
#define NAME_ROOM 32

static int make_draft(const char *path, mode_t mode)
{
	const char *last;
	int fd, dir = paths_open_parent(path, true, &last);

	if (dir < 0)
		return dir;
	fd = paths_open(dir, ".", O_TMPFILE | O_WRONLY, mode);
	close(dir);
	return fd;
}

int files_draft(const struct user *user, const char *path, mode_t mode, struct err *e)
{
	struct rights saved;
	int fd, code = rights_take(user, &saved, e);

	if (code)
		return code;
	fd = make_draft(path, mode);
	rights_return(&saved);
	return fd < 0 ? err_set(e, -fd, "draft", "cannot make '%s'", path) : fd;
}

/* No call gives a file a name that is taken, but a rename takes one over: so the file has a name of its own for the
 * moment between the two. */
static int replace(int links, const char *link, int dir, const char *last)
{
	char name[NAME_ROOM];
	int code = -EEXIST;

	for (int i = 0; code == -EEXIST && i < NAMES_MAX; i++) {
		uint64_t number;

		if (getrandom(&number, sizeof number, 0) != sizeof number)
			return -errno;
		snprintf(name, sizeof name, ".traforo-%016llx", (unsigned long long)number);
		code = linkat(links, link, dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	}
	if (!code && renameat(dir, name, dir, last) < 0) {
		code = -errno;
		unlinkat(dir, name, 0);
	}
	return code;
}

/* Who replaces another's file gives the new one its owner. Where the name leads elsewhere by now, as through a link that
 * this owner has put there meanwhile, that would make him the owner of what is not his. */
static int check_owner(int fd, int dir, const char *last)
{
	struct stat new, old;

	if (fstat(fd, &new) < 0)
		return -errno;
	if (new.st_uid == (uid_t)setfsuid((uid_t)-1))
		return 0;
	if (fstatat(dir, last, &old, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	return S_ISREG(old.st_mode) && old.st_uid == new.st_uid && old.st_gid == new.st_gid ? 0 : -ESTALE;
}

static int place_one(int fd, const char *path, bool exclusive)
{
	const char *last;
	char link[16];
	int links, code, dir = paths_open_parent(path, false, &last);

	if (dir < 0)
		return dir;
	links = check_owner(fd, dir, last);
	if (!links)
		links = files_link_to(fd, link);
	if (links < 0)
		code = links;
	else if (exclusive)
		code = linkat(links, link, dir, last, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	else
		code = replace(links, link, dir, last);
	if (links >= 0)
		close(links);
	close(dir);
	return code;
}

int files_place(const struct user *user, int fd, const char *path, bool exclusive, struct err *e)
{
	struct rights saved;
	int code = rights_take(user, &saved, e);

	if (code)
		return code;
	code = place_one(fd, path, exclusive);
	rights_return(&saved);
	return code ? err_set(e, -code, "place", "cannot name a file '%s'", path) : 0;
}
