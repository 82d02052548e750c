/* The init keeps the inner side open while the command runs: else a command that closes its streams for a moment would
 * look like the end, and the outer side would never cease to be ready. */
#define _GNU_SOURCE
#include "terminals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "paths.h"

#define MULTIPLEXER "/dev/pts/ptmx"
#define OUTPUT_ROOM 16384
#define INPUT_ROOM 4096
#define ROUNDS_MAX 8
/* More than the kernel keeps for a terminal, so all of a command's output is among it; what processes that were left
 * behind go on writing must not put the news of its end off for ever. */
#define DRAIN_MAX (256 * 1024)
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

struct terminal {
	int outer;  /* the side that the init reads and writes */
	int inner;  /* -1 once the command has ended */
	int output; /* write end of the pipe to the worker, -1 when nothing can come any more */
	int input;  /* read end of the pipe from the worker, -1 after its end */
	bool ended;
	bool drained;
	size_t left; /* bytes that may still be looked at before it counts as drained */
	uint8_t last; /* byte of the input */
	size_t output_at, output_length;
	size_t input_at, input_length;
	uint8_t output_buffer[OUTPUT_ROOM];
	uint8_t input_buffer[INPUT_ROOM];
};

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool size_of(uint64_t rows, uint64_t columns, struct winsize *size)
{
	*size = (struct winsize){.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
	return rows >= 1 && rows <= TERMINAL_SIDE_MAX && columns >= 1 && columns <= TERMINAL_SIDE_MAX;
}

/* What stands at the name is looked at: a device that is no multiplexer could do anything. */
static int open_outer(struct err *e)
{
	int fd = paths_open(AT_FDCWD, MULTIPLEXER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW, 0);
	struct stat facts;

	if (fd < 0)
		return err_set(e, -fd, "limits", "cannot open another terminal");
	if (!fstat(fd, &facts) && S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(5, 2))
		return fd;
	close(fd);
	return err_set(e, ENODEV, "limits", "there are no terminals here");
}

/* Text is UTF-8 nowadays: who erases a letter means all of its bytes. */
static int prepare(int inner, uid_t owner, const struct winsize *size)
{
	struct termios settings;

	if (fchown(inner, owner, (gid_t)-1) < 0 || ioctl(inner, TIOCSWINSZ, size) < 0 || tcgetattr(inner, &settings) < 0)
		return -errno;
	settings.c_iflag |= IUTF8;
	return tcsetattr(inner, TCSANOW, &settings) < 0 ? -errno : 0;
}

static int open_pair(struct terminal *terminal, uid_t owner, const struct winsize *size, struct err *e)
{
	int locked = 0, code;

	terminal->outer = open_outer(e);
	if (terminal->outer < 0)
		return terminal->outer;
	if (ioctl(terminal->outer, TIOCSPTLCK, &locked) < 0)
		return err_set(e, errno, "limits", "cannot unlock a terminal");
	/* By the outer side and not by its name, at which something else might stand. */
	terminal->inner = ioctl(terminal->outer, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (terminal->inner < 0)
		return err_set(e, errno, "limits", "cannot open the inner side of a terminal");
	code = prepare(terminal->inner, owner, size);
	return code ? err_set(e, -code, "limits", "cannot prepare a terminal") : 0;
}

static int open_pipes(struct terminal *terminal, int streams[3], struct err *e)
{
	int output[2], input[2];

	if (pipe2(output, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(e, errno, "limits", "cannot make a pipe");
	streams[1] = output[0];
	terminal->output = output[1];
	if (pipe2(input, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(e, errno, "limits", "cannot make a pipe");
	streams[0] = input[1];
	terminal->input = input[0];
	return 0;
}

int terminals_open(uint64_t rows, uint64_t columns, uid_t owner, struct terminal **result, int streams[3], int *inner,
		   struct err *e)
{
	struct terminal *terminal;
	struct winsize size;
	int code;

	streams[0] = streams[1] = streams[2] = -1;
	if (!size_of(rows, columns, &size))
		return err_set(e, EINVAL, "request", "a terminal has 1 to %d rows and columns", TERMINAL_SIDE_MAX);
	terminal = malloc(sizeof *terminal);
	if (!terminal)
		return err_set(e, ENOMEM, "limits", "no memory for a terminal");
	terminal->outer = terminal->inner = terminal->output = terminal->input = -1;
	terminal->ended = terminal->drained = false;
	terminal->left = DRAIN_MAX;
	terminal->last = '\n';
	terminal->output_at = terminal->output_length = terminal->input_at = terminal->input_length = 0;
	code = open_pair(terminal, owner, &size, e);
	if (!code)
		code = open_pipes(terminal, streams, e);
	if (!code) {
		*inner = fcntl(terminal->inner, F_DUPFD_CLOEXEC, 3);
		if (*inner < 0)
			code = err_set(e, errno, "limits", "cannot keep a terminal open");
	}
	if (code) {
		shut(&streams[0]);
		shut(&streams[1]);
		terminals_close(terminal);
		return code;
	}
	*result = terminal;
	return 0;
}

int terminals_enter(void)
{
	return ioctl(0, TIOCSCTTY, 0) < 0 || dup2(0, 1) < 0 || dup2(0, 2) < 0 ? errno : 0;
}

int terminals_resize(const struct terminal *terminal, uint64_t rows, uint64_t columns, struct err *e)
{
	struct winsize size;

	if (!size_of(rows, columns, &size))
		return err_set(e, EINVAL, "request", "a terminal has 1 to %d rows and columns", TERMINAL_SIDE_MAX);
	return ioctl(terminal->outer, TIOCSWINSZ, &size) < 0 ? err_set(e, errno, "resize", "cannot resize") : 0;
}

/* Entries that wait for nothing are switched off: the end of a side would be told in them again and again. */
void terminals_poll(const struct terminal *terminal, struct pollfd *polls)
{
	bool reads = terminal->output >= 0 && !terminal->output_length, writes = terminal->input_length;

	polls[0] = (struct pollfd){
		.fd = reads || writes ? terminal->outer : -1,
		.events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)),
	};
	polls[1] = (struct pollfd){.fd = terminal->output_length ? terminal->output : -1, .events = POLLOUT};
	polls[2] = (struct pollfd){.fd = writes ? -1 : terminal->input, .events = POLLIN};
}

/* Returns false when there is nothing to read now, or ever again. The kernel hands over all that was written before it
 * says so, also what it has not yet moved to where poll would see it. */
static bool read_output(struct terminal *terminal, bool *closed)
{
	ssize_t got = read(terminal->outer, terminal->output_buffer, OUTPUT_ROOM);

	*closed = !got || (got < 0 && errno != EAGAIN && errno != EINTR);
	if (got <= 0)
		return got < 0 && errno == EINTR;
	terminal->output_at = 0;
	terminal->output_length = (size_t)got;
	if (terminal->ended)
		terminal->left -= terminal->left < (size_t)got ? terminal->left : (size_t)got;
	return true;
}

/* Returns false when the pipe is full. */
static bool write_output(struct terminal *terminal)
{
	ssize_t put = write(terminal->output, terminal->output_buffer + terminal->output_at, terminal->output_length);

	if (put < 0)
		return errno == EINTR;
	terminal->output_at += (size_t)put;
	terminal->output_length -= (size_t)put;
	return true;
}

static void move_output(struct terminal *terminal)
{
	bool closed = false;

	for (int round = 0; round < ROUNDS_MAX && terminal->output >= 0; round++) {
		if (!terminal->output_length && !read_output(terminal, &closed)) {
			terminal->drained = terminal->ended;
			if (closed)
				shut(&terminal->output);
			return;
		}
		while (terminal->output_length)
			if (!write_output(terminal))
				return;
		if (terminal->ended && !terminal->left)
			terminal->drained = true;
	}
}

/* The end of the pipe becomes the character that means it; in the middle of a line the first one only ends the line. */
static void put_end(struct terminal *terminal)
{
	struct termios settings;
	uint8_t end = 4;
	bool lines = false;

	if (!tcgetattr(terminal->outer, &settings)) {
		lines = settings.c_lflag & ICANON;
		if (lines && settings.c_cc[VEOF])
			end = settings.c_cc[VEOF];
	}
	terminal->input_buffer[0] = terminal->input_buffer[1] = end;
	terminal->input_at = 0;
	terminal->input_length = lines && terminal->last != '\n' && terminal->last != '\r' ? 2 : 1;
	shut(&terminal->input);
}

/* Returns false when there is nothing to read now. */
static bool read_input(struct terminal *terminal)
{
	ssize_t got = terminal->input < 0 ? -1 : read(terminal->input, terminal->input_buffer, INPUT_ROOM);

	if (terminal->input < 0 || got < 0)
		return false;
	if (!got) {
		put_end(terminal);
		return true;
	}
	terminal->input_at = 0;
	terminal->input_length = (size_t)got;
	terminal->last = terminal->input_buffer[got - 1];
	return true;
}

static void move_input(struct terminal *terminal)
{
	for (int round = 0; round < ROUNDS_MAX; round++) {
		ssize_t put;

		if (!terminal->input_length && !read_input(terminal))
			return;
		put = write(terminal->outer, terminal->input_buffer + terminal->input_at, terminal->input_length);
		if (put <= 0) {
			if (put < 0 && errno != EAGAIN && errno != EINTR)
				terminal->input_length = 0; /* nobody could ever read it */
			return;
		}
		terminal->input_at += (size_t)put;
		terminal->input_length -= (size_t)put;
	}
}

void terminals_move(struct terminal *terminal)
{
	if (!terminal->ended)
		move_input(terminal);
	move_output(terminal);
}

void terminals_end(struct terminal *terminal)
{
	terminal->ended = true;
	terminal->input_length = 0;
	shut(&terminal->input);
	shut(&terminal->inner);
	move_output(terminal);
}

bool terminals_drained(const struct terminal *terminal)
{
	return terminal->drained || terminal->output < 0;
}

bool terminals_done(const struct terminal *terminal)
{
	return terminal->ended && terminal->output < 0;
}

void terminals_close(struct terminal *terminal)
{
	shut(&terminal->outer);
	shut(&terminal->inner);
	shut(&terminal->output);
	shut(&terminal->input);
	free(terminal);
}
