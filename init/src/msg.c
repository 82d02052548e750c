#define _GNU_SOURCE
#include "msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_SIZE 8
#define FIELD_SIZE 8

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint64_t get64(const uint8_t *at)
{
	return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
}

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, (uint16_t)value);
	put16(at + 2, (uint16_t)(value >> 16));
}

int msg_open(const uint8_t *data, size_t length, struct msg_header *header, struct msg_reader *reader)
{
	if (length < HEADER_SIZE)
		return -EBADMSG;
	header->type = get16(data);
	header->zero = get16(data + 2);
	header->id = get32(data + 4);
	if (header->zero)
		return -EBADMSG;
	reader->at = data + HEADER_SIZE;
	reader->end = data + length;
	return 0;
}

int msg_next(struct msg_reader *reader, struct msg_field *field)
{
	size_t left = (size_t)(reader->end - reader->at);

	if (!left)
		return 0;
	if (left < FIELD_SIZE || get16(reader->at + 2))
		return -EBADMSG;
	field->tag = get16(reader->at);
	field->length = get32(reader->at + 4);
	if (field->length > left - FIELD_SIZE)
		return -EBADMSG;
	field->data = reader->at + FIELD_SIZE;
	reader->at = field->data + field->length;
	return 1;
}

const char *msg_string(const struct msg_field *field)
{
	if (!field->length || memchr(field->data, 0, field->length) != field->data + field->length - 1)
		return NULL;
	return (const char *)field->data;
}

bool msg_number(const struct msg_field *field, uint64_t *value)
{
	if (field->length != 8)
		return false;
	*value = get64(field->data);
	return true;
}

struct msg_reader msg_nested(const struct msg_field *field)
{
	return (struct msg_reader){field->data, field->data + field->length};
}

void msg_begin(struct msg_writer *writer, uint8_t *buffer, size_t capacity, uint16_t type, uint32_t id)
{
	*writer = (struct msg_writer){.buffer = buffer, .capacity = capacity};
	if (capacity < HEADER_SIZE) {
		writer->overflow = true;
		return;
	}
	put16(buffer, type);
	put16(buffer + 2, 0);
	put32(buffer + 4, id);
	writer->length = HEADER_SIZE;
}

void msg_put(struct msg_writer *writer, uint16_t tag, const void *data, size_t length)
{
	uint8_t *at = writer->buffer + writer->length;

	if (writer->overflow || length > writer->capacity || writer->capacity - length < writer->length + FIELD_SIZE) {
		writer->overflow = true;
		return;
	}
	put16(at, tag);
	put16(at + 2, 0);
	put32(at + 4, (uint32_t)length);
	if (length)
		memcpy(at + FIELD_SIZE, data, length);
	writer->length += FIELD_SIZE + length;
}

void msg_put_string(struct msg_writer *writer, uint16_t tag, const char *text)
{
	msg_put(writer, tag, text, strlen(text) + 1);
}

void msg_put_number(struct msg_writer *writer, uint16_t tag, uint64_t value)
{
	uint8_t bytes[8];

	put32(bytes, (uint32_t)value);
	put32(bytes + 4, (uint32_t)(value >> 32));
	msg_put(writer, tag, bytes, sizeof bytes);
}

size_t msg_begin_nested(struct msg_writer *writer, uint16_t tag)
{
	size_t position = writer->length;

	msg_put(writer, tag, NULL, 0);
	return position;
}

void msg_end_nested(struct msg_writer *writer, size_t position)
{
	if (!writer->overflow)
		put32(writer->buffer + position + 4, (uint32_t)(writer->length - position - FIELD_SIZE));
}

int msg_send(int fd, const struct msg_writer *writer, const int *fds, size_t fd_count, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
	} control;
	struct iovec part = {writer->buffer, writer->length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (writer->overflow || fd_count > MSG_FDS_MAX)
		return -EMSGSIZE;
	if (fd_count) {
		struct cmsghdr *head;

		memset(&control, 0, sizeof control);
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(head), fds, sizeof(int) * fd_count);
	}
	while (sendmsg(fd, &message, flags | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

void msg_close_fds(const int *fds, size_t fd_count)
{
	for (size_t i = 0; i < fd_count; i++)
		close(fds[i]);
}

ssize_t msg_receive(int fd, uint8_t *buffer, size_t capacity, int *fds, size_t *fd_count, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
	} control;
	struct iovec part = {buffer, capacity};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes,
	};
	ssize_t length;

	*fd_count = 0;
	while ((length = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC)) < 0)
		if (errno != EINTR)
			return -errno;
	for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
		size_t count;

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (count > MSG_FDS_MAX - *fd_count)
			count = MSG_FDS_MAX - *fd_count;
		memcpy(fds + *fd_count, CMSG_DATA(head), count * sizeof(int));
		*fd_count += count;
	}
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		msg_close_fds(fds, *fd_count);
		*fd_count = 0;
		return -EMSGSIZE;
	}
	return length;
}

int msg_send_error(int fd, uint32_t id, const struct err *e, int flags)
{
	uint8_t buffer[512];
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_ERROR, id);
	msg_put_number(&writer, T_ERRNO, (uint64_t)e->code);
	msg_put_string(&writer, T_STAGE, e->stage ? e->stage : "");
	msg_put_string(&writer, T_TEXT, e->text);
	return msg_send(fd, &writer, NULL, 0, flags);
}

int msg_send_ok(int fd, uint32_t id, int flags)
{
	uint8_t buffer[16];
	struct msg_writer writer;

	msg_begin(&writer, buffer, sizeof buffer, M_OK, id);
	return msg_send(fd, &writer, NULL, 0, flags);
}
