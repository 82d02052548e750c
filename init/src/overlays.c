#define _GNU_SOURCE
#include "overlays.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"

int overlays_begin(struct overlays *overlays, int tmpfs, struct err *e)
{
	*overlays = (struct overlays){.tmpfs = -1};
	if (sys_move_mount(tmpfs, "", AT_FDCWD, ".", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_set(e, errno, "overlay", "cannot attach a tmpfs to the stage");
	overlays->tmpfs = tmpfs;
	return 0;
}

static int make_directory(int dir, char kind, unsigned number, mode_t mode, uid_t owner)
{
	char name[16];

	snprintf(name, sizeof name, "%c%u", kind, number);
	if (mkdirat(dir, name, mode) < 0 || fchownat(dir, name, owner, owner, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int set_directory(int context, const char *key, const struct overlays *overlays)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d/%c%u", overlays->tmpfs, key[0], overlays->count);
	return sys_fsconfig(context, FSCONFIG_SET_STRING, key, path) < 0 ? -errno : 0;
}

static int make_overlay(const struct overlays *overlays, unsigned attributes)
{
	static const char *const keys[] = {"lowerdir", "upperdir", "workdir"}; /* l<n>, u<n>, w<n> */
	int context = sys_fsopen("overlay", FSOPEN_CLOEXEC), fd = -1, code = 0;

	if (context < 0)
		return -errno;
	for (size_t i = 0; i < sizeof keys / sizeof *keys && !code; i++)
		code = set_directory(context, keys[i], overlays);
	if (!code && (sys_fsconfig(context, FSCONFIG_SET_STRING, "source", "overlay") < 0 ||
		      sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0 ||
		      (fd = sys_fsmount(context, FSMOUNT_CLOEXEC, attributes)) < 0))
		code = -errno;
	close(context);
	return code ? code : fd;
}

int overlays_mount(struct overlays *overlays, int lower, uid_t owner, unsigned attributes, struct err *e)
{
	unsigned number = overlays->count;
	char name[16];
	int fd, code = make_directory(overlays->tmpfs, 'l', number, 0755, owner);

	if (!code)
		code = make_directory(overlays->tmpfs, 'u', number, 0755, owner);
	if (!code)
		code = make_directory(overlays->tmpfs, 'w', number, 0700, owner);
	snprintf(name, sizeof name, "l%u", number);
	if (!code && sys_move_mount(lower, "", overlays->tmpfs, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		code = -errno;
	if (code)
		return err_set(e, -code, "overlay", "cannot prepare overlay %u", number);
	fd = make_overlay(overlays, attributes);
	if (fd < 0)
		return err_set(e, -fd, "overlay", "cannot mount overlay %u", number);
	overlays->count++;
	return fd;
}

int overlays_end(const struct overlays *overlays, struct err *e)
{
	int fd = sys_open_tree(overlays->tmpfs, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	int code = fd < 0 ? errno : 0;
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", overlays->tmpfs);
	if (umount2(path, MNT_DETACH) < 0 && !code)
		code = errno;
	if (!code)
		return fd;
	if (fd >= 0)
		close(fd);
	return err_set(e, code, "overlay", "cannot take the tmpfs from the stage");
}
