#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int err_set(struct err *e, int code, const char *stage, const char *format, ...)
{
	va_list args;

	if (code <= 0)
		code = EIO;
	e->code = code;
	e->stage = stage;
	va_start(args, format);
	vsnprintf(e->text, sizeof e->text, format, args);
	va_end(args);
	return -code;
}
