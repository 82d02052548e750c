/* The init of a sandbox: PID 1, which reaps everything and does what the worker asks on its control socket. */
#ifndef TRAFORO_PID1_H
#define TRAFORO_PID1_H

/* Serves until the worker and the spawner have both let go of the control socket; its end is the sandbox's end.
 * `cgroup` is the directory of the sandbox's v2 cgroup, or -1. */
_Noreturn void pid1_run(int control, int cgroup, int score);
/* Remembers where the command line of this process is, so that a sandbox need not see the host's paths in it. */
void pid1_remember_arguments(int argc, char **argv);
/* Overwrites it, in a child. */
void pid1_hide_arguments(void);

#endif
