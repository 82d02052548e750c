/* Connections to servers of the sandbox, for a worker that cannot make them itself. */
#ifndef TRAFORO_CONNECTS_H
#define TRAFORO_CONNECTS_H

#include <stdint.h>

#include "err.h"

/* Makes a non-blocking stream socket that is connected, or is being connected, to a TCP port on loopback (`version` 4 or
 * 6), or to the abstract Unix socket `name` where that is not NULL. Returns the descriptor. */
int connects_open(uint64_t port, uint64_t version, const char *name, struct err *e);

#endif
