/* Paths given by callers, resolved in the sandbox's own tree and never through a magic link. */
#ifndef TRAFORO_PATHS_H
#define TRAFORO_PATHS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "files.h"

/* Opens a path, close-on-exec. Returns the descriptor or a negative errno. */
int paths_open(int dir, const char *path, int flags, mode_t mode);
/* Opens what is at a relative path below a directory, with O_PATH: itself where it is a link. A link on the way is
 * -ELOOP, and a way that leads up and out is -EXDEV. */
int paths_open_below(int dir, const char *path);
/* Opens the directory that holds the last component of an absolute path, with O_PATH; `make` makes what is missing
 * (0755). `*last` points at the last component within `path`, with the slashes that may end it.
 * Returns the descriptor or a negative errno; -EBUSY for the root, which nothing holds. */
int paths_open_parent(const char *path, bool make, const char **last);
/* Fills everything of a record but the three lengths. */
void paths_record(const struct stat *facts, struct file_record *record);

#endif
