/* traforo-init: the spawner, whose children become the inits of sandboxes.
 *
 *     traforo-init spawner SOCKET STAGE [DEVICES]
 *     traforo-init version
 *
 * `spawner` goes to the background when it serves: exit status 0 means that workers can connect.
 *
 * It copies itself into a sealed memory file first and runs from there: what a sandbox sees as /proc/1/exe can then not
 * be written, whatever it manages to open, and an upgrade may replace the file on disk while sandboxes live.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "pid1.h"
#include "protocol.h"
#include "spawner.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int make_memory_file(struct err *e)
{
	int fd = memfd_create("traforo-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 every memory file could be run and the flag was unknown */
		fd = memfd_create("traforo-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? err_set(e, errno, "seal", "cannot make a memory file") : fd;
}

static int copy_into(int from, int to)
{
	struct stat facts;
	off_t left;

	if (fstat(from, &facts) < 0)
		return -errno;
	for (left = facts.st_size; left > 0;) {
		ssize_t sent = sendfile(to, from, NULL, (size_t)left);

		if (sent <= 0)
			return sent ? -errno : -EIO;
		left -= sent;
	}
	return 0;
}

/* Returns only on failure, or when this process runs from a sealed memory file already. */
static int run_sealed(char **argv, struct err *e)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd, code;

	if (self < 0)
		return err_set(e, errno, "seal", "cannot open '/proc/self/exe'");
	code = fcntl(self, F_GET_SEALS);
	if (code >= 0 && (code & SEALS) == SEALS) {
		close(self);
		return 0;
	}
	fd = make_memory_file(e);
	if (fd < 0)
		return fd;
	code = copy_into(self, fd);
	if (code)
		return err_set(e, -code, "seal", "cannot copy the program");
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return err_set(e, errno, "seal", "cannot seal the copy");
	/* The environment of the worker holds its secrets; this memory is copied into every sandbox. */
	fexecve(fd, argv, (char *const[]){NULL});
	return err_set(e, errno, "seal", "cannot run the copy");
}

/* The spawner proper, in a process that nobody waits for; `ready` hears of its start. */
static int serve(const struct spawner_options *options, int ready, struct err *e)
{
	int code;

	if (setsid() < 0)
		return err_set(e, errno, "start", "cannot make a session");
	code = spawner_start(options, e);
	if (code)
		return code;
	if (write(ready, "", 1) != 1)
		return err_set(e, errno, "start", "nobody waits for the spawner");
	close(ready);
	spawner_serve(options);
	return 0;
}

/* Returns in the parent when workers can connect, so that whoever runs this program need neither poll nor reap. */
static int run_spawner(int argc, char **argv, struct err *e)
{
	struct spawner_options options = {.socket_path = argv[2], .stage = argv[3], .devices = argc > 4 ? argv[4] : NULL};
	int pair[2], code = run_sealed(argv, e);
	char byte;
	pid_t pid;

	if (code)
		return code;
	pid1_remember_arguments(argc, argv);
	if (pipe2(pair, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return err_set(e, errno, "start", "cannot leave the foreground");
	if (!pid) {
		close(pair[0]);
		return serve(&options, pair[1], e);
	}
	close(pair[1]);
	/* A child that fails has said why by itself. */
	_exit(read(pair[0], &byte, 1) == 1 ? 0 : 1);
}

int main(int argc, char **argv)
{
	struct err e = {0};

	if (argc == 2 && !strcmp(argv[1], "version")) {
		printf("traforo-init protocol %d\n", PROTOCOL_VERSION);
		return 0;
	}
	if (argc < 4 || argc > 5 || strcmp(argv[1], "spawner")) {
		fprintf(stderr, "usage: traforo-init spawner SOCKET STAGE [DEVICES] | version\n");
		return 2;
	}
	if (run_spawner(argc, argv, &e)) {
		fprintf(stderr, "traforo-init: %s: %s\n", e.text, strerror(e.code));
		return 1;
	}
	return 0;
}
