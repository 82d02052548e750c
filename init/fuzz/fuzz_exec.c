/* A request to start a command. */
#include "execs.h"
#include "fuzz.h"
#include "protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct exec_request request;
	struct msg_reader reader = {data, data + size};
	struct err e = {0};
	int code = execs_parse(reader, &request, &e);

	if (code) {
		fuzz_check(code == -e.code && e.stage);
		return 0;
	}
	fuzz_check(request.arg_count >= 1 && request.arg_count <= EXEC_STRINGS_MAX && !request.args[request.arg_count]);
	fuzz_check(request.env_count <= EXEC_STRINGS_MAX && !request.env[request.env_count]);
	for (size_t i = 0; i < request.arg_count; i++)
		fuzz_check(request.args[i]);
	for (size_t i = 0; i < request.env_count; i++)
		fuzz_check(request.env[i]);
	fuzz_check(request.user && request.number && request.label_length <= LABEL_MAX);
	fuzz_check(!request.rows == !request.columns);
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer = {.buffer = buffer, .capacity = capacity};

	if (number > 2)
		return 0;
	msg_put_number(&writer, T_NUMBER, 1);
	msg_put(&writer, T_LABEL, "{}", 2);
	msg_put_string(&writer, T_ARG, "sh");
	msg_put_string(&writer, T_ARG, "-c");
	msg_put_string(&writer, T_ARG, "true");
	if (number) {
		msg_put_string(&writer, T_ENV, "A=b");
		msg_put_string(&writer, T_CWD, "/tmp");
		msg_put_string(&writer, T_USER, "web:adm");
		msg_put_number(&writer, T_STDIN, 1);
	}
	if (number == 2) {
		msg_put_number(&writer, T_ROWS, 24);
		msg_put_number(&writer, T_COLUMNS, 80);
	}
	return writer.length;
}
