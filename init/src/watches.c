/* Events of the kernel name a directory by number and a thing in it by name; what was the path of the directory when the
 * event happened is for us to remember. So directories are nodes with a parent: one that is moved takes along all below
 * it. Where what we find does not fit what we remember, the answer is not cleverness but an overflow: everything is read
 * again, and the reader is told to do the same.
 *
 * No directory is kept open: the kernel tells of the end of one only when nobody has it open. */
#define _GNU_SOURCE
#include "watches.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "paths.h"
#include "rights.h"
#include "trees.h"

#define NODES_MAX 16384
#define BUCKETS 4096
#define NONE (-1)
#define ROOT 0
#define OUTPUT_ROOM 32768
#define EVENTS_ROOM 32768
/* Names that are looked at below one new directory. */
#define SCAN_MAX ((uint64_t)1 << 20)
/* The other half of a move follows at once, unless there is none. */
#define MOVE_MILLISECONDS 10
#define MASK                                                                                                          \
	(IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | \
	 IN_ONLYDIR | IN_EXCL_UNLINK)

struct node {
	int number; /* of the kernel's watch; NONE for a free place */
	int parent;
	int next;   /* with the same hash */
	bool doomed;
	char *name;
};

/* The first half of a move. */
struct move {
	uint32_t cookie; /* 0 for none */
	int parent;
	bool directory;
	char name[NAME_MAX + 1];
};

struct watch {
	int out;
	int events;
	bool recursive;
	bool lost;     /* what is remembered is not true */
	bool reports;  /* what a scan finds is new */
	bool complete; /* every directory that was found is watched */
	uint64_t left;
	const char *path;
	dev_t device;
	ino_t inode;
	int used; /* nodes at and behind this were never used */
	int first_free;
	int last_kind;
	struct move move;
	char last_path[PATH_MAX];
	struct node nodes[NODES_MAX];
	int buckets[BUCKETS];
	size_t buffered;
	char buffer[OUTPUT_ROOM];
};

static void flush(struct watch *watch)
{
	size_t done = 0;

	while (done < watch->buffered) {
		ssize_t put = write(watch->out, watch->buffer + done, watch->buffered - done);

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			_exit(1);
	}
	watch->buffered = 0;
	watch->last_kind = NONE;
}

static void put(struct watch *watch, int kind, bool directory, int error, const char *path, const char *from)
{
	size_t path_length = strlen(path), from_length = strlen(from);
	struct watch_record record = {
		.length = (uint32_t)(sizeof record + path_length + from_length),
		.kind = (uint8_t)kind,
		.directory = directory,
		.error = (uint16_t)error,
		.path_length = (uint32_t)path_length,
		.from_length = (uint32_t)from_length,
	};

	if (kind == watch->last_kind && !from_length && !strcmp(path, watch->last_path))
		return; /* a file that is written piece by piece */
	if (record.length > sizeof watch->buffer - watch->buffered)
		flush(watch);
	memcpy(watch->buffer + watch->buffered, &record, sizeof record);
	memcpy(watch->buffer + watch->buffered + sizeof record, path, path_length);
	memcpy(watch->buffer + watch->buffered + sizeof record + path_length, from, from_length);
	watch->buffered += record.length;
	watch->last_kind = kind;
	memcpy(watch->last_path, path, path_length + 1);
}

static int *bucket(struct watch *watch, int number)
{
	return &watch->buckets[(unsigned)number % BUCKETS];
}

static int find(struct watch *watch, int number)
{
	int at = *bucket(watch, number);

	while (at != NONE && watch->nodes[at].number != number)
		at = watch->nodes[at].next;
	return at;
}

static int find_child(const struct watch *watch, int parent, const char *name)
{
	for (int at = ROOT + 1; at < watch->used; at++)
		if (watch->nodes[at].number != NONE && watch->nodes[at].parent == parent &&
		    !strcmp(watch->nodes[at].name, name))
			return at;
	return NONE;
}

static void forget(struct watch *watch, int at)
{
	struct node *node = &watch->nodes[at];
	int *link = bucket(watch, node->number);

	while (*link != at)
		link = &watch->nodes[*link].next;
	*link = node->next;
	free(node->name);
	*node = (struct node){.number = NONE};
	if (at < watch->first_free)
		watch->first_free = at;
}

static bool is_below(const struct watch *watch, int at, int top)
{
	for (int steps = 0; at != NONE && steps <= TREE_DEPTH_MAX; steps++) {
		if (at == top)
			return true;
		at = watch->nodes[at].parent;
	}
	return false;
}

static bool has_below(const struct watch *watch, int top)
{
	for (int at = ROOT + 1; at < watch->used; at++)
		if (watch->nodes[at].number != NONE && watch->nodes[at].parent == top)
			return true;
	return false;
}

/* Ceases to watch a directory and all below it. */
static void forget_tree(struct watch *watch, int top)
{
	for (int at = 0; at < watch->used; at++)
		watch->nodes[at].doomed = watch->nodes[at].number != NONE && is_below(watch, at, top);
	for (int at = 0; at < watch->used; at++)
		if (watch->nodes[at].doomed) {
			inotify_rm_watch(watch->events, watch->nodes[at].number);
			forget(watch, at);
		}
}

/* Returns a place, or NONE. */
static int remember(struct watch *watch, int number, int parent, const char *name)
{
	char *copy = strdup(name);
	int at = watch->first_free;

	while (at < watch->used && watch->nodes[at].number != NONE)
		at++;
	if (at == NODES_MAX || !copy) {
		free(copy);
		return NONE;
	}
	if (at == watch->used)
		watch->used++;
	watch->first_free = at + 1;
	watch->nodes[at] = (struct node){.number = number, .parent = parent, .next = *bucket(watch, number), .name = copy};
	*bucket(watch, number) = at;
	return at;
}

/* Writes the path of a name in a directory, relative to the root. False if it is longer or deeper than paths get, or if a
 * directory on the way was forgotten before those in it. */
static bool path_of(const struct watch *watch, int at, const char *name, char path[PATH_MAX])
{
	size_t start = PATH_MAX - 1 - strlen(name);
	int depth = 0;

	memcpy(path + start, name, strlen(name) + 1);
	for (; at != ROOT; at = watch->nodes[at].parent) {
		const char *directory = watch->nodes[at].name;
		size_t length;

		if (!directory)
			return false;
		length = strlen(directory);
		if (++depth >= TREE_DEPTH_MAX || length + 1 > start)
			return false;
		path[--start] = '/';
		start -= length;
		memcpy(path + start, directory, length);
	}
	memmove(path, path + start, PATH_MAX - start);
	return true;
}

static void tell(struct watch *watch, int kind, bool directory, int at, const char *name, const char *from)
{
	char path[PATH_MAX];

	if (path_of(watch, at, name, path))
		put(watch, kind, directory, 0, path, from);
	else
		put(watch, WATCH_OVERFLOW, true, 0, "", "");
}

/* Opens what is watched, once more. It may be somewhere else by now: then the watch is over. */
static int open_root(const struct watch *watch)
{
	int fd = paths_open(AT_FDCWD, watch->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
	struct stat facts;

	if (fd >= 0 && (fstat(fd, &facts) < 0 || facts.st_dev != watch->device || facts.st_ino != watch->inode)) {
		close(fd);
		return -ENOENT;
	}
	return fd;
}

/* Opens a directory below the root, one name after the other. */
static int open_below(const struct watch *watch, const char *path)
{
	char rest[PATH_MAX], *name = rest, *slash;
	int dir = open_root(watch);

	if (dir < 0) {
		if (dir == -ENOENT || dir == -ENOTDIR)
			_exit(0);
		return dir;
	}
	memcpy(rest, path, strlen(path) + 1);
	for (;;) {
		int next, code;

		slash = strchr(name, '/');
		if (slash)
			*slash = 0;
		next = openat(dir, name, slash ? O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC : TREE_DIRECTORY_FLAGS);
		code = errno;
		close(dir);
		if (next < 0)
			return -code;
		if (!slash)
			return next;
		dir = next;
		name = slash + 1;
	}
}

/* The kernel takes a path only. */
static int add(const struct watch *watch, int dir)
{
	int number = -1, code;

	if (!fchdir(dir))
		number = inotify_add_watch(watch->events, ".", MASK);
	code = errno;
	if (chdir("/") < 0)
		_exit(1);
	return number < 0 ? -code : number;
}

static trees_visit visit;

/* What a scan is at; nested as the directories are. */
struct position {
	struct watch *watch;
	int at;
	int depth;
};

/* Watches a directory and, if it is not yet known, looks at all below it. Whoever may not be watched (the user may read
 * them and not enter) is left out. */
static void enter(struct watch *watch, int dir, int parent, const char *name, int depth)
{
	int number = add(watch, dir), at, error = 0;

	if (number < 0) {
		if (number == -ENOSPC || number == -ENOMEM)
			watch->complete = false;
		return;
	}
	at = find(watch, number);
	if (at != NONE) {
		if (watch->nodes[at].parent != parent || strcmp(watch->nodes[at].name, name))
			watch->lost = true;
		return;
	}
	at = remember(watch, number, parent, name);
	if (at == NONE) {
		inotify_rm_watch(watch->events, number);
		watch->complete = false;
		return;
	}
	trees_scan(dir, visit, &(struct position){watch, at, depth}, &error);
}

static bool visit(void *context, int dir, const char *name)
{
	struct position *position = context;
	struct watch *watch = position->watch;
	struct stat facts;
	int fd;

	if (!watch->left) {
		watch->complete = false;
		return false;
	}
	watch->left--;
	if (strlen(name) > NAME_MAX || fstatat(dir, name, &facts, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return true;
	if (watch->reports)
		tell(watch, WATCH_CREATED, S_ISDIR(facts.st_mode), position->at, name, "");
	if (!S_ISDIR(facts.st_mode) || !watch->recursive)
		return true;
	if (position->depth >= TREE_DEPTH_MAX - 1) {
		watch->complete = false;
		return true;
	}
	fd = openat(dir, name, TREE_DIRECTORY_FLAGS);
	if (fd >= 0) {
		enter(watch, fd, position->at, name, position->depth + 1);
		close(fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
		watch->complete = false;
	}
	return true;
}

/* Begins with the root alone. Returns 0 or a negative errno. */
static int begin(struct watch *watch, int dir, bool *complete)
{
	int number = add(watch, dir), error = 0;

	if (number < 0)
		return number;
	if (find(watch, number) != ROOT && remember(watch, number, NONE, "") != ROOT)
		return -ENOMEM;
	watch->complete = true;
	watch->reports = false;
	watch->left = SCAN_MAX;
	if (watch->recursive)
		trees_scan(dir, visit, &(struct position){watch, ROOT, 0}, &error);
	*complete = watch->complete;
	return 0;
}

/* A directory that appeared. */
static void enter_new(struct watch *watch, int parent, const char *name)
{
	char path[PATH_MAX];
	int dir, depth = 1;

	if (!path_of(watch, parent, name, path))
		return;
	for (const char *at = path; *at; at++)
		depth += *at == '/';
	dir = open_below(watch, path);
	if (dir < 0)
		return; /* gone again, or not for this user */
	watch->reports = watch->complete = true;
	watch->left = SCAN_MAX;
	enter(watch, dir, parent, name, depth);
	close(dir);
	if (!watch->complete)
		put(watch, WATCH_OVERFLOW, true, 0, "", "");
}

/* Reads everything again, and says so. What happens meanwhile is told afterwards, perhaps twice. */
static void start_over(struct watch *watch)
{
	bool complete;
	int dir = open_root(watch), code;

	if (dir < 0)
		_exit(0);
	watch->move.cookie = 0;
	for (int at = ROOT + 1; at < watch->used; at++)
		if (watch->nodes[at].number != NONE) {
			inotify_rm_watch(watch->events, watch->nodes[at].number);
			forget(watch, at);
		}
	code = begin(watch, dir, &complete);
	close(dir);
	watch->lost = false; /* a directory that was moved while it was read; its move is told */
	if (code)
		_exit(0);
	put(watch, WATCH_OVERFLOW, true, 0, "", "");
}

/* The second half of a move did not come: it went elsewhere. */
static void finish_move(struct watch *watch)
{
	struct move *move = &watch->move;
	int at;

	if (!move->cookie)
		return;
	move->cookie = 0;
	if (watch->nodes[move->parent].number == NONE)
		return;
	tell(watch, WATCH_DELETED, move->directory, move->parent, move->name, "");
	at = move->directory ? find_child(watch, move->parent, move->name) : NONE;
	if (at != NONE)
		forget_tree(watch, at);
}

static void rename_node(struct watch *watch, int at, int parent, const char *name)
{
	int replaced = find_child(watch, parent, name);
	char *copy = strdup(name);

	if (replaced != NONE && replaced != at)
		forget_tree(watch, replaced);
	if (!copy || watch->nodes[at].number == NONE || is_below(watch, parent, at)) {
		free(copy);
		watch->lost = true;
		return;
	}
	free(watch->nodes[at].name);
	watch->nodes[at].name = copy;
	watch->nodes[at].parent = parent;
}

static void on_moved_to(struct watch *watch, int parent, const char *name, bool directory)
{
	struct move *move = &watch->move;
	char from[PATH_MAX];
	bool whole = watch->nodes[move->parent].number != NONE && path_of(watch, move->parent, move->name, from);
	int at = directory && whole ? find_child(watch, move->parent, move->name) : NONE;

	move->cookie = 0;
	if (at != NONE)
		rename_node(watch, at, parent, name);
	tell(watch, WATCH_CREATED, directory, parent, name, whole ? from : "");
	if (at == NONE && directory && watch->recursive)
		enter_new(watch, parent, name);
}

static void on_created(struct watch *watch, int parent, const char *name, bool directory)
{
	if (directory && watch->recursive && find_child(watch, parent, name) != NONE)
		return; /* a scan was quicker, and has told it */
	tell(watch, WATCH_CREATED, directory, parent, name, "");
	if (directory && watch->recursive)
		enter_new(watch, parent, name);
}

static void on_name(struct watch *watch, int at, const struct inotify_event *event)
{
	bool directory = event->mask & IN_ISDIR;

	if (event->mask & IN_MOVED_FROM) {
		watch->move = (struct move){.cookie = event->cookie, .parent = at, .directory = directory};
		memcpy(watch->move.name, event->name, strnlen(event->name, NAME_MAX));
	} else if (event->mask & (IN_CREATE | IN_MOVED_TO)) {
		on_created(watch, at, event->name, directory);
	} else if (event->mask & IN_DELETE) {
		tell(watch, WATCH_DELETED, directory, at, event->name, "");
	} else if (event->mask & IN_MODIFY) {
		tell(watch, WATCH_MODIFIED, directory, at, event->name, "");
	} else if (event->mask & IN_ATTRIB) {
		tell(watch, WATCH_ATTRIBUTES, directory, at, event->name, "");
	}
}

static void on_event(struct watch *watch, const struct inotify_event *event)
{
	int at;

	if (event->mask & IN_Q_OVERFLOW) {
		watch->lost = true;
		return;
	}
	at = find(watch, event->wd);
	if (at != NONE && watch->move.cookie && (event->mask & IN_MOVED_TO) && event->cookie == watch->move.cookie) {
		on_moved_to(watch, at, event->name, event->mask & IN_ISDIR);
		return;
	}
	finish_move(watch);
	at = find(watch, event->wd); /* that may have been part of what went */
	if (at == NONE)
		return;
	if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) {
		if (at == ROOT) {
			flush(watch);
			_exit(0);
		}
		if (event->mask & IN_IGNORED) {
			/* A directory ends after those in it, unless it was unmounted, or events were lost. */
			if (has_below(watch, at))
				watch->lost = true;
			forget(watch, at);
		}
	} else if (event->len) {
		on_name(watch, at, event);
	}
}

static void take_events(struct watch *watch)
{
	_Alignas(struct inotify_event) char events[EVENTS_ROOM];
	ssize_t got = read(watch->events, events, sizeof events);

	for (ssize_t done = 0; done < got;) {
		const struct inotify_event *event = (const void *)(events + done);

		on_event(watch, event);
		done += (ssize_t)(sizeof *event + event->len);
	}
}

static _Noreturn void serve(struct watch *watch)
{
	for (;;) {
		struct pollfd polls[2] = {{.fd = watch->events, .events = POLLIN}, {.fd = watch->out}};
		int found = poll(polls, 2, watch->move.cookie ? MOVE_MILLISECONDS : -1);

		if (found < 0)
			continue;
		if (polls[1].revents)
			_exit(0); /* nobody listens any more */
		if (found)
			take_events(watch);
		else
			finish_move(watch);
		if (watch->lost)
			start_over(watch);
		flush(watch);
	}
}

static _Noreturn void run(struct watch *watch, int dir, int code)
{
	struct stat facts;
	bool complete = false;

	for (int i = 0; i < BUCKETS; i++)
		watch->buckets[i] = NONE;
	watch->last_kind = NONE;
	if (!code && fstat(dir, &facts) < 0)
		code = -errno;
	watch->events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (!code && watch->events < 0)
		code = -errno;
	if (!code) {
		watch->device = facts.st_dev;
		watch->inode = facts.st_ino;
		code = begin(watch, dir, &complete);
	}
	close(dir);
	watch->lost = false;
	if (!code && !complete)
		code = -ENOSPC;
	put(watch, WATCH_READY, true, -code, "", "");
	flush(watch);
	if (code)
		_exit(0);
	serve(watch);
}

pid_t watches_start(const struct user *user, const char *path, bool recursive, int out, struct err *e)
{
	static struct watch watch; /* its pages come into being in the child only */
	struct rights saved;
	int dir, code = rights_take(user, &saved, e);
	pid_t pid;

	if (code)
		return code;
	dir = paths_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
	rights_return(&saved);
	if (dir < 0)
		return err_set(e, -dir, "watch", "cannot watch '%s'", path);
	pid = trees_fork(user, dir, out, &code);
	if (!pid) {
		watch.out = out;
		watch.recursive = recursive;
		watch.path = path;
		run(&watch, dir, code);
	}
	code = pid < 0 ? err_set(e, errno, "watch", "cannot start a process") : 0;
	close(dir);
	return code ? code : pid;
}
