/* A fuzz target: one function that reads hostile bytes, as libFuzzer wants it, and the seeds to begin with.
 *
 * There is one for every parser of bytes that come from a worker or from inside a sandbox. A new parser gets a new
 * fuzz_<name>.c here; the Makefile finds it.
 */
#ifndef TRAFORO_FUZZ_H
#define TRAFORO_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define FUZZ_INPUT_MAX 4096

/* Must not crash, hang, or read outside of the data; checks what the parser promises with fuzz_check. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Writes the seed with this number and returns its length; 0 if there are no more. */
size_t fuzz_seed(unsigned number, uint8_t *buffer, size_t capacity);

#define fuzz_check(condition)     \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

#endif
