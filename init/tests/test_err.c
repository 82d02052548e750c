#define _GNU_SOURCE
#include "err.h"

#include "tap.h"

int main(void)
{
	struct err e;
	char large[600];

	is(err_set(&e, ENOENT, "open", "cannot open '%s' %d", "/x", 7), -ENOENT, "err_set returns the negative errno");
	is(e.code, ENOENT, "the record has it positive");
	is_string(e.stage, "open", "the stage is kept");
	is_string(e.text, "cannot open '/x' 7", "the text is formatted");

	memset(large, 'a', sizeof large - 1);
	large[sizeof large - 1] = 0;
	err_set(&e, E2BIG, "large", "%s", large);
	is(strlen(e.text), sizeof e.text - 1, "a text that is too long is cut and ends");

	is(err_set(&e, 0, "odd", "no errno"), -EIO, "an error without a code is still an error");
	is(err_set(&e, -ENOENT, "odd", "negative"), -EIO, "a code that was already negative is still an error");
	is(e.code, EIO, "and positive in the record");
	return tap_end();
}
