#define _GNU_SOURCE
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel.h"

#define FILE_MAX ((size_t)1 << 20)
/* Sandboxes map ids 0 to 65534; 65534 itself is "nobody", and what lies outside shows as it. */
#define ID_LIMIT 65535u
#define FIELDS_MAX 7
#define DEFAULT_HOME "/"
#define DEFAULT_SHELL "/bin/sh"

/* A piece of a text, without NUL. */
struct slice {
	const char *at;
	size_t length;
};

/* passwd: name, password, uid, gid, comment, home, shell; group: name, password, gid, members */
enum { PASSWD_NAME, PASSWD_UID = 2, PASSWD_GID, PASSWD_HOME = 5, PASSWD_SHELL };
enum { GROUP_NAME, GROUP_GID = 2, GROUP_MEMBERS };

static bool same(struct slice a, struct slice b)
{
	return a.length == b.length && !memcmp(a.at, b.at, a.length);
}

/* Takes everything up to the next `end` off `rest` and says whether there was anything to take. */
static bool take(struct slice *rest, char end, struct slice *piece)
{
	const char *stop;

	if (!rest->at)
		return false;
	stop = rest->length ? memchr(rest->at, end, rest->length) : NULL;
	if (!stop) {
		*piece = *rest;
		*rest = (struct slice){NULL, 0};
		return true;
	}
	*piece = (struct slice){rest->at, (size_t)(stop - rest->at)};
	rest->length -= piece->length + 1;
	rest->at = stop + 1;
	return true;
}

static bool all_digits(struct slice text)
{
	for (size_t i = 0; i < text.length; i++)
		if (text.at[i] < '0' || text.at[i] > '9')
			return false;
	return text.length > 0;
}

static bool read_id(struct slice text, uint32_t *id)
{
	uint32_t value = 0;

	if (!all_digits(text))
		return false;
	for (size_t i = 0; i < text.length; i++) {
		value = value * 10 + (uint32_t)(text.at[i] - '0');
		if (value >= ID_LIMIT)
			return false;
	}
	*id = value;
	return true;
}

/* Splits the next line that a C program could mean; the rest of a line behind the last wanted field is let go.
 * Returns the number of fields, 0 at the end of the text. */
static size_t next_entry(struct slice *text, struct slice fields[FIELDS_MAX])
{
	struct slice line;

	while (take(text, '\n', &line)) {
		size_t count = 0;

		/* A NUL would end the text for some readers and not for others: whoever wrote it is up to something. */
		if (!line.length || memchr(line.at, 0, line.length))
			continue;
		while (count < FIELDS_MAX && take(&line, ':', &fields[count]))
			count++;
		if (fields[0].length && fields[0].length < USER_NAME_MAX)
			return count;
	}
	return 0;
}

/* Copies a path out of passwd, or the default if it is missing, relative or too long. */
static void copy_path(char *to, const struct slice *from, const char *otherwise)
{
	if (!from || !from->length || from->at[0] != '/' || from->length >= USER_PATH_MAX) {
		strcpy(to, otherwise);
		return;
	}
	memcpy(to, from->at, from->length);
	to[from->length] = 0;
}

/* Finds the user by number, if there is one, or by name. */
static bool find_passwd(struct slice passwd, struct slice name, const uint32_t *number, struct user *user)
{
	struct slice fields[FIELDS_MAX];
	size_t count;

	while ((count = next_entry(&passwd, fields))) {
		uint32_t uid, gid;

		if (count <= PASSWD_GID || !read_id(fields[PASSWD_UID], &uid) || !read_id(fields[PASSWD_GID], &gid))
			continue;
		if (number ? uid != *number : !same(fields[PASSWD_NAME], name))
			continue;
		user->uid = uid;
		user->gid = gid;
		memcpy(user->name, fields[PASSWD_NAME].at, fields[PASSWD_NAME].length);
		user->name[fields[PASSWD_NAME].length] = 0;
		copy_path(user->home, count > PASSWD_HOME ? &fields[PASSWD_HOME] : NULL, DEFAULT_HOME);
		copy_path(user->shell, count > PASSWD_SHELL ? &fields[PASSWD_SHELL] : NULL, DEFAULT_SHELL);
		return true;
	}
	return false;
}

static bool find_group(struct slice group, struct slice name, gid_t *gid)
{
	struct slice fields[FIELDS_MAX];
	size_t count;

	while ((count = next_entry(&group, fields))) {
		uint32_t number;

		if (count > GROUP_GID && same(fields[GROUP_NAME], name) && read_id(fields[GROUP_GID], &number)) {
			*gid = number;
			return true;
		}
	}
	return false;
}

static void add_group(struct user *user, gid_t gid)
{
	for (size_t i = 0; i < user->group_count; i++)
		if (user->groups[i] == gid)
			return;
	if (user->group_count < USER_GROUPS_MAX)
		user->groups[user->group_count++] = gid;
}

static void add_memberships(struct slice group, struct user *user)
{
	struct slice fields[FIELDS_MAX], name = {user->name, strlen(user->name)};
	size_t count;

	while (user->group_count < USER_GROUPS_MAX && (count = next_entry(&group, fields))) {
		struct slice member;
		uint32_t gid;

		if (count <= GROUP_MEMBERS || !read_id(fields[GROUP_GID], &gid))
			continue;
		while (take(&fields[GROUP_MEMBERS], ',', &member))
			if (same(member, name)) {
				add_group(user, gid);
				break;
			}
	}
}

/* A half of a spec: something that could stand in passwd, and not an option of somebody's command line. */
static bool sane_name(struct slice name)
{
	if (!name.length || name.length >= USER_NAME_MAX || name.at[0] == '-')
		return false;
	for (size_t i = 0; i < name.length; i++)
		if ((unsigned char)name.at[i] <= ' ' || name.at[i] == ':' || name.at[i] == '/' || name.at[i] == 127)
			return false;
	return true;
}

static int resolve_user(struct slice name, struct slice passwd, struct user *user, struct err *e)
{
	static const struct slice root = {"root", 4};
	uint32_t number;

	if (all_digits(name)) {
		if (!read_id(name, &number))
			return err_set(e, EINVAL, "user", "user '%.*s' is not below %u", (int)name.length, name.at,
				       ID_LIMIT);
		/* As with container engines: a number without an entry goes with group 0. */
		if (!find_passwd(passwd, name, &number, user))
			user->uid = number;
		return 0;
	}
	/* Images without a passwd still have a root: uid 0 is what the kernel means by it. */
	if (!find_passwd(passwd, name, NULL, user) && !same(name, root))
		return err_set(e, ENOENT, "user", "there is no user '%.*s'", (int)name.length, name.at);
	return 0;
}

static int resolve_group(struct slice name, struct slice group, struct user *user, struct err *e)
{
	uint32_t number;

	if (all_digits(name)) {
		if (!read_id(name, &number))
			return err_set(e, EINVAL, "user", "group '%.*s' is not below %u", (int)name.length, name.at,
				       ID_LIMIT);
		user->gid = number;
		return 0;
	}
	if (!find_group(group, name, &user->gid))
		return err_set(e, ENOENT, "user", "there is no group '%.*s'", (int)name.length, name.at);
	return 0;
}

int users_find_in(const char *spec, const char *passwd, size_t passwd_length, const char *group, size_t group_length,
		  struct user *user, struct err *e)
{
	struct slice rest = {spec, strnlen(spec, 2 * USER_NAME_MAX + 1)}, name, group_name;
	struct slice groups = {group_length ? group : NULL, group_length};
	struct slice users = {passwd_length ? passwd : NULL, passwd_length};
	bool grouped;
	int code;

	*user = (struct user){.home = DEFAULT_HOME, .shell = DEFAULT_SHELL};
	take(&rest, ':', &name);
	grouped = rest.at != NULL;
	group_name = rest;
	if (!sane_name(name) || (grouped && !sane_name(group_name)))
		return err_set(e, EINVAL, "user", "'%.130s' is not a user: name, uid, name:group or uid:gid", spec);
	code = resolve_user(name, users, user, e);
	if (!code && grouped)
		code = resolve_group(group_name, groups, user, e);
	if (code)
		return code;
	add_group(user, user->gid);
	/* Who names a group wants that one only. */
	if (!grouped && user->name[0])
		add_memberships(groups, user);
	return 0;
}

/* Opens a text of the sandbox, which may have put a FIFO, a device or a link to a file of /proc in its place. */
static int open_text(const char *path)
{
	struct kernel_open_how how = {
		.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		.resolve = RESOLVE_NO_MAGICLINKS,
	};
	int fd = sys_openat2(AT_FDCWD, path, &how);
	struct statfs filesystem;
	struct stat facts;

	if (fd < 0)
		return -1;
	if (fstat(fd, &facts) < 0 || !S_ISREG(facts.st_mode) || fstatfs(fd, &filesystem) < 0 ||
	    filesystem.f_type == PROC_SUPER_MAGIC) {
		close(fd);
		return -1;
	}
	return fd;
}

static size_t read_text(int fd, char *text)
{
	size_t length = 0;

	while (length < FILE_MAX) {
		ssize_t got = read(fd, text + length, FILE_MAX - length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return length;
		length += (size_t)got;
	}
	/* The limit may have torn the last line, and "1000" torn is "10", a different user. */
	while (length && text[length - 1] != '\n')
		length--;
	return length;
}

/* Reads a text into memory of its own, given back at once: init lives as long as its sandbox and should stay small.
 * A text that cannot be read is an empty one; the numbers still work. */
static char *map_text(const char *path, size_t *length)
{
	int fd = open_text(path);
	char *text;

	*length = 0;
	if (fd < 0)
		return NULL;
	text = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (text == MAP_FAILED)
		text = NULL;
	else
		*length = read_text(fd, text);
	close(fd);
	return text;
}

int users_find(const char *spec, struct user *user, struct err *e)
{
	size_t passwd_length, group_length;
	char *passwd = map_text("/etc/passwd", &passwd_length);
	char *group = map_text("/etc/group", &group_length);
	int code = users_find_in(spec, passwd, passwd_length, group, group_length, user, e);

	if (passwd)
		munmap(passwd, FILE_MAX);
	if (group)
		munmap(group, FILE_MAX);
	return code;
}
