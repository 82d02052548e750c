/* The spawner: makes sandboxes for a worker and outlives it, so that they do. */
#ifndef TRAFORO_SPAWNER_H
#define TRAFORO_SPAWNER_H

#include "err.h"

struct spawner_options {
	const char *socket_path; /* where workers connect; made with mode 0600 */
	const char *stage;       /* an empty directory: new sandboxes assemble their tree there, each in a mount namespace */
	const char *devices;     /* an empty directory for the device files that sandboxes share; NULL for none */
};

/* Gets ready to serve: workers can connect when this returns 0. */
int spawner_start(const struct spawner_options *options, struct err *e);
/* Serves until told to stop. */
void spawner_serve(const struct spawner_options *options);

#endif
