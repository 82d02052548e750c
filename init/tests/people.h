/* Who acts in the tests of files: the caller, and with root's rights somebody else too. */
#ifndef TRAFORO_PEOPLE_H
#define TRAFORO_PEOPLE_H

#include "rights.h"
#include "tap.h"
#include "users.h"

#define GUEST 1000
#define CLUB 4000 /* a group that the guest is in besides its own */

static struct user me, guest;

static __attribute__((unused)) bool am_root(void)
{
	return geteuid() == 0;
}

/* A root without rights over other users, as in a user namespace of one id, cannot act as one. */
static __attribute__((unused)) bool guest_exists(void)
{
	struct rights saved;
	struct err e;

	if (!am_root() || rights_take(&guest, &saved, &e))
		return false;
	rights_return(&saved);
	return true;
}

static __attribute__((unused)) void people_make(void)
{
	me = (struct user){.uid = geteuid(), .gid = getegid(), .group_count = 1, .groups = {getegid()}};
	guest = (struct user){.uid = GUEST, .gid = GUEST, .group_count = 2, .groups = {GUEST, CLUB}};
}

#endif
