#define _GNU_SOURCE
#include "terminals.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include "tap.h"

#define MANY (1 << 20)

static struct err e;
static struct terminal *terminal;
static int streams[3], inner;

static void start(void)
{
	need(!terminals_open(24, 80, geteuid(), &terminal, streams, &inner, &e), "terminals_open");
}

static void raw(void)
{
	struct termios settings;

	need(!tcgetattr(inner, &settings), "tcgetattr");
	settings.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
	settings.c_oflag &= ~(tcflag_t)OPOST;
	need(!tcsetattr(inner, TCSANOW, &settings), "tcsetattr");
}

static void finish(void)
{
	for (int i = 0; i < 3; i++)
		if (streams[i] >= 0)
			close(streams[i]);
	terminals_close(terminal);
}

/* Moves until nothing is ready for so long; returns how often something was. The kernel takes bytes from one side of a
 * terminal to the other when it finds time. */
static int turn_for(int milliseconds)
{
	struct pollfd polls[TERMINAL_POLLS];
	int rounds = 0;

	for (; rounds < 1000; rounds++) {
		terminals_poll(terminal, polls);
		if (poll(polls, TERMINAL_POLLS, milliseconds) <= 0)
			return rounds;
		terminals_move(terminal);
	}
	return rounds;
}

static int turn(void)
{
	return turn_for(0);
}

static const char *output(void)
{
	static char text[8192];
	ssize_t length;

	turn_for(100);
	length = read(streams[1], text, sizeof text - 1);
	text[length > 0 ? length : 0] = 0;
	return length < 0 ? "nothing" : text;
}

static void test_relay(void)
{
	struct winsize size = {0};
	char text[64] = {0};

	start();
	is(streams[2], -1, "there is no second output");
	ok(isatty(inner) && !ioctl(inner, TIOCGWINSZ, &size) && size.ws_row == 24 && size.ws_col == 80,
	   "the command gets a terminal of the size");
	is(write(inner, "out\n", 4), 4, "it writes");
	is_string(output(), "out\r\n", "which arrives");
	is(write(streams[0], "in\n", 3), 3, "the worker writes");
	is_string(output(), "in\r\n", "which is shown");
	is(read(inner, text, sizeof text), 3, "and read");
	is(terminals_resize(terminal, 4096, 1, &e), 0, "the size can be changed");
	ok(!ioctl(inner, TIOCGWINSZ, &size) && size.ws_row == 4096 && size.ws_col == 1, "and is");
	is(terminals_resize(terminal, 4097, 1, &e), -EINVAL, "but not beyond");
	is(terminals_resize(terminal, 1, 0, &e), -EINVAL, "or to nothing");
	turn_for(100);
	is(turn(), 0, "and there is nothing to do");
	close(inner);
	finish();
}

static void test_input_end(void)
{
	struct pollfd readable = {.events = POLLIN};
	char text[64] = {0};

	start();
	is(write(streams[0], "half", 4), 4, "half a line is written");
	close(streams[0]);
	streams[0] = -1;
	turn_for(100);
	is(read(inner, text, sizeof text), 4, "it is read when the input ends");
	is(read(inner, text, sizeof text), 0, "and then the end");
	readable.fd = inner;
	is(poll(&readable, 1, 0), 0, "once");
	close(inner);
	finish();
}

/* Writes as fast as it can until the terminal is full. */
static size_t fill(int fd)
{
	static const char block[4096];
	size_t total = 0;
	ssize_t put;

	need(!fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl");
	for (int idle = 0; idle < 3 && total < MANY;) {
		put = write(fd, block, sizeof block);
		total += put > 0 ? (size_t)put : 0;
		idle = put > 0 || turn_for(20) ? 0 : idle + 1;
	}
	return total;
}

static void test_pressure(void)
{
	size_t written, got = 0;
	static char block[65536];
	ssize_t length;

	start();
	raw();
	written = fill(inner);
	ok(written > 65536 && written < MANY, "an output that nobody reads is held back");
	is(turn(), 0, "without anything to do meanwhile");
	close(inner);
	terminals_end(terminal);
	ok(!terminals_drained(terminal), "the end is not told before all of it can be read");
	for (int round = 0; round < 1000 && !terminals_done(terminal); round++) {
		while ((length = read(streams[1], block, sizeof block)) > 0)
			got += (size_t)length;
		turn();
	}
	ok(terminals_drained(terminal) && terminals_done(terminal), "it is when it was");
	while ((length = read(streams[1], block, sizeof block)) > 0)
		got += (size_t)length;
	is(length, 0, "then comes the end");
	is(got, written, "and nothing is lost");
	finish();
	start();
	raw();
	ok(fill(streams[0]) < MANY, "an input that nobody reads is held back");
	is(turn(), 0, "without anything to do meanwhile");
	close(inner);
	finish();
}

static void test_left_behind(void)
{
	start();
	is(write(inner, "last words\n", 11), 11, "a command writes and ends");
	terminals_end(terminal);
	ok(terminals_drained(terminal), "which is told though somebody has the terminal open");
	ok(!terminals_done(terminal), "who may write on");
	is_string(output(), "last words\r\n", "all is there");
	is(write(streams[0], "x", 1), -1, "nobody takes input");
	is(errno, EPIPE, "and the worker hears of it");
	is(write(inner, "more\n", 5), 5, "what is left behind writes");
	is_string(output(), "more\r\n", "and is heard");
	close(inner);
	turn();
	ok(terminals_done(terminal), "until it has the terminal closed");
	is(read(streams[1], (char[1]){0}, 1), 0, "then is the end");
	finish();
}

static int lead(void *context)
{
	(void)context;
	if (setsid() < 0 || dup2(inner, 0) < 0 || terminals_enter())
		return 1;
	if (tcgetpgrp(0) != getpid() || open("/dev/tty", O_RDWR | O_CLOEXEC) < 0)
		return 2;
	return isatty(1) && isatty(2) ? 0 : 3;
}

static void test_session(void)
{
	start();
	is(in_child(lead, NULL), 0, "the command leads a session on it");
	close(inner);
	finish();
	is(terminals_open(0, 80, 0, &terminal, streams, &inner, &e), -EINVAL, "no terminal has no rows");
	is(terminals_open(24, 65536 + 80, 0, &terminal, streams, &inner, &e), -EINVAL, "or too many columns");
}

static void test_nothing_is_left(void)
{
	int before = dup(0);

	close(before);
	for (int i = 0; i < 2000; i++) {
		start();
		close(inner);
		finish();
	}
	is(dup(0), before, "two thousand terminals leave no descriptor");
}

int main(void)
{
	struct stat facts;

	signal(SIGPIPE, SIG_IGN);
	if (geteuid() || stat("/dev/pts/ptmx", &facts)) {
		skip("terminals are relayed", "needs root and /dev/pts/ptmx");
		return tap_end();
	}
	test_relay();
	test_input_end();
	test_pressure();
	test_left_behind();
	test_session();
	test_nothing_is_left();
	return tap_end();
}
