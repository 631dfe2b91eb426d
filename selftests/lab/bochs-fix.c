// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into Bochs 2.7, for two errors in its VMX that no hypervisor can
 * do anything about.
 *
 * Whether an interrupt is looked at is decided when EFLAGS.IF changes or a
 * context is loaded; VM entry loads the guest's while the CPU still counts as
 * outside of a guest. A guest that runs with IF clear, entered from a host that
 * has it clear, then gets no interrupt exit, ever: one that spins never ends.
 * So where VMLAUNCH and VMRESUME, in a guest by then, call for the injection of
 * an event, that decision is made again first.
 *
 * The page modification log gets addresses of bytes instead of pages, at which
 * kvm_intel warns each time.
 *
 * Both are done by sending one call through a few instructions of our own. A
 * Bochs that has no such call is left alone, and says so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define INSIDE	"_ZN8BX_CPU_C"
#define REACH	0x40000000L	/* of a call, on the safe side */
#define LONG	2048		/* as far as a function is searched */

static unsigned char *code;	/* the next of our own instructions */

/* A page that calls in what is at @to can reach */
static void *page_near(unsigned char *to)
{
	long off;

	for (off = 1L << 20; off < REACH; off += 1L << 20) {
		void *hint = (void *)(((uintptr_t)to & ~4095UL) - off);
		void *p = mmap(hint, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			       -1, 0);

		if (p != MAP_FAILED)
			return p;
	}
	return NULL;
}

static void emit(const void *bytes, size_t n)
{
	memcpy(code, bytes, n);
	code += n;
}

/* In the function @from, the call of @to: runs @first, with the call's arguments, and goes on to @to */
static void redirect(unsigned char *from, unsigned char *to, const void *first, size_t n)
{
	unsigned char *p, *at, *start;
	int32_t rel;

	for (p = from; from && to && p < from + LONG; p++) {
		memcpy(&rel, p + 1, 4);
		if (*p == 0xe8 && p + 5 + rel == to)
			break;
	}
	if (!from || !to || p == from + LONG || (!code && !(code = page_near(p)))) {
		fprintf(stderr, "bochs-fix: not the Bochs that was expected, something is left as it is\n");
		return;
	}
	start = code;
	emit(first, n);
	emit("\x48\xb8", 2);		/* movabs $to, %rax */
	emit(&to, 8);
	emit("\xff\xe0", 2);		/* jmp *%rax */
	rel = start - (p + 5);
	at = (unsigned char *)((uintptr_t)p & ~4095UL);
	mprotect(at, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(p + 1, &rel, 4);
	mprotect(at, 8192, PROT_READ | PROT_EXEC);
}

__attribute__((constructor)) static void fix(void)
{
	unsigned char *decide = dlsym(RTLD_DEFAULT, INSIDE "25handleInterruptMaskChangeEv");
	/* push %rdi; movabs $decide, %rax; call *%rax; pop %rdi */
	unsigned char again[] = "\x57\x48\xb8........\xff\xd0\x5f";

	/* A shell that starts it, say */
	if (!decide)
		return;
	memcpy(again + 3, &decide, 8);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "8VMLAUNCHEP15bxInstruction_c"),
		 dlsym(RTLD_DEFAULT, INSIDE "19VMenterInjectEventsEv"),
		 again, sizeof(again) - 1);
	/* and $-4096, %rsi: the address in question */
	redirect(dlsym(RTLD_DEFAULT, INSIDE "24translate_guest_physicalEmmbbjb"),
		 dlsym(RTLD_DEFAULT, INSIDE "29vmx_page_modification_loggingEmj"),
		 "\x48\x81\xe6\x00\xf0\xff\xff", 7);
}
