/* Messages of the init protocol: a bounded reader and writer, and sending and receiving with descriptors. */
#ifndef TRAFORO_MSG_H
#define TRAFORO_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "protocol.h"

struct msg_header {
	uint16_t type;
	uint16_t zero;
	uint32_t id;
};

struct msg_field {
	uint16_t tag;
	uint32_t length;
	const uint8_t *data;
};

/* Walks fields; `at` moves on. */
struct msg_reader {
	const uint8_t *at;
	const uint8_t *end;
};

struct msg_writer {
	uint8_t *buffer;
	size_t capacity;
	size_t length;
	bool overflow;
};

/* Reads the header and sets the reader behind it. Returns -EBADMSG if there is none. */
int msg_open(const uint8_t *data, size_t length, struct msg_header *header, struct msg_reader *reader);
/* Returns 1 and a field, 0 at the end, -EBADMSG for a torn field. */
int msg_next(struct msg_reader *reader, struct msg_field *field);
/* Returns the string of a field, or NULL unless it ends with its only NUL. */
const char *msg_string(const struct msg_field *field);
/* Returns false unless the field is a number. */
bool msg_number(const struct msg_field *field, uint64_t *value);
/* A reader over a nested field. */
struct msg_reader msg_nested(const struct msg_field *field);

void msg_begin(struct msg_writer *writer, uint8_t *buffer, size_t capacity, uint16_t type, uint32_t id);
void msg_put(struct msg_writer *writer, uint16_t tag, const void *data, size_t length);
void msg_put_string(struct msg_writer *writer, uint16_t tag, const char *text);
void msg_put_number(struct msg_writer *writer, uint16_t tag, uint64_t value);
/* Opens a nested field and returns its position for msg_end_nested. */
size_t msg_begin_nested(struct msg_writer *writer, uint16_t tag);
void msg_end_nested(struct msg_writer *writer, size_t position);

/* Sends one message. `flags` as of sendmsg. Returns 0 or a negative errno. */
int msg_send(int fd, const struct msg_writer *writer, const int *fds, size_t fd_count, int flags);
/* Receives one message; descriptors arrive close-on-exec. Returns its length, 0 at the end, or a negative errno.
 * A truncated message or more than MSG_FDS_MAX descriptors is -EMSGSIZE and keeps none. */
ssize_t msg_receive(int fd, uint8_t *buffer, size_t capacity, int *fds, size_t *fd_count, int flags);
void msg_close_fds(const int *fds, size_t fd_count);

/* Answers a request with M_ERROR built from an error record. */
int msg_send_error(int fd, uint32_t id, const struct err *e, int flags);
/* Answers a request with a bare M_OK. */
int msg_send_ok(int fd, uint32_t id, int flags);

#endif
