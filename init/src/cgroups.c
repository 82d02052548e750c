#define _GNU_SOURCE
#include "cgroups.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cgroups_parse(struct msg_reader fields, struct cgroup *cgroup, struct err *e)
{
	struct msg_field field;
	const char *path = NULL, *oom_file = "";
	bool good = true;
	int more;

	*cgroup = (struct cgroup){0};
	while ((more = msg_next(&fields, &field)) > 0) {
		switch (field.tag) {
		case T_PATH: good = (path = msg_string(&field)) && good; break;
		case T_KIND: good = good && msg_number(&field, &cgroup->kind); break;
		case T_NAME: good = (oom_file = msg_string(&field)) && good; break;
		case T_SETTING: break;
		default: good = false;
		}
	}
	if (more < 0 || !good || !path || strlen(path) >= sizeof cgroup->path ||
	    strlen(oom_file) >= sizeof cgroup->oom_file || (cgroup->kind != CGROUP_V1 && cgroup->kind != CGROUP_V2))
		return err_set(e, EBADMSG, "cgroup", "malformed cgroup");
	strcpy(cgroup->path, path);
	strcpy(cgroup->oom_file, oom_file);
	return 0;
}

static int write_setting(int dir, const char *name, const char *value)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	int code = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		code = -errno;
	close(fd);
	return code;
}

static int write_settings(const struct cgroup *cgroup, int dir, struct msg_reader fields, struct err *e)
{
	struct msg_field field;

	while (msg_next(&fields, &field) > 0) {
		struct msg_reader inner;
		struct msg_field part;
		const char *name = NULL, *value = NULL;
		int code, more;

		if (field.tag != T_SETTING)
			continue;
		inner = msg_nested(&field);
		while ((more = msg_next(&inner, &part)) > 0) {
			if (part.tag == T_NAME)
				name = msg_string(&part);
			else if (part.tag == T_VALUE)
				value = msg_string(&part);
		}
		if (more < 0 || !name || !value || strchr(name, '/'))
			return err_set(e, EBADMSG, "cgroup", "malformed setting");
		code = write_setting(dir, name, value);
		if (code)
			return err_set(e, -code, "cgroup", "cannot write '%s' to '%s/%s'", value, cgroup->path, name);
	}
	return 0;
}

static void ahead_path(char *path, size_t size, const char *parent, unsigned number)
{
	snprintf(path, size, "%s/ahead.%u", parent, number);
}

/* Returns the place of a parent directory, a new one where it is not known yet; -1 when there is no room. */
static int place_of(struct cgroups_ahead *ahead, const char *path)
{
	size_t length = (size_t)(strrchr(path, '/') - path);

	for (size_t i = 0; i < ahead->count; i++)
		if (strlen(ahead->list[i].parent) == length && !memcmp(ahead->list[i].parent, path, length))
			return (int)i;
	if (ahead->count == CGROUPS_MAX)
		return -1;
	memcpy(ahead->list[ahead->count].parent, path, length);
	ahead->list[ahead->count].parent[length] = 0;
	return (int)ahead->count++;
}

/* Whoever removed one meanwhile, a worker that tidies up, does no harm: the next one is tried. */
static bool take_ahead(struct cgroups_ahead *ahead, const char *path)
{
	char from[CGROUP_PATH_MAX + 24];
	int place = strchr(path, '/') ? place_of(ahead, path) : -1;

	while (place >= 0 && ahead->list[place].used < ahead->list[place].made) {
		ahead_path(from, sizeof from, ahead->list[place].parent, ahead->list[place].used++);
		if (!rename(from, path))
			return true;
	}
	return false;
}

bool cgroups_wanted(const struct cgroups_ahead *ahead)
{
	for (size_t i = 0; i < ahead->count; i++)
		if (ahead->list[i].made - ahead->list[i].used < CGROUPS_AHEAD)
			return true;
	return false;
}

void cgroups_refill(struct cgroups_ahead *ahead)
{
	char path[CGROUP_PATH_MAX + 24];

	for (size_t i = 0; i < ahead->count; i++) {
		if (ahead->list[i].made - ahead->list[i].used >= CGROUPS_AHEAD)
			continue;
		ahead_path(path, sizeof path, ahead->list[i].parent, ahead->list[i].made);
		if (!mkdir(path, 0755) || errno == EEXIST)
			ahead->list[i].made++;
		else
			ahead->list[i] = ahead->list[--ahead->count];
		return;
	}
}

int cgroups_make(const struct cgroup *cgroup, struct msg_reader fields, uid_t owner, struct cgroups_ahead *ahead,
		 struct err *e)
{
	int dir, code;

	if (!(cgroup->kind == CGROUP_V1 && take_ahead(ahead, cgroup->path)) && mkdir(cgroup->path, 0755) < 0)
		return err_set(e, errno, "cgroup", "cannot make '%s'", cgroup->path);
	dir = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		code = err_set(e, errno, "cgroup", "cannot open '%s'", cgroup->path);
		goto remove;
	}
	code = write_settings(cgroup, dir, fields, e);
	/* The init makes one cgroup per exec below its own: it needs the directory and the file that moves processes. */
	if (!code && cgroup->kind == CGROUP_V2 && owner != (uid_t)-1 &&
	    (fchownat(dir, "", owner, owner, AT_EMPTY_PATH) < 0 || fchownat(dir, "cgroup.procs", owner, owner, 0) < 0))
		code = err_set(e, errno, "cgroup", "cannot give away '%s'", cgroup->path);
	close(dir);
	if (!code)
		return 0;
remove:
	rmdir(cgroup->path);
	return code;
}

uint64_t cgroups_oom_kills(const struct cgroups *cgroups)
{
	for (size_t i = 0; i < cgroups->count; i++) {
		char path[CGROUP_PATH_MAX + 40], text[1024], *found;
		ssize_t length;
		int fd;

		if (!cgroups->list[i].oom_file[0])
			continue;
		snprintf(path, sizeof path, "%s/%s", cgroups->list[i].path, cgroups->list[i].oom_file);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		length = read(fd, text, sizeof text - 1);
		close(fd);
		if (length <= 0)
			continue;
		text[length] = 0;
		/* v1 memory.oom_control and v2 memory.events both have a line "oom_kill N". */
		found = strstr(text, "oom_kill ");
		if (found && (found == text || found[-1] == '\n'))
			return strtoull(found + strlen("oom_kill "), NULL, 10);
	}
	return 0;
}

/* Removes the directories below, one level: the cgroups of execs. */
static void remove_children(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	closedir(dir);
}

int cgroups_remove(const struct cgroups *cgroups, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < cgroups->count; i++) {
		const struct cgroup *cgroup = &cgroups->list[i];

		if (!rmdir(cgroup->path) || errno == ENOENT)
			continue;
		if (cgroup->kind == CGROUP_V2) {
			int dir = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (dir >= 0) {
				write_setting(dir, "cgroup.kill", "1");
				close(dir);
			}
			remove_children(cgroup->path);
		}
		if (rmdir(cgroup->path) < 0 && errno != ENOENT)
			result = err_set(e, errno, "cgroup", "cannot remove '%s'", cgroup->path);
	}
	return result;
}
