/* A directory of its own for a test program, and files in it. */
#ifndef TRAFORO_PLACES_H
#define TRAFORO_PLACES_H

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "tap.h"

static char place[PATH_MAX];

static __attribute__((unused)) void place_make(void)
{
	const char *base = getenv("TMPDIR");

	snprintf(place, sizeof place, "%s/traforo-test-XXXXXX", base && base[0] == '/' ? base : "/tmp");
	need(mkdtemp(place) != NULL, "mkdtemp");
	need(!chmod(place, 0755), "chmod");
}

static __attribute__((unused)) void place_remove(void)
{
	char command[PATH_MAX + 32];

	snprintf(command, sizeof command, "rm -rf -- '%s'", place);
	need(!system(command), "rm");
}

/* The absolute path of something in the place; good until eight more calls. */
static __attribute__((format(printf, 1, 2), unused)) char *at(const char *format, ...)
{
	static char paths[8][2 * PATH_MAX];
	static unsigned turn;
	char *path = paths[turn++ % 8];
	int length = snprintf(path, sizeof paths[0], "%s/", place);
	va_list args;

	va_start(args, format);
	vsnprintf(path + length, sizeof paths[0] - (size_t)length, format, args);
	va_end(args);
	return path;
}

static __attribute__((unused)) void file_make(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	need(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !fchmod(fd, mode), path);
	close(fd);
}

static __attribute__((unused)) void directory_make(const char *path, mode_t mode)
{
	need(!mkdir(path, 0700) && !chmod(path, mode), path);
}

/* The first bytes of a file as a string; NULL if it cannot be opened. */
static __attribute__((unused)) const char *file_text(const char *path)
{
	static char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return NULL;
	length = read(fd, text, sizeof text - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	return text;
}

static __attribute__((unused)) bool is_there(const char *path)
{
	struct stat facts;

	return !lstat(path, &facts);
}

#endif
