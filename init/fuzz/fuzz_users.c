/* A user, looked up in texts that a sandbox wrote. The input is "spec NUL passwd NUL group": the first two end with the
 * first NULs, so that only the group text can have one; a fourth part tries passwd and group the other way around. */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "users.h"

static void find(const char *spec, const uint8_t *passwd, size_t passwd_length, const uint8_t *group,
		 size_t group_length)
{
	struct user user;
	struct err e = {0};
	int code =
		users_find_in(spec, (const char *)passwd, passwd_length, (const char *)group, group_length, &user, &e);

	if (code) {
		fuzz_check(code == -ENOENT || code == -EINVAL);
		fuzz_check(code == -e.code && e.stage);
		return;
	}
	fuzz_check(user.uid < 65535 && user.gid < 65535);
	fuzz_check(user.group_count >= 1 && user.group_count <= USER_GROUPS_MAX && user.groups[0] == user.gid);
	fuzz_check(memchr(user.name, 0, sizeof user.name) && !strpbrk(user.name, ":\n"));
	fuzz_check(memchr(user.home, 0, sizeof user.home) && user.home[0] == '/' && !strpbrk(user.home, ":\n"));
	fuzz_check(memchr(user.shell, 0, sizeof user.shell) && user.shell[0] == '/' && !strpbrk(user.shell, ":\n"));
	for (size_t i = 0; i < user.group_count; i++)
		fuzz_check(user.groups[i] < 65535);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *spec_end = size ? memchr(data, 0, size) : NULL, *passwd, *passwd_end, *group;

	if (!spec_end)
		return 0;
	passwd = spec_end + 1;
	passwd_end = memchr(passwd, 0, (size_t)(data + size - passwd));
	if (!passwd_end)
		passwd_end = data + size;
	group = passwd_end < data + size ? passwd_end + 1 : passwd_end;
	find((const char *)data, passwd, (size_t)(passwd_end - passwd), group, (size_t)(data + size - group));
	find((const char *)data, group, (size_t)(data + size - group), passwd, (size_t)(passwd_end - passwd));
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
#define TEXTS "\0root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n\0web:x:1000:\nadm:x:4:root,web\n"
	static const char *const specs[] = {"web" TEXTS, "root" TEXTS, "1000" TEXTS, "web:adm" TEXTS, "5:6" TEXTS};
	static const size_t lengths[] = {sizeof "web" TEXTS, sizeof "root" TEXTS, sizeof "1000" TEXTS,
					 sizeof "web:adm" TEXTS, sizeof "5:6" TEXTS};

	if (number >= sizeof specs / sizeof *specs || lengths[number] > capacity)
		return 0;
	memcpy(buffer, specs[number], lengths[number] - 1);
	return lengths[number] - 1;
}
