// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into Bochs 2.7, for five errors in its VMX that no hypervisor can
 * do anything about, and into 3.0, which still has three of them and one more.
 *
 * Whether an interrupt is looked at is decided when EFLAGS.IF changes or a
 * context is loaded; VM entry loads the guest's while the CPU still counts as
 * outside of a guest. A guest that runs with IF clear, entered from a host that
 * has it clear, then gets no interrupt exit, ever: one that spins never ends.
 * So where VMLAUNCH and VMRESUME, in a guest by then, call for the injection of
 * an event, that decision is made again first.
 *
 * In 2.7, the page modification log gets addresses of bytes instead of pages, at which
 * kvm_intel warns each time.
 *
 * A virtual interrupt whose delivery faults in the second dimension leaves the
 * event before it as what was in delivery. Where such an interrupt is to be
 * delivered it is noted first, as a software interrupt, of which the type is
 * then taken away: noting an external one would exit.
 *
 * With both an interrupt of the host's and a virtual one waiting, the latter is
 * delivered, also to a guest that has IF clear. That guest exits instead.
 *
 * In 2.7, virtual NMIs that were blocked when a guest exited stay so at the next entry,
 * whatever the guest's interruptibility state says then: entries only ever
 * block. So each entry begins with none blocked, and blocks what it is told to.
 *
 * In 3.0, a posted-interrupt descriptor has to be at the start of a page. The
 * manual wants 64 bytes, and that is what is checked then.
 *
 * What is wrong with the paging of 3.0's newer CPUs is in bochs-paging.h.
 *
 * On request (cpu-bits.h) the Skylake it emulates gets CPUID bits and MSRs of our
 * choice.
 *
 * On request (BOCHS_SPLIT_LOCK) the CPU watches for split locks, as newer ones
 * do for a kernel that asked for it: of INT1, which stands for the instruction
 * that has one, each first attempt is an #AC.
 *
 * On request (BOCHS_XFD) 3.0's sapphire_rapids gets what its AMX needs, see bochs-xfd.h.
 *
 * All is done by sending one call through a few instructions of our own. A
 * Bochs that has no such call is left alone, and says so.
 */
#define _GNU_SOURCE
#include "cpu-bits.h"

#define INSIDE	"_ZN8BX_CPU_C"
#include "bochs-paging.h"

#define SOFTWARE_INTERRUPT	4

static void (*note_event)(void *cpu, unsigned int type, unsigned int vector, uint16_t error, bool has_error, uint64_t info);
static void (*interrupt)(void *cpu, uint8_t vector, unsigned int type, bool soft, uint16_t error);

/* Where in the CPU's state the vectoring information is, which has the error code beside it */
static uint32_t *find_noted(void *cpu)
{
	uint32_t *p = cpu, *end = p + (1 << 16), want;

	note_event(cpu, SOFTWARE_INTERRUPT, 0xa7, 0x5a3c, true, 0);
	want = 0xa7 | SOFTWARE_INTERRUPT << 8 | 1 << 11;
	for (p++; p < end; p++)
		if (*p == want && (p[1] == 0x5a3c || p[-1] == 0x5a3c))
			return p;
	fprintf(stderr, "not the emulator that was expected: vectoring information is left as it is\n");
	return NULL;
}

static void virtual_interrupt(void *cpu, uint8_t vector, unsigned int type, bool soft, uint16_t error)
{
	static uint32_t *noted;
	static bool searched;

	if (!searched)
		noted = find_noted(cpu);
	searched = true;
	note_event(cpu, SOFTWARE_INTERRUPT, vector, 0, false, 0);
	if (noted)
		*noted = vector;
	interrupt(cpu, vector, type, soft, error);
}

static uint32_t (*flags)(void *cpu);
static void (*deliver)(void *cpu);
static void (*host_interrupt)(void *cpu);

static void (*handle_interrupt)(void *cpu);
static uint32_t pending;
#define VIRTUAL_INTERRUPT	(1 << 9)

static void deliver_or_exit(void *cpu)
{
	if (flags(cpu) & 1 << 9) {
		deliver(cpu);
	} else if (handle_interrupt) {
		/* Bochs 3.0, where it may be a notification, and no exit: with no virtual one waiting */
		*(uint32_t *)((char *)cpu + pending) &= ~VIRTUAL_INTERRUPT;
		handle_interrupt(cpu);
	} else {
		host_interrupt(cpu);
	}
}

/* Where in the CPU's state is what events are pending: of those that IF masks it is asked when IF is set */
static bool find_pending(unsigned char *decide)
{
	unsigned char *p = memmem(decide, LONG, "\xf7\xc2\x40\x0e\x00\x00", 6);	/* test $0xe40, %edx */

	if (!p || memcmp(p - 6, "\x8b\x97", 2))			/* mov pending(%rdi), %edx */
		return false;
	memcpy(&pending, p - 4, 4);
	return true;
}

/* Where in the CPU's state is what events are masked: IRET clears one, which is what an entry is to begin with */
static void unblock_virtual_nmis(unsigned char *iret, unsigned char *load_guest)
{
	unsigned char unblock[] = "\x80\xa7....\x7f";	/* andb $0x7f, events(%rdi) */
	unsigned char *p;

	for (p = iret; p && p < iret + LONG; p++) {
		if (memcmp(p, "\x24\x7f\x89\x83", 4))	/* and $0x7f, %al; mov %eax, events(%rbx) */
			continue;
		memcpy(unblock + 2, p + 4, 4);
		redirect(dlsym(RTLD_DEFAULT, INSIDE "8VMLAUNCHEP15bxInstruction_c"), load_guest,
			 unblock, sizeof(unblock) - 1, load_guest);
		return;
	}
	fprintf(stderr, "not the emulator that was expected: virtual NMIs are left as they are\n");
}

/* movabs $mask, %rdx, soon behind mov $POSTED_INTR_DESC_ADDR, %esi */
static void align_descriptors(unsigned char *check)
{
	unsigned char *p = check ? memmem(check, 2 * LONG, "\xbe\x16\x20\x00\x00", 5) : NULL;

	p = p ? memmem(p, 40, "\x48\xba\xff\x0f\x00\x00", 6) : NULL;
	if (p)
		overwrite(p + 2, "\x3f\x00", 2);
	else
		fprintf(stderr, "not the emulator that was expected: posted interrupts are left as they are\n");
}

struct leaf {
	uint32_t eax, ebx, ecx, edx;
};

static void (*cpuid_leaf)(void *cpuid, uint32_t function, uint32_t sub, struct leaf *leaf);
static int (*unknown_rdmsr)(void *cpu, uint32_t msr, uint64_t *val);
static int (*unknown_wrmsr)(void *cpu, uint32_t msr, uint64_t val);
static void (*real_verw)(void *cpu, void *insn);

static void cpuid_with_bits(void *cpuid, uint32_t function, uint32_t sub, struct leaf *leaf)
{
	cpuid_leaf(cpuid, function, sub, leaf);
	bits_cpuid(function, sub, &leaf->eax, &leaf->ebx, &leaf->ecx, &leaf->edx);
}

static int rdmsr_with_bits(void *cpu, uint32_t msr, uint64_t *val)
{
	return bits_rdmsr(cpu, msr, val) ? 1 : unknown_rdmsr(cpu, msr, val);
}

/* A guest's are counted as the host's are, see cpu-bits.h: it is the tests' own guests that write. */
static int wrmsr_with_bits(void *cpu, uint32_t msr, uint64_t val)
{
	int r = bits_wrmsr(cpu, msr, val, true);

	return r < 0 ? unknown_wrmsr(cpu, msr, val) : r;
}

static void counted_verw(void *cpu, void *insn)
{
	bits_count(cpu, VERW);
	real_verw(cpu, insn);
}

struct exchange {
	void *old, *new;
	int n;
};

static void exchange(void **p, void *arg)
{
	struct exchange *x = arg;
	unsigned char *page = (unsigned char *)((uintptr_t)p & ~4095UL);

	if (*p != x->old)
		return;
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
	*p = x->new;
	x->n++;
}

#include "bochs-xfd.h"

static void add_bits(void)
{
	struct exchange leaf = { cpuid_leaf = dlsym(RTLD_DEFAULT, "_ZNK18corei7_skylake_x_t14get_cpuid_leafEjjP16cpuid_function_t"),
				 cpuid_with_bits };
	struct exchange verw = { real_verw = dlsym(RTLD_DEFAULT, INSIDE "7VERW_EwEP15bxInstruction_c"), counted_verw };

	each_pointer(exchange, &leaf);
	each_pointer(exchange, &verw);
	if (!leaf.n || !verw.n) {
		fprintf(stderr, "not the emulator that was expected: no bits for its CPUs\n");
		exit(1);
	}
	unknown_rdmsr = dlsym(RTLD_DEFAULT, INSIDE "20handle_unknown_rdmsrEjPm");
	unknown_wrmsr = dlsym(RTLD_DEFAULT, INSIDE "20handle_unknown_wrmsrEjm");
	code = NULL;
	redirect(dlsym(RTLD_DEFAULT, INSIDE "5rdmsrEjPm"), (void *)unknown_rdmsr, "", 0, rdmsr_with_bits);
	redirect(dlsym(RTLD_DEFAULT, INSIDE "5wrmsrEjm"), (void *)unknown_wrmsr, "", 0, wrmsr_with_bits);
}

#define PRIVILEGED_SOFTWARE	5
#define HARDWARE_EXCEPTION	3
#define AC			17

static void watched_event(void *cpu, unsigned int type, unsigned int vector, uint16_t error, bool has_error, uint64_t info)
{
	static bool again;

	if (type == PRIVILEGED_SOFTWARE && (again = !again))
		note_event(cpu, HARDWARE_EXCEPTION, AC, 0, true, 0);
	else
		note_event(cpu, type, vector, error, has_error, info);
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
		 again, sizeof(again) - 1, dlsym(RTLD_DEFAULT, INSIDE "19VMenterInjectEventsEv"));
	handle_interrupt = dlsym(RTLD_DEFAULT, INSIDE "18HandleExtInterruptEv");
	if (!handle_interrupt) {
		/* and $-4096, %rsi: the address in question */
		redirect(dlsym(RTLD_DEFAULT, INSIDE "24translate_guest_physicalEmmbbjb"),
			 dlsym(RTLD_DEFAULT, INSIDE "29vmx_page_modification_loggingEmj"),
			 "\x48\x81\xe6\x00\xf0\xff\xff", 7,
			 dlsym(RTLD_DEFAULT, INSIDE "29vmx_page_modification_loggingEmj"));
		unblock_virtual_nmis(dlsym(RTLD_DEFAULT, INSIDE "6IRET64EP15bxInstruction_c"),
				     dlsym(RTLD_DEFAULT, INSIDE "26VMenterLoadCheckGuestStateEPm"));
	} else {
		mend_paging();
		align_descriptors(dlsym(RTLD_DEFAULT, INSIDE "26VMenterLoadCheckVmControlsEv"));
	}
	note_event = dlsym(RTLD_DEFAULT, INSIDE "12VMexit_EventEjjtbm");
	interrupt = dlsym(RTLD_DEFAULT, INSIDE "9interruptEhjbt");
	deliver = dlsym(RTLD_DEFAULT, INSIDE "29VMX_Deliver_Virtual_InterruptEv");
	flags = dlsym(RTLD_DEFAULT, INSIDE "11force_flagsEv");
	host_interrupt = dlsym(RTLD_DEFAULT, INSIDE "19VMexit_ExtInterruptEv");
	if (!note_event || !interrupt || !deliver || !flags || !host_interrupt || (handle_interrupt && !find_pending(decide))) {
		fprintf(stderr, "not the emulator that was expected: virtual interrupts are left as they are\n");
	} else {
		code = NULL;
		redirect((void *)deliver, (void *)interrupt, "", 0, virtual_interrupt);
		redirect((void *)handle_interrupt ?: dlsym(RTLD_DEFAULT, INSIDE "20InterruptAcknowledgeEv"), (void *)deliver,
			 "", 0, deliver_or_exit);
	}
	if (bits_read())
		add_bits();
	if (getenv("BOCHS_XFD"))
		add_xfd();
	if (getenv("BOCHS_SPLIT_LOCK")) {
		code = NULL;
		if (!redirect(dlsym(RTLD_DEFAULT, INSIDE "4INT1EP15bxInstruction_c"), (void *)note_event, "", 0, watched_event))
			exit(1);
	}
}
