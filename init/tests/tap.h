/* Test Anything Protocol, as much of it as these tests need. A test program is one main that ends with tap_end(). */
#ifndef TRAFORO_TAP_H
#define TRAFORO_TAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int tap_count, tap_failures;

static __attribute__((format(printf, 4, 5), unused)) bool tap_check(bool good, const char *file, int line,
								    const char *format, ...)
{
	va_list args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	if (!good) {
		printf("#   at %s:%d\n", file, line);
		tap_failures++;
	}
	fflush(stdout); /* a fork must not print it again */
	return good;
}

static __attribute__((unused)) bool tap_numbers(long long actual, long long expected, const char *file, int line,
						const char *what)
{
	if (!tap_check(actual == expected, file, line, "%s", what))
		printf("#   expected %lld, got %lld\n", expected, actual);
	return actual == expected;
}

static __attribute__((unused)) bool tap_strings(const char *actual, const char *expected, const char *file, int line,
						const char *what)
{
	bool good = actual && !strcmp(actual, expected);

	if (!tap_check(good, file, line, "%s", what))
		printf("#   expected '%s', got '%s'\n", expected, actual ? actual : "(null)");
	return good;
}

#define ok(condition, ...) tap_check(condition, __FILE__, __LINE__, __VA_ARGS__)
#define is(actual, expected, what) tap_numbers((long long)(actual), (long long)(expected), __FILE__, __LINE__, what)
#define is_string(actual, expected, what) tap_strings(actual, expected, __FILE__, __LINE__, what)

static __attribute__((unused)) void skip(const char *what, const char *why)
{
	printf("ok %d - %s # SKIP %s\n", ++tap_count, what, why);
	fflush(stdout);
}

/* Ends the program if a step that a test stands on fails: what follows would mean nothing. */
static __attribute__((unused)) void need(bool good, const char *what)
{
	if (good)
		return;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

/* Runs a function in a child and returns its exit status, or 1000 + the signal that ended it. The child's value may not
 * exceed 255, and it prints nothing. */
static __attribute__((unused)) int in_child(int (*function)(void *), void *context)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	need(pid >= 0, "fork");
	if (!pid)
		_exit(function(context));
	while (waitpid(pid, &status, 0) < 0)
		need(errno == EINTR, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static __attribute__((unused)) int tap_end(void)
{
	printf("1..%d\n", tap_count);
	return tap_failures ? 1 : 0;
}

#endif
