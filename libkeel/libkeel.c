// SPDX-License-Identifier: GPL-2.0-only
/*
 * libkeel.c - see libkeel.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "libkeel.h"

#define STATE_ROOM	16384	/* for a small VM's; keel says how much a larger one takes */

/* The errno goes where the answer does.  errno stays what it was: a caller that looks there should notice. */
static int call(int fd, unsigned long request, void *arg)
{
	int was = errno, r = ioctl(fd, request, arg);

	if (r < 0) {
		r = -errno;
		errno = was;
	}
	return r;
}

int keel_open(const char *path)
{
	int was = errno, fd = open(path ? path : KEEL_NODE, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		fd = -errno;
		errno = was;
	}
	return fd;
}

int keel_info(int fd, struct keel_info *info)
{
	struct keel_info i = { 0 };
	int r = call(fd, KEEL_GET_INFO, &i);

	if (!r)
		*info = i;
	return r;
}

int keel_beside(int node, int kvm_vm)
{
	return call(node, KEEL_BESIDE_KVM, (void *)(long)kvm_vm);
}

int keel_get_state(int vm, uint32_t flags, void **state, size_t *size, struct keel_section *bad)
{
	struct keel_state arg = { .size = STATE_ROOM, .flags = flags };
	void *buf = NULL, *larger;
	uint64_t room;
	int r;

	do {
		/* Devices and vCPUs may come between two calls, so that the second one's word does not hold, either. */
		larger = realloc(buf, arg.size);
		if (!larger) {
			r = -ENOMEM;
			memset(&arg.section, 0, sizeof(arg.section));
			break;
		}
		buf = larger;
		room = arg.size;
		arg.data = (uintptr_t)buf;
		r = call(vm, KEEL_GET_STATE, &arg);
	} while (r == -E2BIG && arg.size > room);
	if (bad)
		*bad = arg.section;
	if (r) {
		free(buf);
		return r;
	}
	*state = buf;
	*size = arg.size;
	return 0;
}

static int from_state(int fd, unsigned long request, const void *state, size_t size, uint32_t flags, struct keel_section *bad)
{
	struct keel_state arg = { .data = (uintptr_t)state, .size = size, .flags = flags };
	int r = call(fd, request, &arg);

	if (bad)
		*bad = arg.section;
	return r;
}

int keel_set_state(int vm, const void *state, size_t size, uint32_t flags, struct keel_section *bad)
{
	return from_state(vm, KEEL_SET_STATE, state, size, flags, bad);
}

int keel_create_vm_from(int node, const void *state, size_t size, uint32_t flags, struct keel_section *bad)
{
	return from_state(node, KEEL_CREATE_VM_FROM, state, size, flags, bad);
}

int keel_snapshot(int vm, uint32_t flags, uint32_t *id)
{
	struct keel_snapshot arg = { .flags = flags };
	int r = call(vm, KEEL_SNAPSHOT, &arg);

	if (!r)
		*id = arg.id;
	return r;
}

int keel_reset(int vm, uint32_t id, uint32_t flags, uint64_t *pages)
{
	struct keel_reset arg = { .id = id, .flags = flags };
	int r = call(vm, KEEL_RESET, &arg);

	if (!r && pages)
		*pages = arg.pages;
	return r;
}

int keel_drop(int vm, uint32_t id)
{
	return call(vm, KEEL_DROP, (void *)(unsigned long)id);
}

int keel_reset_run(int vcpu, uint32_t *id, uint32_t flags, uint64_t *pages)
{
	struct keel_reset arg = { .id = *id, .flags = flags };
	int r = call(vcpu, KEEL_RESET_RUN, &arg);

	if (*id && !arg.id && pages)
		*pages = arg.pages;
	*id = arg.id;
	return r;
}

int keel_allow_reset(int vm, uint32_t id, uint32_t flags)
{
	struct keel_allow_reset arg = { .id = id, .flags = flags };

	return call(vm, KEEL_ALLOW_RESET, &arg);
}

int keel_working_set(int vm, uint64_t *gpa, uint64_t *size, uint32_t space, uint32_t flags,
		     struct keel_gpa_range *ranges, uint32_t room)
{
	struct keel_working_set arg = {
		.gpa = *gpa, .size = *size, .ranges = (uintptr_t)ranges, .room = room, .space = space, .flags = flags,
	};
	int r = call(vm, KEEL_WORKING_SET, &arg);

	if (r)
		return r;
	*gpa = arg.gpa;
	*size = arg.size;
	return arg.count;
}

int keel_mark_dirty(int vm, uint64_t gpa, uint64_t size, uint32_t space)
{
	struct keel_range arg = { .gpa = gpa, .size = size, .space = space };

	return call(vm, KEEL_MARK_DIRTY, &arg);
}
