/* Capabilities: which ones a sandbox may ever have. */
#ifndef TRAFORO_CAPS_H
#define TRAFORO_CAPS_H

#include <stdint.h>

#include "err.h"

/* Takes every capability outside `mask` out of the bounding set of the calling process and of all that come from it. */
int caps_bound(uint64_t mask, struct err *e);
/* Gives up every capability outside `mask` now. */
int caps_limit(uint64_t mask, struct err *e);

#endif
