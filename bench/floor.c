/*
 * The floor: what the kernel itself asks for a sandbox, with nothing around it.
 *
 * One iteration clones a child into new namespaces, gives it a root of its own (an overlay of a given
 * directory with its writable layer on a fresh tmpfs, /proc, a small /dev, pivot_root, the old root
 * detached) and waits until the child says over a pipe that it stands there; then it is killed and
 * reaped. No file is parsed, no server spoken to, no seccomp filter, cgroup or network set up: whatever a
 * real engine needs on top of this time is its own.
 *
 * Three modes:
 *   create   until the child stands in its new root
 *   command  the same, then the child forks and executes a command there; until that has exited with 0
 *   exec     no namespaces: fork and execute the command on the host; until it has been reaped
 *
 * Time is read in this process around the system calls, so starting this program is not in any figure.
 * Results are JSON on stdout: one object at the end, or with --on-request one line for each byte read from
 * stdin, so that a driver can take turns between this and other programs.
 *
 * Functions return 0 or a negative errno and fill a struct failure; only main prints.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ITERATIONS = 1000000, USER_IDS = 65536, USER_ID_BASE = 100000 };

enum mode { MODE_CREATE, MODE_COMMAND, MODE_EXEC };

struct options {
    enum mode mode;
    uint64_t namespaces;
    const char *lower;
    const char *command;
    long iterations;
    bool on_request;
    /* A directory of this run's own, where every child mounts its tmpfs, invisible outside of it. */
    char base[64];
};

struct failure {
    int error;
    char what[60];
};

struct sample {
    double ready_ms;
    double teardown_ms;
};

static const struct {
    const char *name;
    uint64_t flag;
} NAMESPACES[] = {
    {"pid", CLONE_NEWPID}, {"mount", CLONE_NEWNS},      {"net", CLONE_NEWNET},   {"ipc", CLONE_NEWIPC},
    {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"user", CLONE_NEWUSER},
};
enum { NAMESPACE_COUNT = sizeof NAMESPACES / sizeof NAMESPACES[0] };

static const char *const MODES[] = {"create", "command", "exec"};

static int failed(struct failure *failure, const char *what) {
    failure->error = errno ? errno : EIO;
    snprintf(failure->what, sizeof failure->what, "%s", what);
    return -failure->error;
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A device cannot be made by mknod in a user namespace, so it is bound from the host's /dev. */
static int bind_device(const char *name, struct failure *failure) {
    char from[32], to[32];
    snprintf(from, sizeof from, "/dev/%s", name);
    snprintf(to, sizeof to, "r/dev/%s", name);
    int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) return failed(failure, "create device file");
    close(fd);
    if (mount(from, to, NULL, MS_BIND, NULL)) return failed(failure, "bind device");
    return 0;
}

static int mount_overlay(const struct options *options, struct failure *failure) {
    /* In a user namespace the overlay may only keep its own marks in user.* attributes. */
    const char *attributes = options->namespaces & CLONE_NEWUSER ? ",userxattr" : "";
    char data[4200];
    snprintf(data, sizeof data, "lowerdir=%s,upperdir=u,workdir=w%s", options->lower, attributes);
    if (mount("overlay", "r", "overlay", MS_NODEV | MS_NOSUID, data)) return failed(failure, "mount overlay");
    return 0;
}

static int enter_root(const struct options *options, struct failure *failure) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return failed(failure, "make mounts private");
    if (mount("tmpfs", options->base, "tmpfs", MS_NODEV | MS_NOSUID, "size=64m,mode=755"))
        return failed(failure, "mount tmpfs");
    if (chdir(options->base)) return failed(failure, "enter tmpfs");
    if (mkdir("u", 0755) || mkdir("w", 0755) || mkdir("r", 0755)) return failed(failure, "make directories");
    int rc = mount_overlay(options, failure);
    if (rc) return rc;
    if (mount("proc", "r/proc", "proc", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL)) return failed(failure, "mount proc");
    if (mount("tmpfs", "r/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755"))
        return failed(failure, "mount dev");
    if ((rc = bind_device("null", failure)) || (rc = bind_device("zero", failure)) ||
        (rc = bind_device("urandom", failure)))
        return rc;
    if (chdir("r")) return failed(failure, "enter root");
    /* The old root lands on top of the new one, so that detaching "." needs no directory to put it in. */
    if (syscall(SYS_pivot_root, ".", ".")) return failed(failure, "pivot_root");
    if (umount2(".", MNT_DETACH)) return failed(failure, "detach old root");
    if (chdir("/")) return failed(failure, "enter new root");
    return 0;
}

static int run_command(const char *command, struct failure *failure) {
    pid_t pid = fork();
    if (pid < 0) return failed(failure, "fork");
    if (pid == 0) {
        char *const argv[] = {(char *)command, NULL};
        char *const envp[] = {NULL};
        execve(command, argv, envp);
        _exit(127);
    }
    int status = 0;
    if (waitpid(pid, &status, 0) != pid) return failed(failure, "wait for command");
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        errno = EIO;
        return failed(failure, "command did not exit with 0");
    }
    return 0;
}

/* Ids that are not mapped cannot own files, so the child waits for its map and then becomes root in it. */
static int become_mapped_root(int maps_written, struct failure *failure) {
    char byte;
    if (read(maps_written, &byte, 1) != 1) return failed(failure, "wait for id maps");
    if (setresgid(0, 0, 0) || setresuid(0, 0, 0)) return failed(failure, "become root");
    return 0;
}

static int be_child(const struct options *options, int maps_written, struct failure *failure) {
    int rc = 0;
    if (options->namespaces & CLONE_NEWUSER && (rc = become_mapped_root(maps_written, failure))) return rc;
    if ((rc = enter_root(options, failure))) return rc;
    if (options->mode == MODE_COMMAND) rc = run_command(options->command, failure);
    return rc;
}

static int write_map(pid_t pid, const char *file, struct failure *failure) {
    char path[64], map[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int length = snprintf(map, sizeof map, "0 %d %d", USER_ID_BASE, USER_IDS);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return failed(failure, "open id map");
    ssize_t written = write(fd, map, (size_t)length);
    int rc = written == length ? 0 : failed(failure, "write id map");
    close(fd);
    return rc;
}

static int map_ids(pid_t pid, int maps_written, struct failure *failure) {
    int rc = write_map(pid, "uid_map", failure);
    if (!rc) rc = write_map(pid, "gid_map", failure);
    if (!rc && write(maps_written, "m", 1) != 1) rc = failed(failure, "release child");
    return rc;
}

static pid_t clone_child(uint64_t namespaces) {
    struct clone_args args = {.flags = namespaces, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static void child_main(const struct options *options, int report, int maps_written) {
    /* A driver that dies takes this program and its children with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct failure failure = {0};
    be_child(options, maps_written, &failure);
    if (write(report, &failure, sizeof failure) != sizeof failure) _exit(1);
    for (;;) pause();
}

static int measure_sandbox(const struct options *options, struct sample *sample, struct failure *failure) {
    int report[2], maps[2];
    if (pipe2(report, O_CLOEXEC)) return failed(failure, "pipe");
    if (pipe2(maps, O_CLOEXEC)) {
        int rc = failed(failure, "pipe");
        close(report[0]), close(report[1]);
        return rc;
    }
    double start = now_ms();
    pid_t pid = clone_child(options->namespaces);
    if (pid == 0) {
        close(report[0]), close(maps[1]);
        child_main(options, report[1], maps[0]);
    }
    int rc = pid < 0 ? failed(failure, "clone3") : 0;
    close(report[1]), close(maps[0]);
    if (!rc && options->namespaces & CLONE_NEWUSER) rc = map_ids(pid, maps[1], failure);
    if (!rc) {
        struct failure said = {0};
        if (read(report[0], &said, sizeof said) != sizeof said) rc = failed(failure, "child ended early");
        else if (said.error) rc = -(*failure = said).error;
    }
    double ready = now_ms();
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    *sample = (struct sample){.ready_ms = ready - start, .teardown_ms = now_ms() - ready};
    close(report[0]), close(maps[1]);
    return rc;
}

static int measure(const struct options *options, struct sample *sample, struct failure *failure) {
    *failure = (struct failure){0};
    errno = 0;
    if (options->mode != MODE_EXEC) return measure_sandbox(options, sample, failure);
    double start = now_ms();
    int rc = run_command(options->command, failure);
    *sample = (struct sample){.ready_ms = now_ms() - start, .teardown_ms = 0};
    return rc;
}

static int parse_namespaces(const char *text, uint64_t *flags) {
    char copy[128];
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy) return -EINVAL;
    char *rest = copy, *name;
    *flags = 0;
    while ((name = strsep(&rest, ","))) {
        int i = 0;
        while (i < NAMESPACE_COUNT && strcmp(name, NAMESPACES[i].name)) i++;
        if (i == NAMESPACE_COUNT) return -EINVAL;
        *flags |= NAMESPACES[i].flag;
    }
    return 0;
}

static int parse_mode(const char *text, enum mode *mode) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, MODES[i])) {
            *mode = (enum mode)i;
            return 0;
        }
    return -EINVAL;
}

static int parse(int argc, char **argv, struct options *options) {
    *options = (struct options){.mode = MODE_CREATE, .command = "/bin/true", .iterations = 100};
    parse_namespaces("pid,mount,net,ipc,uts,cgroup", &options->namespaces);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--on-request")) {
            options->on_request = true;
            continue;
        }
        if (i + 1 == argc) return -EINVAL;
        const char *name = argv[i], *value = argv[++i];
        int rc = 0;
        if (!strcmp(name, "--mode")) rc = parse_mode(value, &options->mode);
        else if (!strcmp(name, "--namespaces")) rc = parse_namespaces(value, &options->namespaces);
        else if (!strcmp(name, "--lower")) options->lower = value;
        else if (!strcmp(name, "--command")) options->command = value;
        else if (!strcmp(name, "--iterations")) options->iterations = strtol(value, NULL, 10);
        else rc = -EINVAL;
        if (rc) return rc;
    }
    if (options->iterations < 1 || options->iterations > MAX_ITERATIONS) return -EINVAL;
    if (options->mode == MODE_EXEC) return 0;
    if (!options->lower || strlen(options->lower) > 4000 || strpbrk(options->lower, ":,\\")) return -EINVAL;
    /* Without a mount namespace of its own the child would move the host's root. */
    return options->namespaces & CLONE_NEWNS ? 0 : -EINVAL;
}

static void print_iteration(int rc, const struct sample *sample, const struct failure *failure) {
    if (rc) printf("{\"error\": \"%s: %s\"}", failure->what, strerror(failure->error));
    else printf("{\"ready_ms\": %.4f, \"teardown_ms\": %.4f}", sample->ready_ms, sample->teardown_ms);
}

static void answer_requests(const struct options *options) {
    char byte;
    for (long i = 0; i < MAX_ITERATIONS && read(STDIN_FILENO, &byte, 1) == 1; i++) {
        struct sample sample;
        struct failure failure;
        int rc = measure(options, &sample, &failure);
        print_iteration(rc, &sample, &failure);
        putchar('\n');
        fflush(stdout);
    }
}

static void print_options(const struct options *options) {
    printf("{\"mode\": \"%s\", \"namespaces\": [", MODES[options->mode]);
    const char *separator = "";
    for (int i = 0; options->mode != MODE_EXEC && i < NAMESPACE_COUNT; i++)
        if (options->namespaces & NAMESPACES[i].flag) {
            printf("%s\"%s\"", separator, NAMESPACES[i].name);
            separator = ", ";
        }
    printf("], \"iterations\": [");
}

static int run_all(const struct options *options) {
    struct sample *samples = calloc((size_t)options->iterations, sizeof *samples);
    struct failure *failures = calloc((size_t)options->iterations, sizeof *failures);
    if (!samples || !failures) return -ENOMEM;
    for (long i = 0; i < options->iterations; i++) measure(options, &samples[i], &failures[i]);
    long count = 0;
    print_options(options);
    for (long i = 0; i < options->iterations; i++) {
        fputs(i ? ",\n  " : "\n  ", stdout);
        print_iteration(-failures[i].error, &samples[i], &failures[i]);
        count += failures[i].error != 0;
    }
    printf("\n], \"failures\": %ld}\n", count);
    return count ? -EIO : 0;
}

static const char USAGE[] =
    "usage: floor [--mode create|command|exec] [--namespaces pid,mount,net,ipc,uts,cgroup,user]\n"
    "             [--lower DIRECTORY] [--command PATH] [--iterations N | --on-request]\n"
    "--lower is needed for create and command, an absolute path without ':', ',' or '\\'.\n"
    "The namespaces must include mount.\n";

int main(int argc, char **argv) {
    struct options options;
    if (parse(argc, argv, &options)) {
        fputs(USAGE, stderr);
        return 2;
    }
    snprintf(options.base, sizeof options.base, "/tmp/floor-XXXXXX");
    if (!mkdtemp(options.base)) {
        fprintf(stderr, "floor: cannot make a directory in /tmp: %s\n", strerror(errno));
        return 1;
    }
    /* A child in a user namespace of its own has no right to a directory that only root may enter. */
    chmod(options.base, 0755);
    int rc = 0;
    if (options.on_request) answer_requests(&options);
    else rc = run_all(&options);
    rmdir(options.base);
    return rc ? 1 : 0;
}
