#define _GNU_SOURCE
#include "caps.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tap.h"

#define KEPT (1ULL << CAP_CHOWN | 1ULL << CAP_KILL)

static uint64_t effective(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	need(!syscall(SYS_capget, &header, data), "capget");
	return (uint64_t)data[0].effective | (uint64_t)data[1].effective << 32;
}

static int bound(void *context)
{
	struct err e;

	(void)context;
	if (caps_bound(KEPT, &e))
		return 1;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != (int)(KEPT >> cap & 1))
			return 2;
	return effective() == KEPT ? 3 : 0; /* the bounding set is about what may come, not about what is there */
}

static int bound_twice(void *context)
{
	struct err e;

	(void)context;
	return caps_bound(KEPT, &e) || caps_bound(0, &e) || prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0);
}

static int limit(void *context)
{
	struct err e;

	(void)context;
	if (caps_limit(KEPT, &e))
		return 1;
	if (effective() != KEPT)
		return 2;
	/* Nothing comes back. */
	return caps_limit(~0ULL, &e) || effective() != KEPT ? 3 : 0;
}

static int limit_to_none(void *context)
{
	struct err e;

	(void)context;
	return caps_limit(0, &e) || effective() || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0);
}

static int bound_without_rights(void *context)
{
	struct err e;

	(void)context;
	if (caps_limit(0, &e))
		return 1;
	return caps_bound(0, &e) == -EPERM && e.code == EPERM ? 0 : 2;
}

int main(void)
{
	is(in_child(limit_to_none, NULL), 0, "everything can be given up, by anybody");
	if ((effective() & KEPT) != KEPT || !(effective() >> CAP_SETPCAP & 1)) {
		skip("capabilities are bounded and limited", "needs root");
		return tap_end();
	}
	is(in_child(bound, NULL), 0, "the bounding set is what the mask says");
	is(in_child(bound_twice, NULL), 0, "it can shrink again");
	is(in_child(limit, NULL), 0, "limited capabilities are gone");
	is(in_child(bound_without_rights, NULL), 0, "bounding without CAP_SETPCAP is an error");
	return tap_end();
}
