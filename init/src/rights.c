/* Raw system calls throughout: the library's set*id functions act on all threads of a process and may fail on their own
 * bookkeeping; the init has one thread.
 *
 * Only the filesystem ids change, not the effective ones: the kernel lets a process with the same effective id send
 * signals and trace, and for that moment the init must not become a peer of the user's own processes. */
#define _GNU_SOURCE
#include "rights.h"

#include <errno.h>
#include <stdbool.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "caps.h"

#define SIGNALS 64

/* setfsuid and setfsgid return no errors, and they can fail: the id may be outside the map of the user namespace, or
 * the sandbox may be at its memory limit. An invalid id changes nothing and answers what is set. */
static bool set_fsuid(uid_t uid)
{
	syscall(SYS_setfsuid, uid);
	return (uid_t)syscall(SYS_setfsuid, (uid_t)-1) == uid;
}

static bool set_fsgid(gid_t gid)
{
	syscall(SYS_setfsgid, gid);
	return (gid_t)syscall(SYS_setfsgid, (gid_t)-1) == gid;
}

/* Without privileges on the host, setgroups is denied for good in the sandbox's user namespace; there are no groups to
 * give up or to gain then. */
static int set_groups(size_t count, const gid_t *groups)
{
	return syscall(SYS_setgroups, count, groups) < 0 && errno != EPERM ? -errno : 0;
}

/* Puts on a complete set. Groups first, user last: when the user id leaves 0 the kernel takes CAP_DAC_OVERRIDE,
 * CAP_FOWNER and the other file capabilities out of the effective set, and gives them back when it returns to 0. */
static int put_on(uid_t uid, gid_t gid, size_t count, const gid_t *groups)
{
	int code = set_groups(count, groups);

	if (code)
		return code;
	return set_fsgid(gid) && set_fsuid(uid) ? 0 : -EPERM;
}

int rights_take(const struct user *user, struct rights *saved, struct err *e)
{
	long count = syscall(SYS_getgroups, RIGHTS_GROUPS_MAX, saved->groups);
	int code;

	/* More groups than fit: none is put back, which is the safe side. */
	saved->group_count = count > 0 ? (size_t)count : 0;
	saved->mask = umask(0);
	code = put_on(user->uid, user->gid, user->group_count, user->groups);
	if (!code)
		return 0;
	rights_return(saved);
	return err_set(e, -code, "user", "cannot act as user %u with group %u", (unsigned)user->uid,
		       (unsigned)user->gid);
}

void rights_return(const struct rights *saved)
{
	/* A failure leaves the user's rights on, which are fewer; the next rights_take sets and verifies them all. */
	put_on(geteuid(), getegid(), saved->group_count, saved->groups);
	umask(saved->mask);
}

int rights_become(const struct user *user, struct err *e)
{
	int code = set_groups(user->group_count, user->groups);

	if (code)
		return err_set(e, -code, "user", "cannot take the groups of user %u", (unsigned)user->uid);
	if (syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
		return err_set(e, errno, "user", "cannot become group %u", (unsigned)user->gid);
	if (syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
		return err_set(e, errno, "user", "cannot become user %u", (unsigned)user->uid);
	/* setresuid has done that already unless the process has SECBIT_KEEP_CAPS or SECBIT_NO_SETUID_FIXUP. */
	return user->uid ? caps_limit(0, e) : 0;
}

/* By number, since the libraries refuse to touch signals they use themselves; zeros are SIG_DFL on every architecture. */
void rights_reset_signals(void)
{
	static const unsigned long standard[4];
	sigset_t none;

	for (int number = 1; number <= SIGNALS; number++)
		syscall(SYS_rt_sigaction, number, standard, NULL, SIGNALS / 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}
