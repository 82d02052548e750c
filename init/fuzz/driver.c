/* Drives a fuzz target where libFuzzer is missing: mutates seeds, keeps what reaches new code, stops in time.
 *
 *     fuzz_x --seconds 5 [--random 1]   mutate for so long
 *     fuzz_x --write-seeds DIRECTORY    write the seeds as files
 *     fuzz_x FILE...                    run these inputs
 *
 * New code is told by the compiler's -fsanitize-coverage=trace-pc, for which this file has the hook; built without it,
 * the mutation is blind and works all the same. What ends the program is written to <program>.input before. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define CORPUS_MAX 2048
#define MAP_SIZE 65536
#define HANG_SECONDS 10
#define BATCH 256

struct input {
	size_t size;
	uint8_t *data;
};

static struct input corpus[CORPUS_MAX];
static size_t corpus_count;
static uint8_t current[FUZZ_INPUT_MAX];
static size_t current_size;
static char report_path[4096];
static uint64_t random_state;

/* Ways from one piece of code to the next that were ever taken. */
static uint8_t map[MAP_SIZE];
static uintptr_t last_place;
static bool new_code;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
	uintptr_t here = (uintptr_t)__builtin_return_address(0);
	uintptr_t place = here ^ here >> 16;
	uint8_t *cell = &map[(place ^ last_place) % MAP_SIZE];

	last_place = place << 1;
	new_code |= !*cell;
	*cell = 1;
}

/* Given by the sanitizers, which end the program without a signal. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void save_input(void)
{
	int fd = open(report_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	static const char text[] = "the input is in ";

	if (fd < 0 || write(fd, current, current_size) < 0 || write(2, text, sizeof text - 1) < 0 ||
	    write(2, report_path, strlen(report_path)) < 0 || write(2, "\n", 1) < 0)
		_exit(3);
	close(fd);
}

static void on_signal(int number)
{
	save_input();
	_exit(128 + number);
}

static void guard(void)
{
	static const int ends[] = {SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	/* The sanitizers know more about a bad access than a signal does. */
	for (size_t i = 0; i < (__sanitizer_set_death_callback ? 2 : sizeof ends / sizeof *ends); i++)
		sigaction(ends[i], &action, NULL);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_input);
}

static uint32_t below(size_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return limit ? (uint32_t)((random_state >> 16) % limit) : 0;
}

/* Runs an input in memory of its exact size, so that a sanitizer sees a read past its end. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	fuzz_check(copy);
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void keep(const uint8_t *data, size_t size)
{
	struct input *input = &corpus[corpus_count < CORPUS_MAX ? corpus_count++ : below(CORPUS_MAX)];

	free(input->data);
	input->data = malloc(size ? size : 1);
	fuzz_check(input->data);
	memcpy(input->data, data, size);
	input->size = size;
}

static void set_bytes(void)
{
	static const uint64_t odd[] = {0,     1,      7,      8,       9,	   0x7f,       0x80,	   0xff,
				       0x100, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX};
	static const size_t widths[] = {1, 2, 4, 8};
	size_t width = widths[below(4)];
	uint64_t value = odd[below(sizeof odd / sizeof *odd)];

	if (current_size < width)
		return;
	for (size_t at = below(current_size - width + 1), i = 0; i < width; i++)
		current[at + i] = (uint8_t)(value >> 8 * i);
}

static void remove_piece(void)
{
	size_t at = below(current_size), length = below(current_size - at) % 64 + 1;

	if (length > current_size - at)
		return;
	memmove(current + at, current + at + length, current_size - at - length);
	current_size -= length;
}

static void insert_piece(const uint8_t *from, size_t available)
{
	size_t begin = below(available), length = below(available - begin) + 1, at = below(current_size + 1);

	if (!available || length > available - begin || length > sizeof current - current_size)
		return;
	memmove(current + at + length, current + at, current_size - at);
	memmove(current + at, from + begin, length);
	current_size += length;
}

static void mutate_once(void)
{
	uint8_t own[FUZZ_INPUT_MAX];
	const struct input *other;

	switch (below(6)) {
	case 0:
		if (current_size)
			current[below(current_size)] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		if (current_size)
			current[below(current_size)] = (uint8_t)below(256);
		break;
	case 2: set_bytes(); break;
	case 3:
		if (current_size)
			remove_piece();
		break;
	case 4:
		memcpy(own, current, current_size);
		insert_piece(own, current_size);
		break;
	default: other = &corpus[below(corpus_count)]; insert_piece(other->data, other->size);
	}
}

static void fuzz_once(void)
{
	const struct input *parent = &corpus[below(corpus_count)];

	current_size = parent->size;
	memcpy(current, parent->data, current_size);
	for (uint32_t rounds = below(6) + 1; rounds; rounds--)
		mutate_once();
	new_code = false;
	last_place = 0;
	run(current, current_size);
	if (new_code)
		keep(current, current_size);
}

static void load_seeds(void)
{
	for (unsigned number = 0; (current_size = fuzz_seed(number, current, sizeof current)); number++) {
		run(current, current_size);
		keep(current, current_size);
	}
	current_size = 0;
	run(current, 0);
	keep(current, 0);
}

static int fuzz(const char *name, double seconds)
{
	struct timespec begin, now;
	unsigned long long runs = 0;
	double passed = 0;

	load_seeds();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (passed < seconds) {
		alarm(HANG_SECONDS);
		for (int i = 0; i < BATCH; i++, runs++)
			fuzz_once();
		clock_gettime(CLOCK_MONOTONIC, &now);
		passed = (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
	}
	printf("# %s: %llu inputs in %.1f s, corpus of %zu\n", name, runs, passed, corpus_count);
	return 0;
}

static int write_seeds(const char *directory)
{
	int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t size;

	for (unsigned number = 0; dir >= 0 && (size = fuzz_seed(number, current, sizeof current)); number++) {
		char name[32];
		int fd;

		snprintf(name, sizeof name, "seed-%u", number);
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, current, size) != (ssize_t)size)
			return 1;
		close(fd);
	}
	return dir < 0;
}

static int run_files(char **paths)
{
	for (; *paths; paths++) {
		int fd = open(*paths, O_RDONLY | O_CLOEXEC);
		ssize_t size = fd < 0 ? -1 : read(fd, current, sizeof current);

		if (size < 0) {
			perror(*paths);
			return 1;
		}
		close(fd);
		current_size = (size_t)size;
		run(current, current_size);
		printf("# %s: fine\n", *paths);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	snprintf(report_path, sizeof report_path, "%s.input", argv[0]);
	random_state = argc == 5 && !strcmp(argv[3], "--random") ? strtoull(argv[4], NULL, 10) | 1 : 0x9e3779b97f4a7c15;
	guard();
	if (argc == 3 && !strcmp(argv[1], "--write-seeds"))
		return write_seeds(argv[2]);
	if ((argc == 3 || argc == 5) && !strcmp(argv[1], "--seconds"))
		return fuzz(name ? name + 1 : argv[0], strtod(argv[2], NULL));
	return run_files(argv + 1);
}
