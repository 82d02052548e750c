/* Commands of a sandbox: started, listed, signalled, reaped and remembered by its init. */
#ifndef TRAFORO_EXECS_H
#define TRAFORO_EXECS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "msg.h"

#define EXECS_MAX 4096
#define EXEC_STRINGS_MAX 4096

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
};

struct exec {
	uint64_t number;
	pid_t pid;
	int status;      /* wait status, once exited */
	bool exited;
	bool unsent;     /* the worker has not been told of the exit */
	bool released;   /* the worker has its end; we only mind what it left behind */
	bool has_cgroup;
	int streams[3];  /* our ends: stdin's write end, stdout's and stderr's read ends; -1 when closed */
	uint8_t *label;
	uint32_t label_length;
};

struct execs {
	int score;  /* our oom_score_adj, -1 if it cannot be written */
	int cgroup; /* directory of the sandbox's v2 cgroup, or -1 */
	size_t count;
	size_t capacity;
	struct exec *list;
	struct exec_failure *failure; /* memory shared with a child until it has become its command */
};

int execs_parse(struct msg_reader fields, struct exec_request *request, struct err *e);
int execs_init(struct execs *execs, int cgroup, int score, struct err *e);
/* Starts a command; *exec is valid until the next call. -ENOENT and the like tell why not, in `e->stage`
 * ("user", "cwd", "exec", "limits"). */
int execs_start(struct execs *execs, const struct exec_request *request, struct exec **exec, struct err *e);
struct exec *execs_find(struct execs *execs, uint64_t number);
/* Notes that a child of ours ended. Returns true if it was the main process of an exec. */
bool execs_reaped(struct execs *execs, pid_t pid, int status);
/* Signals the main process, or all that descends from it; SIGKILL to all leaves none. -ESRCH if there is none. */
int execs_signal(struct execs *execs, struct exec *exec, int signal, bool tree, struct err *e);
/* Lets go of stdin's write end: from now on the worker's is the only one, and its closing is the command's end of file. */
void execs_hand_over_stdin(struct exec *exec);
void execs_release(struct exec *exec);
/* Streams of released execs, to be watched and emptied so that what was left behind can go on writing. */
size_t execs_poll(const struct execs *execs, struct pollfd *polls, size_t capacity);
/* Reads away what such a stream holds; forgets released execs of which nothing is left. */
void execs_tidy(struct execs *execs);
/* Copies of the streams for the worker, stdout and stderr first. Returns how many. */
size_t execs_streams(const struct exec *exec, int *fds);

#endif
