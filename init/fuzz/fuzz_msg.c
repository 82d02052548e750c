/* The reader of messages, with every field also taken as a nested one; and the writer, which must give the same bytes.
 */
#include <string.h>

#include "fuzz.h"
#include "msg.h"

#define DEPTH_MAX 8

static void read_fields(struct msg_reader reader, int depth)
{
	struct msg_field field;
	const char *text;
	uint64_t number;

	while (msg_next(&reader, &field) > 0) {
		text = msg_string(&field);
		fuzz_check(!text || strlen(text) == field.length - 1);
		fuzz_check(msg_number(&field, &number) == (field.length == 8));
		if (depth < DEPTH_MAX)
			read_fields(msg_nested(&field), depth + 1);
	}
}

static void write_back(const uint8_t *data, size_t size)
{
	uint8_t buffer[FUZZ_INPUT_MAX + 64];
	struct msg_writer writer;
	struct msg_reader reader;
	struct msg_header header;
	struct msg_field field;
	int more;

	if (msg_open(data, size, &header, &reader))
		return;
	msg_begin(&writer, buffer, size, header.type, header.id);
	while ((more = msg_next(&reader, &field)) > 0)
		msg_put(&writer, field.tag, field.data, field.length);
	if (more < 0)
		return;
	fuzz_check(!writer.overflow && writer.length == size && !memcmp(buffer, data, size));
	/* One byte less has no room for the last field. */
	msg_begin(&writer, buffer, size - 1, header.type, header.id);
	msg_open(data, size, &header, &reader);
	while (msg_next(&reader, &field) > 0)
		msg_put(&writer, field.tag, field.data, field.length);
	fuzz_check(writer.overflow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg_header header;
	struct msg_reader reader;

	if (size > FUZZ_INPUT_MAX)
		return 0;
	if (!msg_open(data, size, &header, &reader))
		read_fields(reader, 0);
	write_back(data, size);
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer;
	size_t outer, inner;

	msg_begin(&writer, buffer, capacity, M_LIST, 7);
	switch (number) {
	case 0: break;
	case 1:
		msg_put_string(&writer, T_ID, "sandbox");
		msg_put_number(&writer, T_DEADLINE, 1000);
		break;
	case 2:
		outer = msg_begin_nested(&writer, T_ENTRY);
		inner = msg_begin_nested(&writer, T_OP);
		msg_put_string(&writer, T_PATH, "/");
		msg_end_nested(&writer, inner);
		msg_put(&writer, T_LABEL, NULL, 0);
		msg_end_nested(&writer, outer);
		break;
	default: return 0;
	}
	return writer.length;
}
