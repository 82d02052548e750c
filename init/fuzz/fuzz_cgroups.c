/* A control group of a request. */
#include <string.h>

#include "cgroups.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg_reader reader = {data, data + size};
	struct cgroup cgroup;
	struct err e = {0};
	int code = cgroups_parse(reader, &cgroup, &e);

	if (code) {
		fuzz_check(code == -e.code && e.stage);
		return 0;
	}
	fuzz_check(cgroup.kind == CGROUP_V1 || cgroup.kind == CGROUP_V2);
	fuzz_check(memchr(cgroup.path, 0, sizeof cgroup.path));
	fuzz_check(memchr(cgroup.oom_file, 0, sizeof cgroup.oom_file));
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer = {.buffer = buffer, .capacity = capacity};
	size_t setting;

	if (number > 1)
		return 0;
	msg_put_string(&writer, T_PATH, "/sys/fs/cgroup/traforo/x");
	msg_put_number(&writer, T_KIND, number ? CGROUP_V1 : CGROUP_V2);
	msg_put_string(&writer, T_NAME, "memory.events");
	setting = msg_begin_nested(&writer, T_SETTING);
	msg_put_string(&writer, T_NAME, "memory.max");
	msg_put_string(&writer, T_VALUE, "1000000");
	msg_end_nested(&writer, setting);
	return writer.length;
}
