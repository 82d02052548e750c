/* What is refused, and why it may be:
 *
 * - calls that reach the kernel itself: modules, kexec, bpf, perf, tracing by probes, swap, quota, reboot, clocks;
 * - calls with a record of escapes that sandboxed programs do without: io_uring, userfaultfd, keyrings,
 *   open_by_handle_at, kernel asynchronous reads by vmsplice's friends stay;
 * - everything that makes or changes mounts and namespaces. `clone` is refused with namespace flags. `clone3` hides its
 *   flags in memory where a filter cannot look; it is allowed, because the init that starts commands needs it, and the
 *   same thing is stopped twice elsewhere: /proc/sys/user/max_user_namespaces is 0 for the sandbox's user namespace
 *   (and cannot be raised without CAP_SYS_RESOURCE), and every other namespace needs CAP_SYS_ADMIN, which is gone;
 * - sockets other than unix, IPv4, IPv6 and netlink's routing family; pushing characters into a terminal.
 *
 * A known call that is refused answers EPERM; a number that this table never heard of answers ENOSYS, so that programs
 * built for newer kernels fall back. Other architectures (32-bit code) answer ENOSYS. */
#define _GNU_SOURCE
#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call filter knows x86_64 and aarch64"
#endif

#define FILTER_MAX 1024
/* Numbers from 424 on are the same on every architecture; this is the newest one that the table was checked against. */
#define NEWEST_KNOWN 470

static const short allowed[] = {
/* files */
	SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
	SYS_pwritev2, SYS_openat, SYS_openat2, SYS_close, SYS_close_range, SYS_lseek, SYS_dup, SYS_dup3, SYS_fcntl,
	SYS_flock, SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs, SYS_sync_file_range, SYS_truncate, SYS_ftruncate,
	SYS_fallocate, SYS_fadvise64, SYS_readahead, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_chroot,
	SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_symlinkat, SYS_linkat, SYS_renameat2, SYS_readlinkat, SYS_fchmod,
	SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_faccessat, SYS_faccessat2, SYS_fstat, SYS_statx, SYS_statfs, SYS_fstatfs,
	SYS_utimensat, SYS_umask, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr,
	SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
	SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_pipe2, SYS_splice, SYS_tee, SYS_vmsplice,
	SYS_sendfile, SYS_copy_file_range, SYS_memfd_create, SYS_name_to_handle_at,
#ifdef SYS_newfstatat
	SYS_newfstatat,
#endif
#ifdef SYS_memfd_secret
	SYS_memfd_secret,
#endif
	/* waiting */
	SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2,
	SYS_signalfd4, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_nanosleep, SYS_clock_nanosleep,
	SYS_futex, SYS_set_robust_list, SYS_get_robust_list, SYS_membarrier, SYS_rseq,
#ifdef SYS_futex_waitv
	SYS_futex_waitv,
#endif
	/* memory */
	SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_process_madvise, SYS_msync, SYS_mincore,
	SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
	SYS_remap_file_pages, SYS_process_mrelease,
	/* processes */
	SYS_clone3, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill, SYS_tkill, SYS_tgkill,
	SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo,
	SYS_rt_tgsigqueueinfo, SYS_rt_sigsuspend, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall, SYS_getpid, SYS_getppid,
	SYS_gettid, SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid, SYS_set_tid_address, SYS_pidfd_open,
	SYS_pidfd_send_signal, SYS_pidfd_getfd, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_prctl,
	SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self, SYS_sched_yield,
	SYS_sched_setparam, SYS_sched_getparam, SYS_sched_setscheduler, SYS_sched_getscheduler, SYS_sched_get_priority_max,
	SYS_sched_get_priority_min, SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_getaffinity, SYS_sched_setattr,
	SYS_sched_getattr, SYS_setpriority, SYS_getpriority, SYS_ioprio_set, SYS_ioprio_get, SYS_getcpu, SYS_getrlimit,
	SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_times, SYS_uname, SYS_sysinfo, SYS_getrandom,
	/* users */
	SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_getresuid,
	SYS_setresuid, SYS_getresgid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_getgroups, SYS_setgroups, SYS_capget,
	SYS_capset,
	/* time */
	SYS_gettimeofday, SYS_clock_gettime, SYS_clock_getres, SYS_getitimer, SYS_setitimer, SYS_timer_create,
	SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete,
	/* sockets */
	SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname, SYS_getpeername,
	SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown, SYS_setsockopt,
	SYS_getsockopt,
	/* System V and POSIX IPC, in a namespace of its own */
	SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget, SYS_msgsnd,
	SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive, SYS_mq_notify,
	SYS_mq_getsetattr,
	/* newer than the headers may be: cachestat, fchmodat2, map_shadow_stack, futex_wake/wait/requeue, mseal, *xattrat */
	451, 452, 453, 454, 455, 456, 462, 463, 464, 465, 466,
#ifdef __x86_64__
	SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_poll, SYS_select, SYS_pipe, SYS_dup2, SYS_pause, SYS_alarm,
	SYS_fork, SYS_vfork, SYS_getdents, SYS_rename, SYS_renameat, SYS_mkdir, SYS_rmdir, SYS_link, SYS_unlink, SYS_symlink,
	SYS_readlink, SYS_chmod, SYS_chown, SYS_lchown, SYS_mknod, SYS_utime, SYS_utimes, SYS_futimesat, SYS_getpgrp,
	SYS_arch_prctl, SYS_time, SYS_epoll_create, SYS_epoll_wait, SYS_inotify_init, SYS_signalfd, SYS_eventfd,
	SYS_modify_ldt, SYS_get_thread_area, SYS_set_thread_area, SYS_epoll_ctl_old, SYS_epoll_wait_old,
#endif
#ifdef __aarch64__
	SYS_renameat,
#endif
};

/* Looked at more closely; see emit_special. */
static const short special[] = {SYS_clone, SYS_socket, SYS_socketpair, SYS_ioctl, SYS_personality};

/* As if the kernel had been built without: asynchronous requests of the old kind are counted for the whole host
 * (fs.aio-max-nr), and who gets ENOSYS does without. */
static const short absent[] = {SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel, SYS_io_getevents,
			       SYS_io_pgetevents};

enum action { DENY, ALLOW, LOOK, ABSENT };

struct range {
	int first;
	enum action action;
};

static struct sock_filter filter[FILTER_MAX];
static unsigned short filter_length;

static void emit(uint16_t code, uint8_t yes, uint8_t no, uint32_t k)
{
	if (filter_length < FILTER_MAX)
		filter[filter_length] = (struct sock_filter){code, yes, no, k};
	filter_length++; /* past the end: noticed by seccomp_build */
}

static void emit_return(uint32_t verdict)
{
	emit(BPF_RET | BPF_K, 0, 0, verdict);
}

static void emit_refusal(int code)
{
	emit_return(SECCOMP_RET_ERRNO | (uint32_t)code);
}

static void emit_load_argument(int index)
{
	emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (unsigned)index));
}

/* Allows the loaded value if it is one of a few, else refuses. */
static void emit_one_of(const uint32_t *values, size_t count, int code)
{
	for (size_t i = 0; i < count; i++) {
		emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, values[i]);
		emit_return(SECCOMP_RET_ALLOW);
	}
	emit_refusal(code);
}

static void emit_special(int number)
{
	static const uint32_t personalities[] = {0x0, 0x8, 0x20000, 0x20008, 0xffffffff, 0x40000, 0x40008};
	static const uint32_t routing[] = {NETLINK_ROUTE};
	const uint32_t namespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
				    CLONE_NEWCGROUP;

	switch (number) {
	case SYS_clone:
		emit_load_argument(0);
		emit(BPF_JMP | BPF_JSET | BPF_K, 1, 0, namespaces);
		emit_return(SECCOMP_RET_ALLOW);
		emit_refusal(EPERM);
		break;
	case SYS_socket:
		emit_load_argument(0);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, AF_UNIX);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, AF_INET);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AF_INET6);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 2, AF_NETLINK);
		emit_return(SECCOMP_RET_ALLOW);
		emit(BPF_JMP | BPF_JA, 0, 0, 1);
		emit_refusal(EAFNOSUPPORT);
		emit_load_argument(2);
		emit_one_of(routing, 1, EPROTONOSUPPORT);
		break;
	case SYS_socketpair:
		/* It makes two sockets of any family, and loads its module, before it finds that it has no pairs. */
		emit_load_argument(0);
		emit_one_of((const uint32_t[]){AF_UNIX}, 1, EAFNOSUPPORT);
		break;
	case SYS_ioctl:
		/* TIOCSTI and TIOCLINUX put input into whoever shares the terminal. */
		emit_load_argument(1);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 0x5412);
		emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0x541c);
		emit_return(SECCOMP_RET_ALLOW);
		emit_refusal(EPERM);
		break;
	default:
		emit_load_argument(0);
		emit_one_of(personalities, sizeof personalities / sizeof *personalities, EPERM);
	}
}

/* A binary search over ranges; each test jumps by a BPF_JA, whose offset has 32 bits where the others have 8. */
static void emit_search(const struct range *ranges, size_t count)
{
	unsigned short jump;

	if (count == 1) {
		if (ranges->action == LOOK)
			emit_special(ranges->first);
		else if (ranges->action == ALLOW)
			emit_return(SECCOMP_RET_ALLOW);
		else
			emit_refusal(ranges->action == ABSENT || ranges->first > NEWEST_KNOWN ? ENOSYS : EPERM);
		return;
	}
	emit(BPF_JMP | BPF_JGE | BPF_K, 0, 1, (uint32_t)ranges[count / 2].first);
	jump = filter_length;
	emit(BPF_JMP | BPF_JA, 0, 0, 0);
	emit_search(ranges, count / 2);
	if (jump < FILTER_MAX)
		filter[jump].k = (uint32_t)(filter_length - jump - 1);
	emit_search(ranges + count / 2, count - count / 2);
}

int seccomp_build(struct err *e)
{
	static enum action actions[NEWEST_KNOWN + 2];
	static struct range ranges[NEWEST_KNOWN + 2];
	size_t count = 0;

	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
		actions[allowed[i]] = ALLOW;
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
		actions[absent[i]] = ABSENT;
	for (size_t i = 0; i < sizeof special / sizeof *special; i++)
		actions[special[i]] = LOOK;
	for (int number = 0; number <= NEWEST_KNOWN; number++)
		if (!number || actions[number] != actions[number - 1] || actions[number] == LOOK)
			ranges[count++] = (struct range){number, actions[number]};
	ranges[count++] = (struct range){NEWEST_KNOWN + 1, DENY};
	filter_length = 0;
	emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
	emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, NATIVE_ARCH);
	emit_refusal(ENOSYS);
	emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
	emit_search(ranges, count);
	if (filter_length > FILTER_MAX)
		return err_set(e, E2BIG, "seccomp", "the filter has %u steps", filter_length);
	return 0;
}

int seccomp_install(struct err *e)
{
	struct sock_fprog program = {filter_length, filter};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_set(e, errno, "seccomp", "cannot install the filter");
	return 0;
}
