// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest.c - what the examples' programs in guests have in common: see guest.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guest.h"

void guest_must(int ok, const char *what)
{
	FILE *log;

	if (ok)
		return;
	/* To the kernel's console, however quiet that is.  Then init ends, and the kernel with it. */
	log = fopen("/dev/kmsg", "w");
	if (log) {
		fprintf(log, "<0>init: %s: %s\n", what, strerror(errno));
		fclose(log);
	}
	_exit(1);
}

void *guest_memory(uint64_t gpa, size_t size)
{
	static int fd = -1;
	void *p;

	if (fd < 0) {
		mkdir("/dev", 0755);
		guest_must(!mount("dev", "/dev", "devtmpfs", 0, NULL) || errno == EBUSY, "/dev");
		fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
		guest_must(fd >= 0, "/dev/mem");
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, gpa);
	guest_must(p != MAP_FAILED, "memory that the host sees");
	return p;
}

void guest_call(uint32_t what)
{
	static volatile uint32_t *host;

	if (!host)
		host = guest_memory(CALL_GPA, sizeof(*host));
	/* A compiler may not have read before what the host writes meanwhile, nor write afterwards what it is to read. */
	__asm__ volatile("" : : : "memory");
	*host = what;
	__asm__ volatile("" : : : "memory");
}
