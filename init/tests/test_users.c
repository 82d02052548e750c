#define _GNU_SOURCE
#include "users.h"

#include "tap.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\n"
			     "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n"
			     "web:x:1000:1001:Web,,,:/home/web:/bin/zsh\n"
			     "web:x:2000:2000::/second:/bin/second\n"
			     "bare:x:7:8\n"
			     "relative:x:9:9::home:sh\n"
			     "1234:x:77:77::/digits:/bin/sh\n"
			     "last:x:65534:65534::/:/bin/sh";
static const char group[] = "root:x:0:\n"
			    "web:x:1001:\n"
			    "adm:x:4:web,syslog\n"
			    "video:x:44:a,web\n"
			    "webby:x:50:webby,we,\n"
			    "again:x:4:web\n"
			    "docker:x:999:x,y,web";

static struct user user;
static struct err e;

/* The same as users_find_in, with texts in memory of their exact size, so that a sanitizer sees a read past the end. */
static int find(const char *spec, const char *users, size_t users_length, const char *groups, size_t groups_length)
{
	char *a = malloc(users_length + !users_length), *b = malloc(groups_length + !groups_length);
	int code;

	need(a && b, "malloc");
	memcpy(a, users, users_length);
	memcpy(b, groups, groups_length);
	code = users_find_in(spec, a, users_length, b, groups_length, &user, &e);
	free(a);
	free(b);
	return code;
}

static int lookup(const char *spec)
{
	return find(spec, passwd, sizeof passwd - 1, group, sizeof group - 1);
}

static int lookup_in(const char *spec, const char *line)
{
	return find(spec, line, strlen(line), "", 0);
}

static void test_names(void)
{
	is(lookup("web"), 0, "a name is found");
	is(user.uid, 1000, "its first entry counts");
	is(user.gid, 1001, "with its group");
	is_string(user.name, "web", "its name");
	is_string(user.home, "/home/web", "its home");
	is_string(user.shell, "/bin/zsh", "and its shell");
	is(user.group_count, 4, "supplementary groups are the own one and those that list the name, once each");
	ok(user.groups[0] == 1001 && user.groups[1] == 4 && user.groups[2] == 44 && user.groups[3] == 999,
	   "a name is listed as a whole, also at the end of a text without newline");
	is(lookup("last"), 0, "an entry without newline is one");
	is(user.uid, 65534, "with the highest id there is");
	is(lookup("bare"), 0, "an entry may end behind its group");
	is_string(user.home, "/", "the home is the root then");
	is_string(user.shell, "/bin/sh", "and the shell the usual one");
	is(lookup("relative"), 0, "an entry with a relative home is one");
	is_string(user.home, "/", "whose home is the root");
	is_string(user.shell, "/bin/sh", "and whose shell the usual one");
	is(lookup("nobody"), -ENOENT, "an unknown name is not found");
	is(lookup("we"), -ENOENT, "nor is the beginning of one");
	is(lookup("web2"), -ENOENT, "nor one that begins like another");
}

static void test_numbers(void)
{
	is(lookup("1000"), 0, "a number is found");
	is_string(user.name, "web", "with its entry");
	is(user.group_count, 4, "and its groups");
	is(lookup("4711"), 0, "a number needs no entry");
	ok(user.uid == 4711 && user.gid == 0, "its group is 0 then");
	ok(!user.name[0] && !strcmp(user.home, "/") && !strcmp(user.shell, "/bin/sh"), "and the rest is the default");
	ok(user.group_count == 1 && user.groups[0] == 0, "with no other group");
	is(lookup("1234"), 0, "digits are a number, whatever passwd calls a user");
	is(user.uid, 1234, "the number itself");
	is(lookup("65534"), 0, "65534 is the last id");
	is(lookup("65535"), -EINVAL, "65535 is none");
	is(lookup("4294967296"), -EINVAL, "2^32 is not 0");
	is(lookup("99999999999999999999999999999999"), -EINVAL, "a number without end is none");
	is(lookup("000"), 0, "zeros are a number");
	is(user.uid, 0, "0");
	is(lookup("-1"), -EINVAL, "a negative number is no user");
}

static void test_groups(void)
{
	is(lookup("web:adm"), 0, "a group can be named");
	ok(user.uid == 1000 && user.gid == 4, "it replaces the one of passwd");
	ok(user.group_count == 1 && user.groups[0] == 4, "and is the only one");
	is(lookup("web:12"), 0, "a group can be a number");
	is(user.gid, 12, "without an entry");
	is(lookup("5:6"), 0, "user and group can be numbers");
	ok(user.uid == 5 && user.gid == 6, "these");
	is(lookup("web:nogroup"), -ENOENT, "an unknown group is not found");
	is(lookup("nobody:adm"), -ENOENT, "nor an unknown user with a known group");
	is(lookup("web:65535"), -EINVAL, "a group number has the same limit");
	is(lookup("web:-1"), -EINVAL, "a negative one is malformed");
}

static void test_malformed(void)
{
	static const char *const specs[] = {"",	   ":",	 "web:",  ":adm",    "web:adm:x", "::",	  "a b", "a\nb",
					    "a/b", "-u", "a\x7f", "web:a b", "web:-x",	  "\x01", " web"};
	char name[2000];
	int refused = 0;

	for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
		refused += lookup(specs[i]) == -EINVAL;
	is(refused, sizeof specs / sizeof *specs, "what is no name is malformed");
	memset(name, 'n', sizeof name);
	name[USER_NAME_MAX] = 0;
	is(lookup(name), -EINVAL, "so is a name that is too long");
	name[USER_NAME_MAX] = 'n';
	name[sizeof name - 1] = 0;
	is(lookup(name), -EINVAL, "or far too long");
	name[USER_NAME_MAX - 1] = 0;
	is(lookup(name), -ENOENT, "the longest name is only unknown");
	is(lookup("r\xc3\xb6\xc3\xb6t"), -ENOENT, "letters beyond ASCII are fine");
}

static void test_hostile_passwd(void)
{
	static const char *const bad[] = {"m",
					  "m:",
					  "m:x",
					  "m:x:1",
					  "m:x::",
					  "m:x:1:",
					  "m:x::1:",
					  "m:x:-1:1::/:",
					  "m:x:1:-1::/:",
					  "m:x: 1:1::/:",
					  "m:x:1:0x1::/:",
					  "m:x:+1:1::/:",
					  "m:x:65535:1::/:",
					  "m:x:1:65535::/:",
					  "m:x:4294967296:0::/:",
					  "m:x:99999999999999999999:0::/:",
					  "m:x:1e3:0::/:",
					  " m:x:1:1::/:",
					  "#m:x:1:1::/:",
					  "+m:x:1:1"};
	static const char with_nul[] = "m\0:x:1:1::/:\nm:x:1:\0001::/:\nm:x:5:5::/five\0:/\nm:x:6:6::/six:/bin/six\n";
	char line[4096];
	int skipped = 0;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		skipped += lookup_in("m", bad[i]) == -ENOENT;
	is(skipped, sizeof bad / sizeof *bad, "a line that cannot be read is skipped");
	is(lookup_in("m", "\n\n:::\n:\nm:x:3:4::/m:/bin/m:more:fields:\n"), 0, "a good one behind such lines is found");
	ok(user.uid == 3 && !strcmp(user.shell, "/bin/m"), "and fields behind the last are let go");
	is(find("m", with_nul, sizeof with_nul - 1, "", 0), 0, "a line with a NUL is skipped");
	is(user.uid, 6, "in favour of one without");
	snprintf(line, sizeof line, "m:x:1:1::/%0300d:/%0300d\n", 0, 0);
	is(lookup_in("m", line), 0, "an entry with a long home is found");
	is_string(user.home, "/", "but the home is the root");
	is_string(user.shell, "/bin/sh", "and a long shell the usual one");
	snprintf(line, sizeof line, "m:x:1:1::/%0254d:/%0254d\n", 0, 0);
	is(lookup_in("m", line), 0, "an entry with the longest home is found");
	is(strlen(user.home), USER_PATH_MAX - 1, "and the home kept");
	is(strlen(user.shell), USER_PATH_MAX - 1, "like the shell");
	snprintf(line, sizeof line, "%070d:x:1:1::/:\nm:x:2:2::/:\n", 0);
	is(lookup_in("m", line), 0, "a name that is too long hides nothing behind it");
	is(lookup_in("root", ""), 0, "root is there without an entry");
	ok(user.uid == 0 && user.gid == 0 && user.group_count == 1, "and is user 0");
	is(lookup_in("root", "root:x:5:6::/:\n"), 0, "with an entry");
	is(user.uid, 5, "it is what the entry says");
	is(lookup_in("daemon", ""), -ENOENT, "no other name is");
}

static void test_large(void)
{
	static const char odd[] = "g:x:4\ng:x:-1:web\ng:x:70000:web\n:x:3:web\nh:x:6:web";
	const size_t size = (size_t)1 << 20;
	char *text = malloc(size + 100000);
	size_t length = 0;

	need(text, "malloc");
	memset(text, 'a', size);
	memcpy(text + size, "\nm:x:1:1::/:\n", 13);
	is(find("m", text, size + 13, "", 0), 0, "a line of 1 MiB is passed over");
	memset(text, '\n', size);
	is(find("m", text, size, "", 0), -ENOENT, "so are a million empty lines");
	memset(text, ':', size);
	is(find("m", text, size, "", 0), -ENOENT, "and a million empty fields");
	for (int i = 0; i < 100000 && length < size; i++)
		length += (size_t)snprintf(text + length, 32, "g%d:x:%d:web\n", i, 2000 + i % 60000);
	is(find("web", passwd, sizeof passwd - 1, text, length), 0, "a hundred thousand groups are read");
	is(user.group_count, USER_GROUPS_MAX, "and as many kept as fit");
	ok(user.groups[0] == 1001 && user.groups[1] == 2000, "the own one first");
	length = (size_t)snprintf(text, 32, "many:x:5:");
	while (length < size)
		length += (size_t)snprintf(text + length, 32, "u%zu,", length);
	length += (size_t)snprintf(text + length, 32, "web\n");
	is(find("web", passwd, sizeof passwd - 1, text, length), 0, "a group with a hundred thousand members is read");
	ok(user.group_count == 2 && user.groups[1] == 5, "to the last of them");
	is(find("web", passwd, sizeof passwd - 1, odd, sizeof odd - 1), 0, "groups that cannot be read are skipped");
	ok(user.group_count == 2 && user.groups[1] == 6, "and the others taken");
	free(text);
}

static void test_files(void)
{
	is(users_find("0", &user, &e), 0, "user 0 is found with the files of this machine, or without");
	is(user.uid, 0, "as user 0");
	is(users_find("no-such-user-here", &user, &e), -ENOENT, "an unknown name is not found there");
	is(users_find("x:y:z", &user, &e), -EINVAL, "nor is a malformed one");
}

int main(void)
{
	test_names();
	test_numbers();
	test_groups();
	test_malformed();
	test_hostile_passwd();
	test_large();
	test_files();
	return tap_end();
}
