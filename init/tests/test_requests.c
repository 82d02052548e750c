#define _GNU_SOURCE
#include "requests.h"

#include "tap.h"

static uint8_t buffer[1024];
static struct msg_writer writer;
static struct err e;

static void begin(void)
{
	writer = (struct msg_writer){.buffer = buffer, .capacity = sizeof buffer};
}

static struct msg_reader fields(void)
{
	return (struct msg_reader){buffer, buffer + writer.length};
}

static int file_with_number(uint16_t tag, uint64_t value, struct file_request *request)
{
	begin();
	msg_put_string(&writer, T_PATH, "/p");
	msg_put_number(&writer, tag, value);
	return requests_file(fields(), request, &e);
}

static void test_files(void)
{
	struct file_request request;

	is(file_with_number(T_FOLLOW, 0, &request), 0, "a request on a file is read");
	is_string(request.path, "/p", "with its path");
	is_string(request.user, "root", "and root, if nobody is named");
	ok(!request.change.mode_given && !request.change.uid_given && !request.change.gid_given &&
		   !request.change.modified_given,
	   "and nothing to change");
	is(file_with_number(T_MODE, 07777777, &request), 0, "bits are read");
	is(request.change.mode, 07777, "as far as a file can have them");
	is(file_with_number(T_UID, UINT32_MAX - 1, &request), 0, "the last id is one");
	ok(request.change.uid_given && request.change.uid == UINT32_MAX - 1, "and kept");
	is(file_with_number(T_GID, UINT32_MAX, &request), -EINVAL, "the one behind means something else");
	is(file_with_number(T_UID, (uint64_t)1 << 32, &request), -EINVAL, "larger ones do not become small");
	is(file_with_number(T_MODIFIED, (uint64_t)-5, &request), 0, "a time is read");
	is(request.change.modified_ns, -5, "before 1970 too");
	is(file_with_number(T_EXCLUSIVE, 1, &request), 0, "what may not be replaced is read");
	ok(request.exclusive == 1 && !request.below, "and nothing else with it");
	msg_put_string(&writer, T_BELOW, "a/b");
	is(requests_file(fields(), &request, &e), 0, "so is what is meant below it");
	is_string(request.below, "a/b", "as it is");
	is(file_with_number(T_SIGNAL, 1, &request), -EINVAL, "a field that has no place here is refused");
	begin();
	msg_put_string(&writer, T_PATH, "p");
	is(requests_file(fields(), &request, &e), -EINVAL, "a relative path is refused");
	begin();
	msg_put_string(&writer, T_PATH, "/p");
	msg_put_string(&writer, T_TO, "q");
	is(requests_file(fields(), &request, &e), -EINVAL, "so is a relative second one");
	begin();
	is(requests_file(fields(), &request, &e), -EINVAL, "and none");
}

static void test_others(void)
{
	struct connect_request connection;
	struct exec_order order;

	begin();
	msg_put_number(&writer, T_NUMBER, 3);
	msg_put_number(&writer, T_ROWS, 4);
	is(requests_exec(fields(), &order, &e), 0, "a request on a command is read");
	ok(order.number == 3 && order.rows == 4 && !order.columns && !order.signal, "with what it has");
	msg_put_string(&writer, T_SIGNAL, "x");
	is(requests_exec(fields(), &order, &e), -EINVAL, "but not if a number is none");
	begin();
	msg_put_string(&writer, T_NAME, "name");
	is(requests_connect(fields(), &connection, &e), 0, "a request to connect is read");
	is_string(connection.name, "name", "with its name");
	msg_put_number(&writer, T_PATH, 1);
	is(requests_connect(fields(), &connection, &e), -EINVAL, "but not with anything else");
}

int main(void)
{
	test_files();
	test_others();
	return tap_end();
}
