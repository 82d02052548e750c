/* Commands of a sandbox: started, listed, signalled, reaped and remembered by its init. */
#ifndef TRAFORO_EXECS_H
#define TRAFORO_EXECS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "msg.h"
#include "terminals.h"

#define EXECS_MAX 4096
#define EXEC_STRINGS_MAX 4096
#define EXECS_POLLS (3 * EXECS_MAX + TERMINAL_POLLS * TERMINALS_MAX)

/* A request to start a command. Strings point into the message. */
struct exec_request {
	uint64_t number;
	const uint8_t *label;
	uint32_t label_length;
	size_t arg_count;
	const char *args[EXEC_STRINGS_MAX + 1]; /* ends with NULL */
	size_t env_count;
	const char *env[EXEC_STRINGS_MAX + 1];
	const char *cwd;  /* NULL for the user's home */
	const char *user;
	uint64_t stdin_pipe;
	uint64_t rows;    /* of a terminal, 0 for none */
	uint64_t columns;
};

struct exec {
	uint64_t number;
	pid_t pid;
	int status;      /* wait status, once exited */
	bool exited;
	bool unsent;     /* the worker has not been told of the exit */
	bool released;   /* the worker has its end; we only mind what it left behind */
	bool has_cgroup;
	bool listed;     /* while it began: somebody waits for its end */
	int beginning;   /* read end of a pipe that ends when it is its command; -1 from then on */
	uint32_t request;  /* that asked for it */
	uint64_t patience; /* time at which it is given up, if it has not begun */
	int streams[3];  /* our ends: stdin's write end, stdout's and stderr's read ends; -1 when closed, or there is none */
	struct terminal *terminal; /* NULL for none, or when it is over */
	uint8_t *label;
	uint32_t label_length;
};

struct execs {
	int score;  /* our oom_score_adj, -1 if it cannot be written */
	int cgroup; /* directory of the sandbox's v2 cgroup, or -1 */
	size_t count;
	size_t capacity;
	struct exec *list;
	size_t terminals; /* that are not over */
	size_t beginning; /* that are not their commands yet */
};

/* Has what is forked from now on taken before the init when memory is short, or again as the init itself. */
void execs_score(const struct execs *execs, bool command);
int execs_parse(struct msg_reader fields, struct exec_request *request, struct err *e);
void execs_init(struct execs *execs, int cgroup, int score);
/* Begins to start a command for the request of this id; *exec is valid until the next call. -ENOENT and the like tell why
 * not, in `e->stage` ("user", "limits"). */
int execs_start(struct execs *execs, const struct exec_request *request, uint32_t id, struct exec **exec, struct err *e);
/* Returns the first exec of which it is decided whether it could be started, or NULL. It is decided once: *code is 0, or
 * tells why not, in `e->stage` ("user", "cwd", "exec", "limits"); then nothing of the exec is left but its process, which
 * ends. */
struct exec *execs_begun(struct execs *execs, int *code, struct err *e);
/* Kills and forgets one that has begun and that nobody can be told of. */
void execs_abandon(struct execs *execs, struct exec *exec);
/* Milliseconds until execs_begun has to be asked whatever poll answers; -1 for never. */
int execs_patience(const struct execs *execs);
struct exec *execs_find(struct execs *execs, uint64_t number);
/* Notes that a child of ours ended. Returns true if it was the main process of an exec. */
bool execs_reaped(struct execs *execs, pid_t pid, int status);
/* Signals the main process, or all that descends from it; SIGKILL to all leaves none. -ESRCH if there is none. */
int execs_signal(struct execs *execs, struct exec *exec, int signal, bool tree, struct err *e);
/* Whether it has ended and everything that it wrote is where the worker can read it. */
bool execs_is_over(const struct exec *exec);
/* Lets go of stdin's write end, which is kept until then: the worker's is told by its closing only that a worker ended. */
void execs_close_stdin(struct exec *exec);
/* -ENOTTY where it has no terminal, -ESRCH when it has ended. */
int execs_resize(const struct exec *exec, uint64_t rows, uint64_t columns, struct err *e);
void execs_release(struct exec *exec);
/* What there is to wait for: terminals, and streams of released execs, which are emptied so that what was left behind
 * can go on writing. `polls` has room for EXECS_POLLS. Returns how many. */
size_t execs_poll(const struct execs *execs, struct pollfd *polls);
/* Relays what terminals hold, given what execs_poll filled and poll answered. No exec comes or goes in between. */
void execs_relay(struct execs *execs, const struct pollfd *polls);
/* Reads away what the stream of a released exec holds; forgets released execs of which nothing is left. */
void execs_tidy(struct execs *execs);
/* The streams for the worker, in the order stdout, stderr, stdin. Returns how many; *which is the value of T_STREAMS. */
size_t execs_streams(const struct exec *exec, int *fds, uint64_t *which);

#endif
