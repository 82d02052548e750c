/* Terminals of commands: a pair in the sandbox's own devpts, relayed to two pipes by the init.
 *
 * The worker sees pipes only: an open file that it shares with an init could be made blocking by it, and a terminal must
 * outlive the worker. Nothing here waits, and what is on its way is bounded, so that either side holds the other back.
 */
#ifndef TRAFORO_TERMINALS_H
#define TRAFORO_TERMINALS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

#define TERMINALS_MAX 128
#define TERMINAL_SIDE_MAX 4096 /* rows, and columns */
#define TERMINAL_POLLS 3

struct terminal;

/* Opens a pair of this size, whose inner side belongs to `owner`. `streams[0]` becomes the write end of its input and
 * `streams[1]` the read end of its output, both for the worker; `*inner` is for the command, and the caller closes it. */
int terminals_open(uint64_t rows, uint64_t columns, uid_t owner, struct terminal **terminal, int streams[3], int *inner,
		   struct err *e);
/* In the command: makes its stream 0 the controlling terminal and the streams 1 and 2. Returns 0 or an errno. */
int terminals_enter(void);
/* -EINVAL for a size that none can have. Whoever runs in front gets SIGWINCH. */
int terminals_resize(const struct terminal *terminal, uint64_t rows, uint64_t columns, struct err *e);
/* What to wait for: always TERMINAL_POLLS entries. */
void terminals_poll(const struct terminal *terminal, struct pollfd *polls);
/* Moves what can be moved now, a bounded amount. */
void terminals_move(struct terminal *terminal);
/* The command has ended: no more input, and its output comes to an end when nobody else has the terminal open. */
void terminals_end(struct terminal *terminal);
/* Whether everything that the command wrote before it ended is in the pipe. What it left behind may write on. */
bool terminals_drained(const struct terminal *terminal);
/* Whether nothing can come any more. */
bool terminals_done(const struct terminal *terminal);
void terminals_close(struct terminal *terminal);

#endif
