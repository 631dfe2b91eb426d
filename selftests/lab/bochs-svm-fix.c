// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into Bochs 3.0, first for seven errors in its SVM that no hypervisor can
 * do anything about. What bochs-fix.c says about how it is done holds here, too.
 *
 * Which interrupts are looked at is decided when EFLAGS.IF changes; VMRUN loads
 * the guest's while the CPU still counts as outside of a guest, and only masks
 * what the host's IF does not let through, never the other way round. A guest
 * that runs with IF clear gets no interrupt exit, and one that has it set from
 * the start no exit for its virtual interrupt. So it is decided again where
 * VMRUN, in a guest by then, injects its event.
 *
 * With NRIPS a software interrupt that VMRUN injects (INTn, INT3, INTO) pushes
 * VMCB.nRIP as where to return to, while a fault in its delivery is one of the
 * instruction at RIP. Bochs pushes RIP.
 *
 * An INT n of the guest's whose delivery exits is told of as the event that was
 * delivered before it.
 *
 * An intercepted exception takes the interrupt shadow away before it is saved,
 * and a #DB is intercepted before DR6 and DR7 are what its handler would see.
 *
 * VMRUN leaves the guest's CR2 where it is.
 *
 * A single step that is due when an instruction of the guest's exits befalls the
 * host, with the guest's GS.
 *
 * Second, to see what it does not care about: it keeps no translation over
 * VMRUN, whatever ASID it is under and whether a flush is asked for. Its CPU
 * gets very few ASIDs, and a VMRUN that would find another guest's
 * translations, or those of other nested tables, under its own is the end of
 * the machine. A guest that was entered with a flush, and could not even fetch
 * its first instruction, leaves none behind.
 */
#define _GNU_SOURCE
#include "patch.h"

#define INSIDE	"_ZN8BX_CPU_C"

/* The CPU's state, in this build of it; expect() has the instructions by which that is known. */
#define NUMBER		0x30
#define RIP		0xe0
#define DR6		0x298
#define DR7		0x29c
#define DEBUG_TRAP	0x2a0
#define CR2		0x2a8
#define IN_GUEST	0x91a8
#define VMCB_MEMORY	0x91b8	/* where the VMCB is in our address space, if it is in memory */
#define VMCB		0x91c8	/* what VMRUN read of it: */
#define  HOST_FLAGS	0xb8
#define  IN_DELIVERY	0xf4
#define  ITS_ERROR	0xf8
#define  INTR_MASKING	0x113
#define MASKED		0x91dc	/* events */
#define  INTERRUPTS	0xc00	/* the PIC's, the local APIC's */

#define VMCB_ASID	0x58
#define VMCB_TLB_CONTROL	0x5c
#define  FLUSH_ALL	1
#define  FLUSH_ASID	3
#define VMCB_EXIT_CODE	0x70
#define  PAGE_FAULT	(0x40 + 14)
#define VMCB_EXIT_ADDRESS	0x80
#define VMCB_NESTED_CR3	0xb0
#define VMCB_NRIP	0xc8
#define VMCB_RIP	0x578
#define VMCB_CR2	0x640
#define SOFTWARE_INTERRUPT	4
#define SOFTWARE_EXCEPTION	6
#define FLAG_IF		(1 << 9)
#define DEBUG_EXCEPTION	1
#define DR7_GD		(1 << 13)

#define AT(type, base, offset)	(*(type *)((unsigned char *)(base) + (offset)))

struct leaf {
	uint32_t eax, ebx, ecx, edx;
};

static void (*cpuid_leaf)(const void *cpuid, uint32_t function, uint32_t sub, struct leaf *leaf);
static void (*panic)(void *cpu, const char *format, ...);
static void (*decide)(void *cpu);
static bool (*inject)(void *cpu);
static void (*load_host)(void *cpu, void *host);
static void (*interrupt)(void *cpu, uint8_t vector, unsigned int type, bool has_error, uint16_t error);

static void (*intercept)(void *cpu, unsigned int type, unsigned int vector, uint16_t error, bool has_error, uint64_t info);

#define CPUS	8
#define ASIDS	8
static struct tagged {
	void *vmcb;
	uint64_t nested_cr3;
} tagged[CPUS][ASIDS];
static uint64_t entered_at[CPUS];

static void check_asid(void *cpu, void *memory)
{
	struct tagged *t = tagged[AT(uint32_t, cpu, NUMBER) % CPUS], now = { memory, AT(uint64_t, memory, VMCB_NESTED_CR3) };
	uint32_t asid = AT(uint32_t, memory, VMCB_ASID);
	uint8_t control = AT(uint8_t, memory, VMCB_TLB_CONTROL);

	if (asid >= ASIDS) {
		panic(cpu, "VMRUN: there is no ASID %u", asid);
		return;
	}
	if (control == FLUSH_ALL)
		memset(t, 0, sizeof(tagged[0]));
	else if (control == FLUSH_ASID)
		t[asid].vmcb = NULL;
	if (t[asid].vmcb && memcmp(&t[asid], &now, sizeof(now)))
		panic(cpu, "VMRUN: ASID %u has translations that are not this guest's", asid);
	t[asid] = now;
	entered_at[AT(uint32_t, cpu, NUMBER) % CPUS] = AT(uint64_t, memory, VMCB_RIP);
}

static void nothing_tagged(void *cpu, void *memory)
{
	uint32_t number = AT(uint32_t, cpu, NUMBER) % CPUS, asid = AT(uint32_t, memory, VMCB_ASID);

	if (asid < ASIDS && AT(uint8_t, memory, VMCB_TLB_CONTROL) && AT(uint64_t, memory, VMCB_EXIT_CODE) == PAGE_FAULT &&
	    AT(uint64_t, memory, VMCB_RIP) == entered_at[number] && AT(uint64_t, memory, VMCB_EXIT_ADDRESS) == entered_at[number])
		tagged[number][asid].vmcb = NULL;
}

static void few_asids(const void *cpuid, uint32_t function, uint32_t sub, struct leaf *leaf)
{
	cpuid_leaf(cpuid, function, sub, leaf);
	if (function == 0x8000000a)
		leaf->ebx = ASIDS;
}

static bool decide_and_inject(void *cpu)
{
	void *vmcb = AT(void *, cpu, VMCB), *memory = AT(void *, cpu, VMCB_MEMORY);

	if (memory) {
		check_asid(cpu, memory);
		AT(uint64_t, cpu, CR2) = AT(uint64_t, memory, VMCB_CR2);
	}
	decide(cpu);
	if (AT(bool, vmcb, INTR_MASKING) && AT(uint32_t, vmcb, HOST_FLAGS) & FLAG_IF)
		AT(uint32_t, cpu, MASKED) &= ~INTERRUPTS;
	return inject(cpu);
}

static void inject_interrupt(void *cpu, uint8_t vector, unsigned int type, bool has_error, uint16_t error)
{
	void *vmcb = AT(void *, cpu, VMCB_MEMORY);

	if ((type == SOFTWARE_INTERRUPT || type == SOFTWARE_EXCEPTION) && vmcb)
		AT(uint64_t, cpu, RIP) = AT(uint64_t, vmcb, VMCB_NRIP);
	interrupt(cpu, vector, type, has_error, error);
}

static void int_n(void *cpu, uint8_t vector, unsigned int type, bool has_error, uint16_t error)
{
	void *vmcb = AT(void *, cpu, VMCB);

	if (AT(bool, cpu, IN_GUEST)) {
		AT(uint32_t, vmcb, IN_DELIVERY) = vector | SOFTWARE_INTERRUPT << 8;
		AT(uint32_t, vmcb, ITS_ERROR) = 0;
	}
	interrupt(cpu, vector, type, has_error, error);
}

static void leave(void *cpu, void *host)
{
	void *memory = AT(void *, cpu, VMCB_MEMORY);

	if (memory)
		nothing_tagged(cpu, memory);
	AT(uint32_t, cpu, DEBUG_TRAP) = 0;
	load_host(cpu, host);
}

static void intercept_exception(void *cpu, unsigned int type, unsigned int vector, uint16_t error, bool has_error,
				uint64_t info)
{
	/* As exception() itself does when it was not intercepted */
	if (vector == DEBUG_EXCEPTION && AT(bool, cpu, IN_GUEST)) {
		AT(uint32_t, cpu, DR6) = (AT(uint32_t, cpu, DR6) & 0xffff6ff0) | (AT(uint32_t, cpu, DEBUG_TRAP) & 0xe00f);
		AT(uint32_t, cpu, DR7) &= ~DR7_GD;
	}
	intercept(cpu, type, vector, error, has_error, info);
}

/* Where in @function these instructions are */
static unsigned char *expect(unsigned char *function, const char *bytes, size_t n)
{
	unsigned char *at = function ? memmem(function, LONG, bytes, n) : NULL;

	if (!at)
		fprintf(stderr, "not the emulator that was expected: SVM is left as it is\n");
	return at;
}
#define EXPECT(function, bytes)	expect(function, bytes, sizeof(bytes) - 1)

__attribute__((constructor)) static void fix(void)
{
	unsigned char *vmrun = dlsym(RTLD_DEFAULT, INSIDE "5VMRUNEP15bxInstruction_c");
	unsigned char *exception = dlsym(RTLD_DEFAULT, INSIDE "9exceptionEjt");
	unsigned char *shadow;

	decide = dlsym(RTLD_DEFAULT, INSIDE "25handleInterruptMaskChangeEv");
	/* A shell that starts it, say */
	if (!decide)
		return;
	inject = dlsym(RTLD_DEFAULT, INSIDE "15SvmInjectEventsEv");
	interrupt = dlsym(RTLD_DEFAULT, INSIDE "9interruptEhjbt");
	intercept = dlsym(RTLD_DEFAULT, INSIDE "21SvmInterceptExceptionEjjtbm");
	shadow = EXPECT((unsigned char *)intercept, "\x89\x85\x48\x01\x00\x00");		/* mov %eax, inhibited(%rbp) */
	load_host = dlsym(RTLD_DEFAULT, INSIDE "20SvmExitLoadHostStateEP14SVM_HOST_STATE");
	panic = dlsym(RTLD_DEFAULT, "_ZN12logfunctions5panicEPKcz");
	cpuid_leaf = dlsym(RTLD_DEFAULT, "_ZNK7ryzen_t14get_cpuid_leafEjjP16cpuid_function_t");
	if (!shadow || !interrupt || !panic ||
	    !EXPECT(vmrun, "\x48\x8b\x83\xe0\x00\x00\x00" "\x8b\x7b\x30") ||	/* mov rip(%rbx), %rax; ... */
	    !EXPECT((unsigned char *)decide,
		    "\x80\xbb\xa8\x91\x00\x00\x00" "\x74\x2a"		/* cmpb $0, in_guest(%rbx); je */
		    "\x48\x8b\x93\xc8\x91\x00\x00"			/* mov vmcb(%rbx), %rdx */
		    "\x80\xba\x13\x01\x00\x00\x00") ||			/* cmpb $0, intr_masking(%rdx) */
	    !EXPECT((unsigned char *)decide,
		    "\x80\xcd\x1c"					/* or $interrupts and users', %ch */
		    "\xf6\x82\xb9\x00\x00\x00\x02" "\x0f\x44\xc1"	/* testb $2, host_flags+1(%rdx); cmove %ecx, %eax */
		    "\x80\xcc\x01"					/* or $1, %ah */
		    "\x89\x83\xdc\x91\x00\x00") ||			/* mov %eax, masked(%rbx) */
	    !EXPECT(dlsym(RTLD_DEFAULT, INSIDE "9MOV_RqCR2EP15bxInstruction_c"), "\x48\x8b\x93\xa8\x02\x00\x00") ||	/* mov cr2(%rbx), %rdx */
	    !EXPECT(exception,
		    "\x8b\x83\x98\x02\x00\x00" "\x8b\x93\xa0\x02\x00\x00"	/* mov dr6(%rbx), %eax; mov debug_trap(%rbx), %edx */
		    "\x81\xa3\x9c\x02\x00\x00\xff\xdf\xff\xff") ||	/* andl $~GD, dr7(%rbx) */
	    !EXPECT((unsigned char *)inject, "\x48\x8b\x87\xb8\x91\x00\x00") ||	/* mov vmcb_memory(%rdi), %rax */
	    !EXPECT((unsigned char *)inject, "\x41\x89\x85\xf4\x00\x00\x00"))	/* mov %eax, in_delivery(%r13) */
		return;
	redirect(vmrun, (void *)inject, "", 0, decide_and_inject);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "10Svm_VmexitEimm"), (void *)load_host, "", 0, leave);
	redirect(exception, (void *)intercept, "", 0, intercept_exception);
	redirect((void *)inject, (void *)interrupt, "", 0, inject_interrupt);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "6INT_IbEP15bxInstruction_c"), (void *)interrupt, "", 0, int_n);
	replace_method(dlsym(RTLD_DEFAULT, "_ZTV7ryzen_t"), cpuid_leaf, few_asids);
	overwrite(shadow, "\x0f\x1f\x44\x00\x00\x90", 6);		/* nop */
}
