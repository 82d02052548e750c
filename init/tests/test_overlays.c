#define _GNU_SOURCE
#include "overlays.h"

#include <dirent.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "kernel.h"
#include "places.h"
#include "setup.h"

#define OWNER 70000

static struct err e;

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	need(dir != NULL, "opendir");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static int clone_of(const char *path)
{
	int fd = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	need(fd >= 0, path);
	return fd;
}

static bool is_overlay(const char *path)
{
	struct statfs filesystem;

	return !statfs(path, &filesystem) && filesystem.f_type == OVERLAYFS_SUPER_MAGIC;
}

static bool owned_by(const char *path, uid_t owner)
{
	struct stat facts;

	return !stat(path, &facts) && facts.st_uid == owner && facts.st_gid == owner;
}

static bool has_text(const char *path, const char *text)
{
	const char *found = file_text(path);

	return found && !strcmp(found, text);
}

/* An overlay at one path; what is done in it is in the tmpfs, and nowhere else. */
static int write_in(const char *root)
{
	char path[2 * PATH_MAX];

	snprintf(path, sizeof path, "%s/old", root);
	if (!is_overlay(root) || !owned_by(root, OWNER) || !has_text(path, "old"))
		return 1;
	file_make(path, "new", 0644);
	if (!has_text(path, "new") || !has_text(at("lower/old"), "old"))
		return 2;
	/* A directory that replaces one of below must not show what that had: the mark is an attribute that tmpfs keeps. */
	snprintf(path, sizeof path, "%s/d/inside", root);
	if (unlink(path) < 0)
		return 3;
	snprintf(path, sizeof path, "%s/d", root);
	if (rmdir(path) < 0 || mkdir(path, 0755) < 0)
		return 4;
	snprintf(path, sizeof path, "%s/d/inside", root);
	return is_there(path) || !is_there(at("lower/d/inside")) ? 5 : 0;
}

static int make_both(struct overlays *overlays, int *first, int *second)
{
	int lower = clone_of(at("lower"));

	*first = overlays_mount(overlays, lower, OWNER, 0, &e);
	close(lower);
	lower = clone_of(at("lower"));
	*second = overlays_mount(overlays, lower, OWNER, MOUNT_ATTR_RDONLY, &e);
	close(lower);
	return *first < 0 || *second < 0 || overlays->count != 2;
}

/* In a child with mounts of its own, in the stage; returns the number of the check that failed. */
static int two_overlays(void *context)
{
	struct overlays overlays;
	int before, tmpfs, moved, first, second, code;

	(void)context;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(at("stage")) < 0)
		return 77;
	before = open_descriptors();
	tmpfs = setup_tmpfs("size=1m,mode=0755", 0, &e);
	if (tmpfs < 0 || overlays_begin(&overlays, tmpfs, &e) || make_both(&overlays, &first, &second))
		return 1;
	moved = overlays_end(&overlays, &e);
	close(tmpfs);
	if (moved < 0 || is_there(at("stage/u0"))) /* nothing stays attached where it was made */
		return 2;
	if (sys_move_mount(first, "", AT_FDCWD, at("root"), MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    sys_move_mount(second, "", AT_FDCWD, at("other"), MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    sys_move_mount(moved, "", AT_FDCWD, at("upper"), MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return 3;
	code = write_in(at("root"));
	if (code)
		return 10 + code;
	/* The other one has a directory of its own, and takes nothing. */
	if (!has_text(at("other/old"), "old") || open(at("other/x"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0)
		return 4;
	if (!has_text(at("upper/u0/old"), "new") || is_there(at("upper/u1/old")) || !owned_by(at("upper/u0"), OWNER))
		return 5;
	close(first);
	close(second);
	close(moved);
	return open_descriptors() == before ? 0 : 6;
}

/* What fails leaves no descriptor and no overlay in the count, and the tmpfs can be taken back. */
static int failures(void *context)
{
	struct overlays overlays;
	int before, tmpfs, plain, moved;

	(void)context;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(at("stage")) < 0)
		return 77;
	plain = open(at("lower"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	before = open_descriptors();
	if (overlays_begin(&overlays, -1, &e) != -EBADF || overlays.tmpfs != -1)
		return 1;
	if (overlays_begin(&overlays, plain, &e) >= 0 || overlays.tmpfs != -1) /* a directory, and no mount */
		return 2;
	tmpfs = setup_tmpfs("size=64k,mode=0755", 0, &e);
	if (tmpfs < 0 || overlays_begin(&overlays, tmpfs, &e))
		return 3;
	if (overlays_mount(&overlays, -1, OWNER, 0, &e) != -EBADF || overlays.count)
		return 4;
	if (strcmp(e.stage, "overlay") || !strstr(e.text, "overlay 0"))
		return 5;
	moved = overlays_end(&overlays, &e);
	if (moved < 0 || overlays_end(&overlays, &e) >= 0) /* it is attached nowhere any more */
		return 6;
	close(moved);
	close(tmpfs);
	return open_descriptors() == before ? 0 : 7;
}

int main(void)
{
	static const char works[] = "two overlays of one tmpfs are made on a stage, used elsewhere, and are apart";
	static const char fails[] = "what cannot be mounted is refused and leaves nothing";

	if (geteuid()) {
		skip(works, "needs root");
		skip(fails, "needs root");
		return tap_end();
	}
	place_make();
	directory_make(at("stage"), 0755);
	directory_make(at("root"), 0755);
	directory_make(at("other"), 0755);
	directory_make(at("upper"), 0755);
	directory_make(at("lower"), 0755);
	directory_make(at("lower/d"), 0755);
	file_make(at("lower/old"), "old", 0644);
	file_make(at("lower/d/inside"), "", 0644);
	need(!chown(at("lower"), OWNER, OWNER), "chown");
	is(in_child(two_overlays, NULL), 0, works);
	is(in_child(failures, NULL), 0, fails);
	place_remove();
	return tap_end();
}
