#define _GNU_SOURCE
#include "caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int caps_bound(uint64_t mask, struct err *e)
{
	/* PR_CAPBSET_READ answers EINVAL behind the last capability this kernel knows, whatever the headers knew. */
	for (int cap = 0; cap < 64; cap++) {
		int there = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (there < 0)
			break;
		if (there && !(mask >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_set(e, errno, "capabilities", "cannot drop capability %d", cap);
	}
	return 0;
}

int caps_limit(uint64_t mask, struct err *e)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2], now[2];

	if (syscall(SYS_capget, &header, now) < 0)
		return err_set(e, errno, "capabilities", "cannot read capabilities");
	for (int i = 0; i < 2; i++) {
		uint32_t keep = (uint32_t)(mask >> (32 * i)) & now[i].permitted;

		data[i] = (struct __user_cap_data_struct){.effective = keep, .permitted = keep, .inheritable = 0};
	}
	header.pid = 0;
	if (syscall(SYS_capset, &header, data) < 0)
		return err_set(e, errno, "capabilities", "cannot limit capabilities");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_set(e, errno, "capabilities", "cannot clear ambient capabilities");
	return 0;
}
