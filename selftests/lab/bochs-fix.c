// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into Bochs 2.7, whose VM entry forgets one thing. Whether an
 * interrupt is looked at is decided when EFLAGS.IF changes or a context is
 * loaded; VM entry loads the guest's while the CPU still counts as outside of
 * a guest. A guest that runs with IF clear, entered from a host that has it
 * clear, then gets no interrupt exit, ever: one that spins never ends.
 *
 * So where VMLAUNCH and VMRESUME, in a guest by then, call for the injection of
 * an event, that decision is made again first. A Bochs that has no such call is
 * left alone, and says so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define FAR	0x40000000L	/* how far a call reaches, on the safe side */

static unsigned char *near_page(unsigned char *to)
{
	long off;

	for (off = 1L << 20; off < FAR; off += 1L << 20) {
		void *hint = (void *)(((uintptr_t)to & ~4095UL) - off);
		void *p = mmap(hint, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			       -1, 0);

		if (p != MAP_FAILED)
			return p;
	}
	return NULL;
}

__attribute__((constructor)) static void fix(void)
{
	unsigned char *launch = dlsym(RTLD_DEFAULT, "_ZN8BX_CPU_C8VMLAUNCHEP15bxInstruction_c");
	unsigned char *inject = dlsym(RTLD_DEFAULT, "_ZN8BX_CPU_C19VMenterInjectEventsEv");
	unsigned char *decide = dlsym(RTLD_DEFAULT, "_ZN8BX_CPU_C25handleInterruptMaskChangeEv");
	/* push %rdi; call *decide; pop %rdi; jmp *inject */
	unsigned char code[] = {
		0x57, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0,
		0x5f, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0,
	};
	unsigned char *p, *page;
	int32_t rel;

	/* The shell that starts it, for one, is no Bochs. */
	if (!launch && !inject && !decide)
		return;
	for (p = launch; launch && p < launch + 1024; p++) {
		memcpy(&rel, p + 1, 4);
		if (*p == 0xe8 && p + 5 + rel == inject)
			break;
	}
	if (!launch || !inject || !decide || p == launch + 1024 || !(page = near_page(p))) {
		fprintf(stderr, "bochs-fix: this Bochs is not known, nothing is changed\n");
		return;
	}
	memcpy(code + 3, &decide, 8);
	memcpy(code + 16, &inject, 8);
	memcpy(page, code, sizeof(code));
	rel = page - (p + 5);
	launch = (unsigned char *)((uintptr_t)p & ~4095UL);
	mprotect(launch, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(p + 1, &rel, 4);
	mprotect(launch, 8192, PROT_READ | PROT_EXEC);
}
