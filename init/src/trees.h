/* What the children that look at whole trees have in common. */
#ifndef TRAFORO_TREES_H
#define TRAFORO_TREES_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/types.h>

#include "users.h"

#define TREE_DEPTH_MAX 256
#define TREE_DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* Takes one name of the directory; false ends the scan. */
typedef bool trees_visit(void *context, int dir, const char *name);

/* Hands every name of a directory to `visit`. Returns false if that said so; *error tells of a failing directory. */
bool trees_scan(int dir, trees_visit *visit, void *context, int *error);
/* Forks a child that has nothing of the init but two descriptors and its (untraceable) memory. Returns as fork does; in
 * the child *code says whether it became the user. */
pid_t trees_fork(const struct user *user, int a, int b, int *code);

#endif
