/* One step of a set-up. */
#include "fuzz.h"
#include "setup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg_reader reader = {data, data + size};
	struct setup_op op;
	struct err e = {0};
	int code = setup_parse(reader, &op, &e);

	if (code) {
		fuzz_check(code == -e.code && e.stage);
		return 0;
	}
	fuzz_check(op.opcode >= OP_MKDIR && op.opcode <= OP_CHMOD);
	fuzz_check(op.path || op.opcode == OP_HOSTNAME || op.opcode == OP_LOOPBACK || op.opcode == OP_ENTER);
	fuzz_check(op.value || (op.opcode != OP_WRITE && op.opcode != OP_HOSTNAME));
	fuzz_check(op.source || (op.opcode != OP_MOUNT && op.opcode != OP_BIND && op.opcode != OP_SYMLINK));
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer = {.buffer = buffer, .capacity = capacity};

	if (number >= OP_CHMOD)
		return 0;
	msg_put_number(&writer, T_OPCODE, number + 1);
	msg_put_string(&writer, T_PATH, "/p");
	msg_put_string(&writer, T_SOURCE, "s");
	msg_put_string(&writer, T_FSTYPE, "proc");
	msg_put_string(&writer, T_OPTIONS, "size=1m");
	msg_put_string(&writer, T_VALUE, "1");
	msg_put_number(&writer, T_FLAGS, 1);
	msg_put_number(&writer, T_MODE, 0755);
	msg_put_number(&writer, T_INDEX, 0);
	return writer.length;
}
