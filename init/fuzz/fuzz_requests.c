/* Requests on files, on commands and to connect. */
#include "fuzz.h"
#include "requests.h"

static void check_error(int code, const struct err *e)
{
	fuzz_check(code == -e->code && e->code && e->stage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg_reader reader = {data, data + size};
	struct connect_request connection;
	struct file_request file;
	struct exec_order order;
	struct err e = {0};
	int code = requests_file(reader, &file, &e);

	if (code)
		check_error(code, &e);
	else
		fuzz_check(file.path[0] == '/' && (!file.to || file.to[0] == '/') && file.user && file.change.mode <= 07777);
	if (!code && file.change.uid_given)
		fuzz_check(file.change.uid != (uid_t)-1);
	if (!code && file.change.gid_given)
		fuzz_check(file.change.gid != (gid_t)-1);
	e = (struct err){0};
	code = requests_exec(reader, &order, &e);
	if (code)
		check_error(code, &e);
	e = (struct err){0};
	code = requests_connect(reader, &connection, &e);
	if (code)
		check_error(code, &e);
	return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity)
{
	struct msg_writer writer = {.buffer = buffer, .capacity = capacity};

	switch (number) {
	case 0:
		msg_put_string(&writer, T_PATH, "/p");
		msg_put_string(&writer, T_USER, "root");
		msg_put_number(&writer, T_FOLLOW, 0);
		msg_put_number(&writer, T_MODE, 0644);
		msg_put_number(&writer, T_UID, 7);
		msg_put_number(&writer, T_GID, 8);
		msg_put_number(&writer, T_MODIFIED, 9);
		break;
	case 1:
		msg_put_string(&writer, T_PATH, "/p");
		msg_put_string(&writer, T_TO, "/q");
		msg_put_string(&writer, T_TARGET, "t");
		msg_put_number(&writer, T_RECURSIVE, 1);
		msg_put_string(&writer, T_BELOW, "b");
		msg_put_number(&writer, T_EXCLUSIVE, 1);
		break;
	case 2:
		msg_put_number(&writer, T_NUMBER, 1);
		msg_put_number(&writer, T_ROWS, 24);
		msg_put_number(&writer, T_COLUMNS, 80);
		break;
	case 3:
		msg_put_number(&writer, T_PORT, 80);
		msg_put_number(&writer, T_VERSION, 4);
		break;
	case 4: msg_put_string(&writer, T_NAME, "name"); break;
	default: return 0;
	}
	return writer.length;
}
