/* The system call filter of every sandbox: an allow-list, at least as strict as the default of container engines. */
#ifndef TRAFORO_SECCOMP_H
#define TRAFORO_SECCOMP_H

#include "err.h"

/* Builds the filter; once, in the spawner, since its children inherit the memory it is in. */
int seccomp_build(struct err *e);
/* Installs it for the calling process and all that come from it. Needs CAP_SYS_ADMIN in its user namespace. */
int seccomp_install(struct err *e);

#endif
