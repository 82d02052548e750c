/* Error records, as they travel up to whoever can answer: functions return 0 or a negative errno and fill one. */
#ifndef TRAFORO_ERR_H
#define TRAFORO_ERR_H

#include <stddef.h>

struct err {
	int code;          /* errno, positive */
	const char *stage; /* a literal: what was being done */
	char text[256];    /* for people: "mount 'proc' at 'm/proc'" */
};

/* Fills the record and returns -code. */
int err_set(struct err *e, int code, const char *stage, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
