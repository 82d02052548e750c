/* A request to make a sandbox, with its cgroups, layers and steps. */
#include "births.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct birth birth;
	struct msg_reader reader = {data, data + size};
	struct err e = {0};
	int code = births_parse(reader, &birth, &e);

	if (code) {
		fuzz_check(code == -e.code && e.stage);
		return 0;
	}
	fuzz_check(birth.id && birth.cgroups.count <= CGROUPS_MAX);
	fuzz_check(birth.layer_count <= LAYERS_MAX && birth.op_count <= OPS_MAX);
	fuzz_check(birth.label_length <= LABEL_MAX);
	for (size_t i = 0; i < birth.op_count; i++)
		fuzz_check(birth.ops[i].opcode);
	return 0;
}

static void put_cgroup(struct msg_writer *writer)
{
	size_t cgroup = msg_begin_nested(writer, T_CGROUP);

	msg_put_string(writer, T_PATH, "/sys/fs/cgroup/traforo/x");
	msg_put_number(writer, T_KIND, CGROUP_V2);
	msg_end_nested(writer, cgroup);
}

static void put_layer(struct msg_writer *writer)
{
	size_t layer = msg_begin_nested(writer, T_LAYER);

	msg_put_string(writer, T_PATH, "/images/a");
	msg_put_number(writer, T_FLAGS, 1);
	msg_put_number(writer, T_IDMAP, 1);
	msg_end_nested(writer, layer);
}

static void put_op(struct msg_writer *writer)
{
	size_t op = msg_begin_nested(writer, T_OP);

	msg_put_number(writer, T_OPCODE, OP_MKDIR);
	msg_put_string(writer, T_PATH, "proc");
	msg_put_number(writer, T_MODE, 0755);
	msg_end_nested(writer, op);
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer = {.buffer = buffer, .capacity = capacity};

	if (number > 1)
		return 0;
	msg_put_string(&writer, T_ID, "sandbox");
	msg_put(&writer, T_LABEL, "{}", 2);
	msg_put_number(&writer, T_DEADLINE, 1000);
	msg_put_number(&writer, T_CLONE_FLAGS, 0x10000000);
	msg_put_string(&writer, T_UID_MAP, "0 100000 65535");
	msg_put_string(&writer, T_GID_MAP, "0 100000 65535");
	msg_put_number(&writer, T_OWNER, 100000);
	msg_put_number(&writer, T_CAPS, 1);
	if (number) {
		msg_put_number(&writer, T_SECCOMP, 1);
		put_cgroup(&writer);
		put_layer(&writer);
		put_op(&writer);
	}
	return writer.length;
}
