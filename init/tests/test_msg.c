#define _GNU_SOURCE
#include "msg.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "tap.h"

static uint8_t buffer[MSG_MAX];

/* Opens a message of `length` bytes that was written here; malloc'ed, so that a sanitizer sees a read past its end. */
static uint8_t *exact(const void *data, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	need(copy, "malloc");
	memcpy(copy, data, length);
	return copy;
}

static void test_round_trip(void)
{
	struct msg_writer writer;
	struct msg_header header;
	struct msg_reader reader, inner;
	struct msg_field field;
	uint64_t number = 0;
	size_t nested;

	msg_begin(&writer, buffer, sizeof buffer, M_EXEC, 0xdeadbeef);
	msg_put_string(&writer, T_ARG, "true");
	msg_put_number(&writer, T_NUMBER, 0x0123456789abcdef);
	nested = msg_begin_nested(&writer, T_ENTRY);
	msg_put_string(&writer, T_NAME, "");
	msg_put(&writer, T_LABEL, "\0\1", 2);
	msg_end_nested(&writer, nested);
	msg_put(&writer, T_LABEL, NULL, 0);
	ok(!writer.overflow, "a small message fits");

	is(msg_open(buffer, writer.length, &header, &reader), 0, "it opens");
	is(header.type, M_EXEC, "with its type");
	is(header.id, 0xdeadbeef, "and its id");
	ok(msg_next(&reader, &field) == 1 && field.tag == T_ARG, "a string field comes first");
	is_string(msg_string(&field), "true", "with its text");
	ok(!msg_number(&field, &number), "a string of five bytes is no number");
	ok(msg_next(&reader, &field) == 1 && msg_number(&field, &number), "a number field comes second");
	is(number, 0x0123456789abcdef, "with its value");
	ok(msg_next(&reader, &field) == 1 && field.tag == T_ENTRY, "a nested field comes third");
	inner = msg_nested(&field);
	ok(msg_next(&inner, &field) == 1 && msg_string(&field) && !msg_string(&field)[0], "with an empty string");
	ok(msg_next(&inner, &field) == 1 && field.length == 2 && !msg_string(&field), "and bytes that are no string");
	is(msg_next(&inner, &field), 0, "and no more");
	ok(msg_next(&reader, &field) == 1 && !field.length && !msg_string(&field), "an empty field is no string");
	is(msg_next(&reader, &field), 0, "then the message ends");
	is(msg_next(&reader, &field), 0, "and stays at its end");
}

static void test_layout(void)
{
	static const uint8_t expected[] = {27, 0, 0, 0, 4, 3, 2, 1, 80, 0, 0, 0, 2, 0, 0, 0, '/', 0};
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_PING, 0x01020304);
	msg_put_string(&writer, T_PATH, "/");
	ok(writer.length == sizeof expected && !memcmp(buffer, expected, sizeof expected),
	   "integers are little endian and nothing is aligned");
}

/* Reads `length` bytes as a message and returns what the last msg_next said, or msg_open if that refused. */
static int read_all(const uint8_t *data, size_t length)
{
	uint8_t *copy = exact(data, length);
	struct msg_header header;
	struct msg_reader reader;
	struct msg_field field;
	int code = msg_open(copy, length, &header, &reader);

	while (!code && (code = msg_next(&reader, &field)) == 1)
		code = 0;
	free(copy);
	return code;
}

static void test_torn(void)
{
	struct msg_writer writer;
	int whole = 0, torn = 0;
	uint8_t bad[32];

	for (size_t length = 0; length < 8; length++)
		torn += read_all(buffer, length) == -EBADMSG;
	is(torn, 8, "less than a header is no message");

	msg_begin(&writer, buffer, sizeof buffer, M_PING, 1);
	msg_put_string(&writer, T_PATH, "/tmp");
	msg_put_number(&writer, T_MODE, 7);
	torn = 0;
	for (size_t length = 8; length <= writer.length; length++) {
		int code = read_all(buffer, length);

		whole += !code;
		torn += code == -EBADMSG;
	}
	is(whole, 3, "a message may end behind its header and behind each field");
	is(torn, (int)writer.length - 8 + 1 - 3, "and nowhere else");

	memcpy(bad, buffer, sizeof bad);
	bad[2] = 1;
	is(read_all(bad, 8), -EBADMSG, "a header's zero must be zero");
	memcpy(bad, buffer, sizeof bad);
	bad[8 + 2] = 1;
	is(read_all(bad, 21), -EBADMSG, "a field's zero must be zero");
	memcpy(bad, buffer, sizeof bad);
	memset(bad + 8 + 4, 0xff, 4);
	is(read_all(bad, sizeof bad), -EBADMSG, "a length of 4 GiB does not wrap around");
}

static void test_strings(void)
{
	const struct {
		const char *data;
		uint32_t length;
		bool good;
	} cases[] = {{"a\0", 2, true}, {"\0", 1, true}, {"ab", 2, false}, {"a\0b\0", 4, false}, {"\0\0", 2, false}};
	struct msg_field field = {.tag = T_PATH};
	uint64_t number;
	int right = 0;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		field.data = (const uint8_t *)cases[i].data;
		field.length = cases[i].length;
		right += !!msg_string(&field) == cases[i].good;
	}
	is(right, sizeof cases / sizeof *cases, "a string ends with its only NUL");
	field.data = (const uint8_t *)"123456789";
	field.length = 9;
	ok(!msg_number(&field, &number), "nine bytes are no number");
	field.length = 7;
	ok(!msg_number(&field, &number), "nor are seven");
}

static void test_overflow(void)
{
	struct msg_writer writer;
	size_t length, nested;
	uint8_t *small;

	for (size_t capacity = 0; capacity < 8; capacity++) {
		small = malloc(capacity + 1);
		msg_begin(&writer, small, capacity, M_OK, 1);
		ok(writer.overflow && !writer.length, "%zu bytes have no room for a header", capacity);
		free(small);
	}
	small = malloc(30);
	msg_begin(&writer, small, 30, M_OK, 1);
	msg_put(&writer, T_LABEL, "123456789abcde", 14);
	ok(!writer.overflow && writer.length == 30, "a field fits to the last byte");
	msg_put(&writer, T_LABEL, NULL, 0);
	ok(writer.overflow && writer.length == 30, "then nothing does");
	msg_begin(&writer, small, 30, M_OK, 1);
	msg_put(&writer, T_LABEL, "123456789abcdef", 15);
	ok(writer.overflow, "one byte more does not fit");
	length = writer.length;
	msg_put(&writer, T_LABEL, "1", 1);
	ok(writer.overflow && writer.length == length, "and nothing smaller slips in behind it");
	msg_begin(&writer, small, 30, M_OK, 1);
	msg_put(&writer, T_LABEL, small, SIZE_MAX - 4);
	ok(writer.overflow, "a length near SIZE_MAX does not wrap around");
	msg_begin(&writer, small, 12, M_OK, 1);
	nested = msg_begin_nested(&writer, T_ENTRY);
	msg_end_nested(&writer, nested);
	ok(writer.overflow && writer.length == 8, "a nested field without room is not begun and not ended");
	is(msg_send(-1, &writer, NULL, 0, 0), -EMSGSIZE, "an overflowed message is not sent");
	free(small);
}

static int pair[2];

static size_t open_count(void)
{
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void test_descriptors(void)
{
	int sent[MSG_FDS_MAX + 1], fds[MSG_FDS_MAX];
	struct msg_writer writer;
	size_t count, before;
	int closing = 0;

	for (size_t i = 0; i < MSG_FDS_MAX + 1; i++)
		sent[i] = dup(0);
	before = open_count();
	msg_begin(&writer, buffer, sizeof buffer, M_OK, 5);
	is(msg_send(pair[0], &writer, sent, MSG_FDS_MAX + 1, 0), -EMSGSIZE,
	   "more descriptors than allowed are not sent");
	is(msg_send(pair[0], &writer, sent, MSG_FDS_MAX, 0), 0, "as many as allowed are");
	is(msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0), 8, "the message arrives");
	is(count, MSG_FDS_MAX, "with all of them");
	for (size_t i = 0; i < count; i++)
		closing += fcntl(fds[i], F_GETFD) == FD_CLOEXEC;
	is(closing, MSG_FDS_MAX, "each closes on exec");
	msg_close_fds(fds, count);
	is(open_count(), before, "none is left over");
	msg_begin(&writer, buffer, sizeof buffer, M_OK, 5);
	is(msg_send(pair[0], &writer, NULL, 0, 0), 0, "a message without descriptors is sent");
	msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0);
	is(count, 0, "and brings none");
	msg_close_fds(sent, MSG_FDS_MAX + 1);
}

/* Sends more descriptors than a receiver takes, as only somebody else's code would. */
static void send_many(int fd, size_t fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 64)];
	} control;
	struct iovec part = {buffer, 8};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
	struct cmsghdr *head;
	int fds[64] = {0};

	memset(&control, 0, sizeof control);
	message.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * fd_count);
	head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * fd_count);
	memcpy(CMSG_DATA(head), fds, sizeof(int) * fd_count);
	need(sendmsg(fd, &message, 0) == 8, "sendmsg");
}

static void test_truncation(void)
{
	size_t count, before = open_count();
	int fds[MSG_FDS_MAX];
	struct msg_writer writer;

	send_many(pair[0], MSG_FDS_MAX + 1);
	is(msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0), -EMSGSIZE, "too many descriptors are refused");
	ok(!count && open_count() == before, "and none of them stays open");
	send_many(pair[0], 64);
	is(msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0), -EMSGSIZE, "so are far too many");
	ok(!count && open_count() == before, "and none of them stays open either");

	msg_begin(&writer, buffer, sizeof buffer, M_OK, 5);
	msg_put(&writer, T_LABEL, "0123456789", 10);
	fds[0] = 0;
	need(!msg_send(pair[0], &writer, fds, 1, 0), "send");
	is(msg_receive(pair[1], buffer, 16, fds, &count, 0), -EMSGSIZE, "a message larger than the buffer is refused");
	ok(!count && open_count() == before, "and keeps no descriptor");
}

static void test_ends(void)
{
	int fds[MSG_FDS_MAX];
	size_t count = 9;
	struct msg_writer writer;

	is(msg_receive(pair[1], buffer, sizeof buffer, fds, &count, MSG_DONTWAIT), -EAGAIN,
	   "nothing to receive is an error");
	is(count, 0, "with no descriptors");
	close(pair[0]);
	is(msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0), 0, "the end is no length");
	msg_begin(&writer, buffer, sizeof buffer, M_OK, 5);
	is(msg_send(pair[1], &writer, NULL, 0, 0), -EPIPE, "sending to nobody is an error and no signal");
	close(pair[1]);
}

static void test_answers(void)
{
	struct err e;
	struct msg_header header;
	struct msg_reader reader;
	struct msg_field field;
	uint64_t number = 0;
	char large[600];
	int fds[MSG_FDS_MAX];
	size_t count;
	ssize_t length;

	memset(large, 'a', sizeof large - 1);
	large[sizeof large - 1] = 0;
	err_set(&e, ENOSPC, "open", "%s", large);
	is(msg_send_error(pair[0], 77, &e, 0), 0, "an error with the longest text is sent");
	length = msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0);
	ok(length > 0 && !msg_open(buffer, (size_t)length, &header, &reader) && header.type == M_ERROR &&
		   header.id == 77,
	   "and answers its request");
	ok(msg_next(&reader, &field) == 1 && field.tag == T_ERRNO && msg_number(&field, &number) && number == ENOSPC,
	   "with the errno");
	ok(msg_next(&reader, &field) == 1 && field.tag == T_STAGE && !strcmp(msg_string(&field), "open"), "the stage");
	ok(msg_next(&reader, &field) == 1 && field.tag == T_TEXT && msg_string(&field), "and the text");
	need(!msg_send_ok(pair[0], 78, 0), "send");
	length = msg_receive(pair[1], buffer, sizeof buffer, fds, &count, 0);
	ok(length == 8 && !msg_open(buffer, 8, &header, &reader) && header.type == M_OK && header.id == 78,
	   "a bare OK is a header");
}

int main(void)
{
	need(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
	test_round_trip();
	test_layout();
	test_torn();
	test_strings();
	test_overflow();
	test_descriptors();
	test_truncation();
	test_answers();
	test_ends();
	return tap_end();
}
