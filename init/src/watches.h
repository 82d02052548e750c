/* Watching a directory, or a whole tree, in a child process that is the user. */
#ifndef TRAFORO_WATCHES_H
#define TRAFORO_WATCHES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "users.h"

enum watch_kind {
	WATCH_READY = 0, /* the first record: from here on nothing is missed; or `error` says why not, and it is the last */
	WATCH_CREATED = 1,
	WATCH_MODIFIED = 2,
	WATCH_ATTRIBUTES = 3,
	WATCH_DELETED = 4,
	WATCH_OVERFLOW = 5, /* changes were lost */
};

/* One change, as M_WATCH writes it to its pipe. Little endian. */
struct watch_record {
	uint32_t length;      /* of the whole record: this struct, path, from */
	uint8_t kind;
	uint8_t directory;
	uint16_t error;
	uint32_t path_length; /* bytes of path that follow, without NUL; relative to the directory that is watched */
	uint32_t from_length; /* bytes of the path behind it where the thing was before it was moved; 0 for none */
} __attribute__((packed));

/* Watches until nobody reads `out`, or until the directory is gone. Links are not followed. The directory is opened
 * before the fork, so that a missing one is an error here. Returns the child's pid. */
pid_t watches_start(const struct user *user, const char *path, bool recursive, int out, struct err *e);

#endif
