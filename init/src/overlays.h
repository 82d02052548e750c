/* Overlays mounted from outside of a sandbox, for kernels whose tmpfs keeps no user.* attributes (before 6.6).
 *
 * An overlay marks a directory that replaces one of the image by an attribute of its upper directory. Mounted inside a
 * user namespace it may use user.* attributes only; mounted by the host's root it uses trusted.*, which tmpfs always
 * kept and which nobody inside can set. Otherwise the two behave alike. */
#ifndef TRAFORO_OVERLAYS_H
#define TRAFORO_OVERLAYS_H

#include <sys/types.h>

#include "err.h"

/* A tmpfs that holds the upper directories of one sandbox, while overlays are made of it. */
struct overlays {
	int tmpfs; /* -1 for none */
	unsigned count;
};

/* Attaches a tmpfs over the current directory: an overlay can only be made of what is attached. */
int overlays_begin(struct overlays *overlays, int tmpfs, struct err *e);
/* Makes the next overlay, over the mount `lower`, with the directories l<n>, u<n>, w<n> of the tmpfs, n from 0.
 * Returns a mount descriptor. */
int overlays_mount(struct overlays *overlays, int lower, uid_t owner, unsigned attributes, struct err *e);
/* Detaches the tmpfs again. Returns a descriptor of it that can be attached elsewhere, in place of the first one, which
 * the caller still closes. */
int overlays_end(const struct overlays *overlays, struct err *e);

#endif
