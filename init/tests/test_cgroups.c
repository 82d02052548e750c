#define _GNU_SOURCE
#include "cgroups.h"

#include <sys/vfs.h>

#include <linux/magic.h>

#include "places.h"

static uint8_t buffer[8192];
static struct err e;
static struct cgroup cgroup;
static struct cgroups_ahead ahead;

static void put_setting(struct msg_writer *writer, const char *name, const char *value)
{
	size_t nested = msg_begin_nested(writer, T_SETTING);

	if (name)
		msg_put_string(writer, T_NAME, name);
	if (value)
		msg_put_string(writer, T_VALUE, value);
	msg_end_nested(writer, nested);
}

static struct msg_reader fields(const struct msg_writer *writer)
{
	return (struct msg_reader){buffer + 8, buffer + writer->length};
}

static struct msg_writer begin(const char *path, long long kind, const char *oom_file)
{
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_CREATE, 1);
	if (path)
		msg_put_string(&writer, T_PATH, path);
	if (kind >= 0)
		msg_put_number(&writer, T_KIND, (uint64_t)kind);
	if (oom_file)
		msg_put_string(&writer, T_NAME, oom_file);
	return writer;
}

static int parse(const char *path, long long kind, const char *oom_file)
{
	struct msg_writer writer = begin(path, kind, oom_file);

	return cgroups_parse(fields(&writer), &cgroup, &e);
}

static void test_parse(void)
{
	char path[CGROUP_PATH_MAX + 1], name[40];
	struct msg_writer writer;

	is(parse("/c/x", CGROUP_V2, "memory.events"), 0, "a cgroup is read");
	ok(!strcmp(cgroup.path, "/c/x") && cgroup.kind == CGROUP_V2 && !strcmp(cgroup.oom_file, "memory.events"),
	   "with path, kind and the file that counts");
	is(parse("/c/x", CGROUP_V1, NULL), 0, "that file may be missing");
	is_string(cgroup.oom_file, "", "and is empty then");
	is(parse(NULL, CGROUP_V1, NULL), -EBADMSG, "a path may not");
	is(parse("/c/x", -1, NULL), -EBADMSG, "nor the kind");
	is(parse("/c/x", 0, NULL), -EBADMSG, "which is 1");
	is(parse("/c/x", 3, NULL), -EBADMSG, "or 2");
	memset(path, 'p', sizeof path);
	path[CGROUP_PATH_MAX] = 0;
	is(parse(path, CGROUP_V1, NULL), -EBADMSG, "a path that is too long is refused");
	path[CGROUP_PATH_MAX - 1] = 0;
	is(parse(path, CGROUP_V1, NULL), 0, "the longest is not");
	memset(name, 'n', sizeof name);
	name[32] = 0;
	is(parse("/c/x", CGROUP_V1, name), -EBADMSG, "a file name that is too long is refused");
	name[31] = 0;
	is(parse("/c/x", CGROUP_V1, name), 0, "the longest is not");
	writer = begin("/c/x", CGROUP_V1, NULL);
	msg_put_number(&writer, T_LIMIT, 1);
	is(cgroups_parse(fields(&writer), &cgroup, &e), -EBADMSG, "unknown fields are refused");
	writer = begin("/c/x", CGROUP_V1, NULL);
	is(cgroups_parse((struct msg_reader){buffer + 8, buffer + writer.length - 1}, &cgroup, &e), -EBADMSG,
	   "a torn field is refused");
	writer = begin(NULL, CGROUP_V1, NULL);
	msg_put(&writer, T_PATH, "/c\0x", 5);
	is(cgroups_parse(fields(&writer), &cgroup, &e), -EBADMSG, "a path with a NUL inside is refused");
}

static int make(const char *path, int kind, const char *name, const char *value)
{
	struct msg_writer writer = begin(path, kind, NULL);

	put_setting(&writer, name, value);
	need(!cgroups_parse(fields(&writer), &cgroup, &e), "parse");
	return cgroups_make(&cgroup, fields(&writer), (uid_t)-1, &ahead, &e);
}

static void test_make(void)
{
	struct cgroups all = {.count = 2};
	struct msg_writer writer;

	writer = begin(at("c"), CGROUP_V1, NULL);
	need(!cgroups_parse(fields(&writer), &cgroup, &e), "parse");
	is(cgroups_make(&cgroup, fields(&writer), (uid_t)-1, &ahead, &e), 0, "a directory is made");
	all.list[0] = cgroup;
	is(cgroups_make(&cgroup, fields(&writer), (uid_t)-1, &ahead, &e), -EEXIST, "one that is there is an error");
	ok(is_there(at("c")), "and stays");
	is(make(at("d"), CGROUP_V1, "cpu.shares", "5"), -ENOENT, "a setting that the kernel does not know is an error");
	ok(strstr(e.text, "cpu.shares") != NULL, "which names it");
	ok(!is_there(at("d")), "and nothing is left");
	is(make(at("d"), CGROUP_V1, "../c/x", "5"), -EBADMSG, "a setting lies in the directory itself");
	ok(!is_there(at("d")), "and nothing is left of that either");
	is(make(at("d"), CGROUP_V1, NULL, "5"), -EBADMSG, "a setting has a name");
	is(make(at("d"), CGROUP_V1, "cpu.shares", NULL), -EBADMSG, "and a value");
	is(make(at("none/d"), CGROUP_V1, "cpu.shares", "5"), -ENOENT, "a parent must be there");
	all.list[1] = (struct cgroup){.kind = CGROUP_V1};
	snprintf(all.list[1].path, sizeof all.list[1].path, "%s", at("gone"));
	is(cgroups_remove(&all, &e), 0, "directories are removed, missing ones are fine");
	ok(!is_there(at("c")), "for good");
	directory_make(at("c"), 0755);
	directory_make(at("c/e1"), 0755);
	all.count = 1;
	all.list[0].kind = CGROUP_V2;
	is(cgroups_remove(&all, &e), 0, "a v2 cgroup goes with those of its execs");
	directory_make(at("c"), 0755);
	file_make(at("c/file"), "", 0644);
	is(cgroups_remove(&all, &e), -ENOTEMPTY, "what does not go is told");
}

static uint64_t kills(const char *text)
{
	struct cgroups all = {.count = 2, .list = {{.kind = CGROUP_V1}, {.kind = CGROUP_V1, .oom_file = "counts"}}};

	snprintf(all.list[1].path, sizeof all.list[1].path, "%s", place);
	file_make(at("counts"), text, 0644);
	return cgroups_oom_kills(&all);
}

static void test_oom_kills(void)
{
	struct cgroups none = {.count = 0};

	is(kills("low 0\nhigh 0\nmax 9\noom 3\noom_kill 7\noom_group_kill 0\n"), 7, "v2 counts in memory.events");
	is(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2, "v1 in memory.oom_control");
	is(kills("oom_kill 4\n"), 4, "the line may be the first");
	is(kills("oom_kill_disable 0\nunder_oom 0\n"), 0, "old kernels do not count");
	is(kills(""), 0, "an empty file counts nothing");
	is(cgroups_oom_kills(&none), 0, "nor do no cgroups");
}

static const char *real_hierarchy(int *kind)
{
	static const struct {
		const char *path;
		int kind;
	} candidates[] = {{"/sys/fs/cgroup/pids", CGROUP_V1}, {"/sys/fs/cgroup", CGROUP_V2}};
	struct statfs filesystem;

	for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
		if (!statfs(candidates[i].path, &filesystem) && !access(candidates[i].path, W_OK) &&
		    (long)filesystem.f_type ==
			    (candidates[i].kind == CGROUP_V1 ? CGROUP_SUPER_MAGIC : CGROUP2_SUPER_MAGIC)) {
			*kind = candidates[i].kind;
			return candidates[i].path;
		}
	return NULL;
}

static void test_real(void)
{
	struct cgroups all = {.count = 1};
	char path[CGROUP_PATH_MAX];
	int kind = 0;
	const char *root = geteuid() ? NULL : real_hierarchy(&kind);

	if (!root) {
		skip("the kernel takes settings", "no cgroup hierarchy to write to");
		return;
	}
	snprintf(path, sizeof path, "%s/traforo-test-%d", root, (int)getpid());
	is(make(path, kind, kind == CGROUP_V1 ? "pids.max" : "cgroup.max.depth", "7"), 0, "the kernel takes settings");
	all.list[0] = cgroup;
	snprintf(path, sizeof path, "%s/%s", cgroup.path, kind == CGROUP_V1 ? "pids.max" : "cgroup.max.depth");
	is_string(file_text(path), "7\n", "and keeps them");
	is(cgroups_remove(&all, &e), 0, "and lets the cgroup go");
	ok(!is_there(cgroup.path), "for good");
	snprintf(path, sizeof path, "%s", cgroup.path);
	is(make(path, kind, "cgroup.procs", "not a pid"), -EINVAL, "a value that the kernel refuses is an error");
	ok(!is_there(path), "and nothing is left");
}

static int take(struct cgroups_ahead *from, const char *path, long long kind)
{
	struct msg_writer writer = begin(path, kind, NULL);

	need(!cgroups_parse(fields(&writer), &cgroup, &e), "parse");
	return cgroups_make(&cgroup, fields(&writer), (uid_t)-1, from, &e);
}

static void test_ahead(void)
{
	char parent[128], path[256], taken[256];
	struct cgroups_ahead made = {0};

	snprintf(parent, sizeof parent, "%s", at("hierarchy"));
	need(!mkdir(parent, 0755), "mkdir");
	ok(!cgroups_wanted(&made), "nothing is made ahead before it is known where");
	snprintf(taken, sizeof taken, "%s/first", parent);
	ok(!take(&made, taken, CGROUP_V1), "the first one is made where it belongs");
	ok(cgroups_wanted(&made), "then more are wanted there");
	for (int i = 0; i < CGROUPS_AHEAD; i++)
		cgroups_refill(&made);
	ok(!cgroups_wanted(&made), "until there are enough");
	snprintf(path, sizeof path, "%s/ahead.0", parent);
	ok(is_there(path), "they wait under names of their own");
	snprintf(taken, sizeof taken, "%s/second", parent);
	ok(!take(&made, taken, CGROUP_V1) && is_there(taken) && !is_there(path), "the next one is one of them");
	snprintf(path, sizeof path, "%s/ahead.1", parent);
	need(!rmdir(path), "rmdir");
	snprintf(taken, sizeof taken, "%s/third", parent);
	snprintf(path, sizeof path, "%s/ahead.2", parent);
	ok(!take(&made, taken, CGROUP_V1) && is_there(taken) && !is_there(path), "one that was removed is passed over");
	snprintf(taken, sizeof taken, "%s/fourth", parent);
	snprintf(path, sizeof path, "%s/ahead.3", parent);
	ok(!take(&made, taken, CGROUP_V2) && is_there(taken) && is_there(path), "none is taken for v2, which cannot rename");
	need(!rename(parent, at("elsewhere")), "rename");
	cgroups_refill(&made);
	ok(!cgroups_wanted(&made), "a place that refuses is given up");
}

int main(void)
{
	place_make();
	test_parse();
	test_ahead();
	test_make();
	test_oom_kills();
	test_real();
	place_remove();
	return tap_end();
}
