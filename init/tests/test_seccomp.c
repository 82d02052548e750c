#define _GNU_SOURCE
#include "seccomp.h"

#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tap.h"

#define FINE 0
#define ANY (-1) /* allowed; what the kernel says to such arguments is its own business */

struct probe {
	const char *name;
	long number;
	long args[6];
	int expected; /* an errno, FINE or ANY */
};

static const struct probe refused[] = {
	{"mount", SYS_mount, {0}, EPERM},
	{"umount2", SYS_umount2, {0}, EPERM},
	{"pivot_root", SYS_pivot_root, {0}, EPERM},
	{"open_tree", SYS_open_tree, {-1}, EPERM},
	{"move_mount", SYS_move_mount, {-1}, EPERM},
	{"fsopen", SYS_fsopen, {0}, EPERM},
	{"fsmount", SYS_fsmount, {-1}, EPERM},
	{"fsconfig", SYS_fsconfig, {-1}, EPERM},
	{"mount_setattr", SYS_mount_setattr, {-1}, EPERM},
	{"unshare of a user namespace", SYS_unshare, {CLONE_NEWUSER}, EPERM},
	{"unshare of nothing", SYS_unshare, {0}, EPERM},
	{"setns", SYS_setns, {-1}, EPERM},
	{"keyctl", SYS_keyctl, {0}, EPERM},
	{"add_key", SYS_add_key, {0}, EPERM},
	{"request_key", SYS_request_key, {0}, EPERM},
	{"bpf", SYS_bpf, {0}, EPERM},
	{"perf_event_open", SYS_perf_event_open, {0}, EPERM},
	{"io_uring_setup", SYS_io_uring_setup, {1}, EPERM},
	{"io_uring_enter", SYS_io_uring_enter, {-1}, EPERM},
	{"io_uring_register", SYS_io_uring_register, {-1}, EPERM},
	{"userfaultfd", SYS_userfaultfd, {0}, EPERM},
	{"open_by_handle_at", SYS_open_by_handle_at, {-1}, EPERM},
	{"init_module", SYS_init_module, {0}, EPERM},
	{"finit_module", SYS_finit_module, {-1}, EPERM},
	{"delete_module", SYS_delete_module, {0}, EPERM},
	{"kexec_load", SYS_kexec_load, {0}, EPERM},
	{"reboot", SYS_reboot, {0}, EPERM},
	{"swapon", SYS_swapon, {0}, EPERM},
	{"swapoff", SYS_swapoff, {0}, EPERM},
	{"quotactl", SYS_quotactl, {0}, EPERM},
	{"acct", SYS_acct, {0}, EPERM},
	{"settimeofday", SYS_settimeofday, {0}, EPERM},
	{"clock_settime", SYS_clock_settime, {0}, EPERM},
	{"clock_adjtime", SYS_clock_adjtime, {0}, EPERM},
	{"adjtimex", SYS_adjtimex, {0}, EPERM},
	{"syslog", SYS_syslog, {10}, EPERM},
	{"sethostname", SYS_sethostname, {0}, EPERM},
	{"setdomainname", SYS_setdomainname, {0}, EPERM},
	{"vhangup", SYS_vhangup, {0}, EPERM},
	{"mbind", SYS_mbind, {0}, EPERM},
	{"move_pages", SYS_move_pages, {0}, EPERM},
	{"fanotify_init", SYS_fanotify_init, {0}, EPERM},
#ifdef __x86_64__
	{"iopl", SYS_iopl, {0}, EPERM},
	{"ioperm", SYS_ioperm, {0}, EPERM},
	{"uselib", SYS_uselib, {0}, EPERM},
	{"number of the x32 interface", 0x40000000 | SYS_getpid, {0}, ENOSYS},
#endif
	{"clone of a user namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD}, EPERM},
	{"clone of a mount namespace", SYS_clone, {CLONE_NEWNS | SIGCHLD}, EPERM},
	{"clone of a network namespace", SYS_clone, {CLONE_NEWNET | SIGCHLD}, EPERM},
	{"clone of a pid namespace", SYS_clone, {CLONE_NEWPID | SIGCHLD}, EPERM},
	{"socket of AF_ALG", SYS_socket, {AF_ALG, SOCK_SEQPACKET}, EAFNOSUPPORT},
	{"socket of AF_VSOCK", SYS_socket, {AF_VSOCK, SOCK_STREAM}, EAFNOSUPPORT},
	{"socket of AF_PACKET", SYS_socket, {AF_PACKET, SOCK_RAW}, EAFNOSUPPORT},
	{"socket of AF_KEY", SYS_socket, {AF_KEY, SOCK_RAW}, EAFNOSUPPORT},
	{"socket of AF_BLUETOOTH", SYS_socket, {AF_BLUETOOTH, SOCK_RAW}, EAFNOSUPPORT},
	{"socket of AF_XDP", SYS_socket, {44, SOCK_RAW}, EAFNOSUPPORT},
	{"socket of netlink's audit", SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_AUDIT}, EPROTONOSUPPORT},
	{"socket of netlink's netfilter", SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER}, EPROTONOSUPPORT},
	{"ioctl TIOCSTI", SYS_ioctl, {0, 0x5412}, EPERM},
	{"ioctl TIOCLINUX", SYS_ioctl, {0, 0x541c}, EPERM},
	{"ioctl TIOCSTI with high bits that the kernel drops", SYS_ioctl, {0, 0x100005412}, EPERM},
	{"personality that makes memory executable", SYS_personality, {0x0400000}, EPERM},
	{"number 471", 471, {0}, ENOSYS},
	{"number 500", 500, {0}, ENOSYS},
	{"number 100000", 100000, {0}, ENOSYS},
};

static const struct probe allowed[] = {
	{"getpid", SYS_getpid, {0}, FINE},
	{"socket of AF_UNIX", SYS_socket, {AF_UNIX, SOCK_STREAM}, FINE},
	{"socket of AF_INET", SYS_socket, {AF_INET, SOCK_STREAM}, FINE},
	{"socket of AF_INET6", SYS_socket, {AF_INET6, SOCK_STREAM}, ANY},
	{"socket of netlink's routes", SYS_socket, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}, FINE},
	{"ioctl FIONREAD", SYS_ioctl, {0, 0x541b}, ANY},
	{"ioctl TIOCGWINSZ", SYS_ioctl, {-1, 0x5413}, EBADF},
	{"personality as a question", SYS_personality, {0xffffffff}, FINE},
	{"personality without address randomization", SYS_personality, {0x40000}, FINE},
	{"ptrace", SYS_ptrace, {PTRACE_TRACEME}, FINE},
	{"openat2", SYS_openat2, {-1}, ANY},
	{"setfsuid", SYS_setfsuid, {-1}, ANY},
	{"getgroups", SYS_getgroups, {0}, ANY},
	{"memfd_create", SYS_memfd_create, {0}, EFAULT},
	{"clone3", SYS_clone3, {0}, ANY},
	{"seccomp", SYS_seccomp, {99}, EINVAL},
	{"prctl", SYS_prctl, {PR_GET_DUMPABLE}, ANY},
	{"landlock_create_ruleset", SYS_landlock_create_ruleset, {0, 0, 1}, ANY},
	{"close_range", SYS_close_range, {5, 4}, EINVAL},
	{"pidfd_open", SYS_pidfd_open, {-1}, EINVAL},
	{"epoll_create1", SYS_epoll_create1, {0}, FINE},
	{"mknodat", SYS_mknodat, {-1}, ANY},
	{"fstatfs", SYS_fstatfs, {-1}, EBADF},
};

/* Returns the errno of the probed call, 0 if it succeeded, 255 if the filter could not be installed. */
static int run_probe(void *context)
{
	const struct probe *probe = context;
	const long *a = probe->args;
	struct err e;

	if (seccomp_install(&e) && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_install(&e)))
		return 255;
	return syscall(probe->number, a[0], a[1], a[2], a[3], a[4], a[5]) < 0 ? errno : 0;
}

static void test_probes(const struct probe *probes, size_t count, const char *verdict)
{
	for (size_t i = 0; i < count; i++) {
		struct probe probe = probes[i];
		int code = in_child(run_probe, &probe);
		bool good =
			probe.expected == ANY ? code != EPERM && code != ENOSYS && code < 255 : code == probe.expected;

		if (!ok(good, "%s is %s", probe.name, verdict))
			printf("#   expected %d, got %d\n", probe.expected, code);
	}
}

/* A process under the filter starts another and waits for it: what every program does. */
static int live_on(void *context)
{
	struct probe probe = {.number = SYS_getpid};
	int status = 0;
	pid_t pid;

	(void)context;
	if (run_probe(&probe))
		return 1;
	pid = fork();
	if (!pid)
		execl("/bin/sh", "sh", "-c", "echo >/dev/null; exec true", (char *)NULL);
	return pid < 0 || waitpid(pid, &status, 0) < 0 || status ? 2 : 0;
}

#ifdef __x86_64__
static int call_32_bit(void *context)
{
	struct probe probe = {.number = SYS_getpid};
	long answer;

	if (run_probe(&probe))
		return 1;
	__asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	(void)context;
	return (int)answer == -ENOSYS ? 0 : 2;
}

static void test_other_architecture(void)
{
	static const char what[] = "32-bit calls do not exist";
	int code = in_child(call_32_bit, NULL);

	if (code == 1000 + SIGSEGV)
		skip(what, "nor does this kernel have them");
	else
		is(code, 0, what);
}
#endif

int main(void)
{
	struct err e;

	is(seccomp_build(&e), 0, "the filter can be built");
	is(seccomp_build(&e), 0, "and built again");
	test_probes(refused, sizeof refused / sizeof *refused, "refused");
	test_probes(allowed, sizeof allowed / sizeof *allowed, "allowed");
	is(in_child(live_on, NULL), 0, "a shell runs under the filter");
#ifdef __x86_64__
	test_other_architecture();
#endif
	return tap_end();
}
