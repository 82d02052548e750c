/* Files of the sandbox, opened and changed by its init with the rights of one of its users.
 *
 * The init answers M_OPEN, M_STAT, M_MKDIR, M_REMOVE, M_RENAME, M_CHANGE, M_SYMLINK, M_LINK, M_DRAFT, M_PLACE and M_WALK
 * here. Paths are absolute and resolved in the sandbox's own tree; magic links of /proc are never followed (they would
 * name the init's own descriptors).
 */
#ifndef TRAFORO_FILES_H
#define TRAFORO_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "users.h"

/* Facts about one file: the value of T_STAT, and what M_WALK writes to its pipe before each path. Little endian. */
struct file_record {
	uint32_t length;      /* of the whole record: this struct, path, target */
	uint32_t mode;        /* st_mode, type included; 0 marks the last record of a walk */
	uint64_t size;        /* last record: errno of a walk that was cut short, 0 for a whole one */
	int64_t modified_ns;  /* Unix time; last record: 1 if there was more than the limit */
	uint32_t uid;
	uint32_t gid;
	uint32_t path_length; /* bytes of path that follow, without NUL */
	uint32_t target_length; /* bytes of a link's target behind it */
	uint64_t inode;       /* of a regular file; M_STAT: 0 where the kernel makes its content up on reading */
} __attribute__((packed));

/* Opens a regular file for M_OPEN. `flags` are the kernel's O_ flags; only access mode, O_CREAT, O_EXCL, O_TRUNC and
 * O_APPEND pass. With O_CREAT missing parents are made (0755). Never blocks: anything but a regular file is -EINVAL
 * (-EISDIR for a directory), and files of procfs open for reading only. Returns the descriptor or a negative errno. */
int files_open(const struct user *user, const char *path, int flags, mode_t mode, struct err *e);
/* Fills `record` and `target` (a link's target, not NUL-ended; capacity PATH_MAX). */
int files_stat(const struct user *user, const char *path, bool follow, struct file_record *record, char *target,
	       struct err *e);
/* Makes a directory; *created says whether it was not there. -ENOTDIR / -EEXIST if something else is in the way. */
int files_mkdir(const struct user *user, const char *path, mode_t mode, bool parents, bool *created, struct err *e);
/* Starts a process of the user that writes what comes from a source to an open file, up to its end: whose memory that
 * takes is decided by who writes. It ends with 0 or an errno. */
pid_t files_fill(const struct user *user, int to, int from, struct err *e);
/* Removes a file, a link or an empty directory. */
int files_remove(const struct user *user, const char *path, struct err *e);
/* With `exclusive` nothing is replaced: -EEXIST. Two names in one directory are two in one, whatever its path names
 * meanwhile. */
int files_rename(const struct user *user, const char *path, const char *to, bool exclusive, struct err *e);

/* What M_CHANGE changes; what is not `given` stays. */
struct file_change {
	bool mode_given, uid_given, gid_given, modified_given;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	int64_t modified_ns; /* Unix time */
};

/* Changes owner, permission bits and modification time, in this order. -EOPNOTSUPP for the bits of a link. */
int files_change(const struct user *user, const char *path, bool follow, const struct file_change *change, struct err *e);
/* The same for what is below the directory `path` (`follow`: or the one that a link there leads to), by a relative path
 * that is reached without following any link: who may write somewhere in the tree leads nobody out of it. */
int files_change_below(const struct user *user, const char *path, bool follow, const char *below,
		       const struct file_change *change, struct err *e);
/* The same for an open file, by whatever name. */
int files_change_open(const struct user *user, int fd, const struct file_change *change, struct err *e);
/* Makes a link that says `target`. */
int files_symlink(const struct user *user, const char *target, const char *path, struct err *e);
/* Gives a file, or a link itself, another name. */
int files_link(const struct user *user, const char *path, const char *to, struct err *e);
/* Makes a file that has no name yet, in the directory that holds `path`, whose missing parents are made (0755). It is
 * gone when nobody has it open. Returns its descriptor or a negative errno; -EOPNOTSUPP where the filesystem has no such
 * files. */
int files_draft(const struct user *user, const char *path, mode_t mode, struct err *e);
/* Gives an open file the name `path`, in place of what has it; with `exclusive` only where nothing has (-EEXIST). */
int files_place(const struct user *user, int fd, const char *path, bool exclusive, struct err *e);
/* A place that leads to an open file, for calls that take a name and no descriptor: a directory, returned open, and a
 * name in it. Or a negative errno. */
int files_link_to(int fd, char name[16]);
/* The magic number of the filesystem that a descriptor is on if its files are interfaces of the kernel, else 0. */
long files_kernel_magic(int fd);

/* Walks in a child process of its own, which has become `user` for good and whose memory and time are the sandbox's.
 * `out` is the pipe for records. Returns the child's pid. The directory is opened before the fork, so that a missing one
 * is an error here and not in the stream. Links are not followed and mounts are crossed; at most 256 levels deep. */
pid_t files_walk(const struct user *user, const char *path, bool recursive, uint64_t limit, int out, struct err *e);
/* Removes a whole tree in such a child; its exit status is 0 or the errno. At most 256 levels deep (ELOOP). */
pid_t files_remove_tree(const struct user *user, const char *path, struct err *e);

#endif
