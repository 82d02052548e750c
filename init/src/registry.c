#define _GNU_SOURCE
#include "registry.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t hash_of(const char *text)
{
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 1099511628211ULL;
	return hash;
}

int registry_init(struct registry *registry, struct err *e)
{
	size_t size = SANDBOXES_MAX * sizeof(struct sandbox_detail);

	registry->details = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (registry->details == MAP_FAILED)
		return err_set(e, errno, "memory", "cannot reserve memory for sandboxes");
	if (madvise(registry->details, size, MADV_DONTFORK) < 0)
		return err_set(e, errno, "memory", "cannot keep memory from children");
	return 0;
}

struct sandbox_detail *registry_detail(struct registry *registry, const struct sandbox *sandbox)
{
	return &registry->details[sandbox - registry->list];
}

struct sandbox *registry_find(struct registry *registry, const char *id)
{
	uint64_t hash = hash_of(id);

	for (size_t i = 0; i < registry->used; i++)
		if (registry->list[i].hash == hash && registry->list[i].state != SANDBOX_NONE &&
		    !strcmp(registry->details[i].id, id))
			return &registry->list[i];
	return NULL;
}

struct sandbox *registry_find_pid(struct registry *registry, pid_t pid)
{
	for (size_t i = 0; i < registry->used; i++)
		if (registry->list[i].pid == pid && registry->list[i].state == SANDBOX_LIVE)
			return &registry->list[i];
	return NULL;
}

static struct sandbox *free_entry(struct registry *registry)
{
	for (size_t i = 0; i < registry->used; i++)
		if (registry->list[i].state == SANDBOX_NONE)
			return &registry->list[i];
	return registry->used < SANDBOXES_MAX ? &registry->list[registry->used] : NULL;
}

int registry_check(struct registry *registry, const char *id, struct err *e)
{
	if (registry_find(registry, id))
		return err_set(e, EEXIST, "create", "sandbox '%s' exists", id);
	if (!free_entry(registry))
		return err_set(e, ENOSPC, "create", "%d sandboxes are remembered already", SANDBOXES_MAX);
	return 0;
}

int registry_add(struct registry *registry, const struct birth *birth, pid_t pid, int control, int pidfd, struct err *e)
{
	struct sandbox_detail *detail;
	struct sandbox *sandbox;
	int code = registry_check(registry, birth->id, e);

	if (code)
		return code;
	sandbox = free_entry(registry);
	if (sandbox == &registry->list[registry->used])
		registry->used++;
	detail = registry_detail(registry, sandbox);
	*sandbox = (struct sandbox){
		.hash = hash_of(birth->id),
		.state = SANDBOX_LIVE,
		.pid = pid,
		.control = control,
		.pidfd = pidfd,
		.deadline = birth->deadline,
	};
	strcpy(detail->id, birth->id); /* births_parse has checked its length */
	detail->reason[0] = 0;
	detail->cgroups = birth->cgroups;
	detail->label_length = birth->label_length;
	if (birth->label_length)
		memcpy(detail->label, birth->label, birth->label_length);
	registry->live++;
	return 0;
}

int registry_update(struct registry *registry, struct sandbox *sandbox, const uint8_t *label, uint32_t length,
		    uint64_t deadline, struct err *e)
{
	struct sandbox_detail *detail = registry_detail(registry, sandbox);

	if (length > LABEL_MAX)
		return err_set(e, EMSGSIZE, "update", "a label has at most %d bytes", LABEL_MAX);
	memcpy(detail->label, label, length);
	detail->label_length = length;
	sandbox->deadline = deadline;
	return 0;
}

void registry_remove(struct registry *registry, struct sandbox *sandbox)
{
	struct sandbox_detail *detail = registry_detail(registry, sandbox);

	sandbox->state = SANDBOX_NONE;
	/* Frees the pages that are wholly this entry's and clears what was said in them. */
	memset(detail, 0, sizeof *detail - sizeof detail->label + detail->label_length);
}

uint64_t registry_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
