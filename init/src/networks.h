/* Network namespaces made ahead. Making one is the dear part of a clone, so the spawner makes some when it has nothing
 * else to do. Nobody was ever in one of them. They belong to the spawner's user namespace: root inside a sandbox has no
 * say over its own, but for what its processes may do with sockets. */
#ifndef TRAFORO_NETWORKS_H
#define TRAFORO_NETWORKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETWORKS_AHEAD 16

struct networks {
	int home; /* the spawner's own, empty one; -1 where none could be made: then there are none ahead */
	size_t count;
	int ahead[NETWORKS_AHEAD];
	uint64_t not_before; /* milliseconds of CLOCK_BOOTTIME; after something went wrong */
};

/* Brings the loopback interface of the current namespace up, where it is not, and lets everybody listen on any port.
 * Returns the error of the first, negative, or 0. */
int networks_prepare(void);
/* Moves this process into a network namespace of its own. Where that is refused nothing is made ahead. */
void networks_init(struct networks *networks);
bool networks_wanted(const struct networks *networks);
/* Makes one. When that fails it is tried again after a while. */
void networks_refill(struct networks *networks);
/* Enters one that was made ahead: whoever is cloned now has it. False if there is none; then a clone makes its own. */
bool networks_enter(struct networks *networks);
/* Goes home. The namespace that was left is the sandbox's alone. */
void networks_leave(const struct networks *networks);

#endif
