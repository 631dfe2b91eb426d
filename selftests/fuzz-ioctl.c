// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz-ioctl [SECONDS [SEED [CASES-FILE]]]: every ioctl there is, with arguments that are more or less plausible, from several
 * threads on several VMs at once, while their guests do what guests should not, memory comes and goes, files are closed
 * and processes fork.
 *
 * A case is a process with a few VMs and a list of numbers for each of its threads; a number is an operation: all of its
 * arguments are drawn from a generator that starts with it.  So a case can be repeated, as far as threads can be.  With
 * KCOV, lists that reach code nobody reached before are kept, and most cases are such lists changed a little.
 *
 * What is looked for: a vCPU thread that does not come back from KVM_RUN though signals want it, a process that does not
 * end, users of the module that stay; the kernel's own complaints are the lab's to see.
 */
#define _GNU_SOURCE
#include "guest.h"
#include <keel.h>

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <asm/msr-index.h>

#define THREADS		5
#define OPS		48		/* a thread's */
#define VMS		2
#define VCPUS		3		/* of each VM at the start */
#define FDS		48
#define KEPT		512		/* cases, with KCOV */
#define CASE_MS		700		/* then the threads begin no more operations */
#define HANG_MS		(20000 * scale)	/* for what should take milliseconds */
#define KICK_MS		10
#define ARENA		((u8 *)0x100000000000UL)	/* what guests have: where nothing else will be put */
#define ARENA_SIZE	(VMS * MEM_SIZE)
#define BUF		8192

static unsigned int scale = 1;

/* ------------------------------------------------------------------ numbers */

static u64 rnd(u64 *s)
{
	u64 z = (*s += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static u64 below(u64 *s, u64 n)
{
	return rnd(s) % n;
}

#define pick(s, array) ((array)[below(s, sizeof(array) / sizeof((array)[0]))])

static u64 any(u64 *s)
{
	switch (below(s, 8)) {
	case 0: return below(s, 4);
	case 1: return ~below(s, 4);
	case 2: return 1ULL << below(s, 64);
	case 3: return (1ULL << below(s, 64)) - 1;
	case 4: return below(s, 256);
	case 5: return rnd(s) & 0xffffffff;
	case 6: return below(s, MEM_SIZE);
	default: return rnd(s);
	}
}

static u64 gpa(u64 *s)
{
	static const u64 at[] = {
		0, 0xa0000, HEAP_GPA, HEAP_GPA + 0x200000, MEM_SIZE - 0x1000, MEM_SIZE, HOLE_GPA, IOAPIC_GPA, LAPIC_GPA,
		0x100000000UL, 1UL << 39, 1UL << 47, ~0xfffUL, PT_GPA, 0x20, 0x40, 0x60, 0x70,
	};
	u64 a = below(s, 3) ? pick(s, at) : below(s, MEM_SIZE) & ~0xfffULL;

	return below(s, 8) ? a : a + below(s, 0x3000);
}

static u32 msr(u64 *s)
{
	static const struct { u32 first, count; } at[] = {
		{ 0x10, 8 }, { 0x1b, 1 }, { 0x3a, 2 }, { 0x48, 2 }, { 0x174, 3 }, { 0x179, 3 }, { 0x1a0, 1 }, { 0x1d9, 8 },
		{ 0x200, 16 }, { 0x250, 32 }, { 0x277, 1 }, { 0x280, 32 }, { 0x2ff, 1 }, { 0x400, 40 }, { 0x480, 20 },
		{ 0x4d0, 1 }, { 0x6e0, 1 }, { 0x800, 0x40 }, { 0xda0, 1 }, { 0xc0000080, 5 }, { 0xc0000100, 4 }, { 0xc0010000, 0x20 },
		{ 0xc0010110, 16 }, { 0x4b564d00, 9 }, { 0x4b564d00, 9 }, { 0x4b564d00, 9 }, { 0x11, 2 },
		{ 0x40000000, 4 }, { 0x40000020, 4 }, { 0x40000070, 4 }, { 0x40000080, 5 }, { 0x40000090, 16 },
		{ 0x400000b0, 8 }, { 0x400000b0, 8 }, { 0x40000100, 9 }, { 0x40000106, 3 },
	};
	unsigned int i = below(s, sizeof(at) / sizeof(at[0]));

	return below(s, 32) ? at[i].first + below(s, at[i].count) : any(s);
}

static u64 msr_val(u64 *s)
{
	return below(s, 2) ? gpa(s) | below(s, 16) : any(s);
}

/* ------------------------------------------------------------------ guests */

/* In the guest: @seed decides. */
static void guest_next(struct guest_frame *f)
{
	f->rip += 1;		/* somewhere else; it may well fault again */
}

static void guest_wild(u64 seed)
{
	u64 s = seed, v, i;
	u32 r[4];

	for (i = 0; i < 32; i++)
		guest_on(i, guest_next);
	for (; i < 256; i++)
		guest_on(i, below(&s, 4) ? guest_count_eoi : guest_count);
	apic_on();
	if (below(&s, 2))
		guest_try("wrmsr", "a"((u32)0xfee00d00), "d"(0), "c"(MSR_IA32_APICBASE));
	/* Half of them are Windows: who is not cannot call. */
	if (below(&s, 2))
		wrmsr_try(0x40000000, 0x8100ULL << 32);
	for (;;) {
		switch (below(&s, 24)) {
		case 0: case 1: case 2:
			wrmsr_try(msr(&s), msr_val(&s));
			break;
		case 3:
			rdmsr_try(msr(&s), &v);
			break;
		case 4: case 5:
			guest_try("vmmcall", "a"(below(&s, 2) ? below(&s, 14) : any(&s)), "b"(any(&s)), "c"(any(&s)),
				  "d"(gpa(&s)), "S"(any(&s)));
			break;
		case 6: {
			register u64 r8 asm("r8") = gpa(&s);
			static const u16 codes[] = { 2, 3, 8, 0xb, 0x13, 0x14, 0x15, 0x5c, 0x5d };
			u64 c = pick(&s, codes) | below(&s, 2) << 16 | (below(&s, 2) ? below(&s, 8) << 17 : 0) |
				(below(&s, 2) ? below(&s, 4) << 32 : 0);

			if (guest_is_amd())
				guest_try("vmmcall", "c"(c), "d"(below(&s, 2) ? gpa(&s) & ~7 : any(&s)), "r"(r8), "a"(0));
			else
				guest_try("vmcall", "c"(c), "d"(below(&s, 2) ? gpa(&s) & ~7 : any(&s)), "r"(r8), "a"(0));
			break;
		}
		case 7:
			cpuid(below(&s, 2) ? 0x40000000 + below(&s, 12) : any(&s), below(&s, 4), r);
			break;
		case 8:
			outl(below(&s, 2) ? 0x20 + below(&s, 0x60) : any(&s), any(&s));
			break;
		case 9:
			inb(below(&s, 2) ? 0x20 + below(&s, 0x60) : any(&s));
			break;
		case 10: case 11:
			v = gpa(&s) & 0xfffffff8;
			guest_try("mov (%1),%%rax", "r"(v), "a"(0));
			break;
		case 12: case 13:
			/* Not the program itself. */
			v = below(&s, 4) ? HEAP_GPA + below(&s, MEM_SIZE - HEAP_GPA) : gpa(&s) & 0xfffffff8;
			if (v > HEAP_GPA)
				guest_try("mov %1,(%2)", "r"(any(&s)), "r"(v));
			break;
		case 14:
			apic_write(below(&s, 0x40) << 4, any(&s));
			break;
		case 15:
			guest_try("wrmsr", "a"((u32)(0x20 + below(&s, 0xe0)) | (u32)below(&s, 4) << 18 | (u32)below(&s, 8) << 8),
				  "d"((u32)below(&s, 4)), "c"(0x830));
			apic_icr(below(&s, 4), (0x20 + below(&s, 0xe0)) | below(&s, 4) << 18 | below(&s, 8) << 8);
			break;
		case 16:
			apic_write(0x320, 0x20040 + (below(&s, 2) << 18) + below(&s, 128));
			apic_write(0x380, any(&s));
			irq_halt();
			break;
		case 17:
			ioapic_write(0x10 + below(&s, 48), any(&s));
			break;
		case 18:
			guest_try("mov %1,%%cr4", "r"(read_cr4() ^ 1UL << below(&s, 24)));
			break;
		case 19:
			guest_try("mov %1,%%cr0", "r"(read_cr0() ^ (below(&s, 2) ? 1UL << 30 : 1UL << 3)));
			break;
		case 20:
			invlpg(any(&s));
			write_cr3(read_cr3());
			break;
		case 21:
			guest_try("mov %1,%%db7", "r"(any(&s) & 0xffffffff));
			guest_try("mov %1,%%db0", "r"(HEAP_GPA + below(&s, 0x1000)));
			break;
		case 22:
			if (!below(&s, 4))	/* anything at all, where memory has anything at all */
				((void (*)(void))(HEAP_GPA + below(&s, 0x100000)))();
			asm volatile("int $0x80");
			break;
		case 23:
			if (!below(&s, 16))
				irq_halt();
			irq_on();
			asm volatile("rep insb" :: "D"(HEAP_GPA + below(&s, 0x1000)), "c"(below(&s, 64)), "d"(0x3f8) : "memory");
			irq_off();
			break;
		}
	}
}

/* ------------------------------------------------------------------ a case's process */

enum what { SYS, VM, VCPU, DEV, EVENT, WHATS };

struct fuzz_fd {
	int fd;
	enum what what;
	struct kvm_run *run;
	int vm;
};

static struct fuzz_fd fds[FDS];
static struct vm *vms[VMS];
static int run_size;

struct worker {
	pthread_t thread;
	volatile pid_t tid;
	volatile u64 running;	/* in KVM_RUN since */
	int nr;
	u8 *scratch;
	u64 cov_seen;
};
static struct worker workers[THREADS];
static volatile bool enough;

/* Shared with the parent */
static struct shared {
	u64 ops[THREADS][OPS];
	u64 done, runs, rows_ok[128];
	u8 cov[1 << 16];
} *shared;

static struct fuzz_fd *pick_fd(u64 *s, enum what what)
{
	unsigned int i = below(s, FDS), n;

	if (!below(s, 64))
		return &fds[i];
	for (n = 0; n < FDS; n++, i++)
		if (fds[i % FDS].what == what && fds[i % FDS].fd >= 0)
			return &fds[i % FDS];
	return &fds[below(s, FDS)];
}

static void add_fd(u64 *s, int fd, enum what what, int vm)
{
	struct fuzz_fd *f = NULL;
	void *run = NULL;
	int i;

	for (i = 0; i < FDS; i++)
		if (fds[i].fd < 0)
			f = &fds[i];
	if (!f) {
		/* The first ones stay */
		f = &fds[FDS / 2 + below(s, FDS / 2)];
		close(f->fd);
	}
	if (what == VCPU)
		run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	f->run = run == MAP_FAILED ? NULL : run;
	f->what = what;
	f->vm = vm;
	f->fd = fd;
}

/*
 * The argument of each ioctl, field by field:
 * b h w q  any number of 1, 2, 4, 8 bytes        x X  a small one of 4, 8 bytes       0  four zero bytes
 * y  0 or 1, 4 bytes   s  a memslot   g G  a guest address, 8 or 4 bytes   z  a size   u  an address of the user's   p  a buffer's
 * f  an eventfd or other file   i  a GSI   A  an MSI's address, or small   c  a capability   m v  an MSR, a value for one
 * n( )  a count of 4 bytes, and so many times what is between   R( )  sixteen times   P  a multiple of 64, 4 bytes
 * r  a register's number, mostly an MSR's   L  a count of MSRs   D  what of a guest to debug   S  a signal mask that lets our signal in   N  room for entries
 */
static const struct row {
	enum what what;
	unsigned long cmd, get;		/* @get: whose answer to begin with */
	const char *arg;
	enum what makes;		/* SYS: nothing */
} rows[] = {
	{ SYS, KVM_GET_API_VERSION }, { SYS, KVM_CREATE_VM, 0, "0", VM }, { SYS, KVM_CHECK_EXTENSION, 0, "c" },
	{ SYS, KVM_GET_VCPU_MMAP_SIZE }, { SYS, KVM_GET_SUPPORTED_CPUID, 0, "N" }, { SYS, KVM_GET_EMULATED_CPUID, 0, "N" },
	{ SYS, KVM_GET_SUPPORTED_HV_CPUID, 0, "N" }, { SYS, KVM_GET_MSR_INDEX_LIST, 0, "N" },
	{ SYS, KVM_GET_MSR_FEATURE_INDEX_LIST, 0, "N" }, { SYS, KVM_GET_MSRS, 0, "n0(m0v)" },
	{ SYS, KVM_X86_GET_MCE_CAP_SUPPORTED }, { SYS, KEEL_GET_INFO },

	{ VM, KVM_CHECK_EXTENSION, 0, "c" }, { VM, KVM_CREATE_VCPU, 0, "X", VCPU },
	{ VM, KVM_SET_USER_MEMORY_REGION, 0, "sxgzu" }, { VM, KVM_SET_USER_MEMORY_REGION, 0, "sxgzu" },
	{ VM, KVM_SET_USER_MEMORY_REGION, 0, "sxgzu" }, { VM, KVM_SET_USER_MEMORY_REGION2, 0, "sxgzuqw" },
	{ VM, KVM_SET_NR_MMU_PAGES, 0, "X" }, { VM, KVM_GET_NR_MMU_PAGES },
	{ VM, KVM_GET_DIRTY_LOG, 0, "s0p" }, { VM, KVM_CLEAR_DIRTY_LOG, 0, "sPXp" }, { VM, KVM_RESET_DIRTY_RINGS },
	{ VM, KVM_SET_TSS_ADDR, 0, "g" }, { VM, KVM_SET_IDENTITY_MAP_ADDR, 0, "g" }, { VM, KVM_SET_BOOT_CPU_ID, 0, "X" },
	{ VM, KVM_ENABLE_CAP, 0, "c0XXXX" }, { VM, KVM_ENABLE_CAP, 0, "c0XXXX" }, { VM, KVM_CREATE_IRQCHIP },
	{ VM, KVM_CREATE_PIT }, { VM, KVM_CREATE_PIT2, 0, "x" }, { VM, KVM_GET_PIT }, { VM, KVM_SET_PIT, KVM_GET_PIT },
	{ VM, KVM_GET_PIT2 }, { VM, KVM_SET_PIT2, KVM_GET_PIT2 }, { VM, KVM_REINJECT_CONTROL, 0, "x" },
	{ VM, KVM_GET_IRQCHIP, 0, "x" }, { VM, KVM_SET_IRQCHIP, KVM_GET_IRQCHIP, "x" }, { VM, KVM_IRQ_LINE, 0, "ix" },
	{ VM, KVM_IRQ_LINE_STATUS, 0, "ix" }, { VM, KVM_SET_GSI_ROUTING, 0, "n0(ixx0Axxwxxxx)" },
	{ VM, KVM_SIGNAL_MSI, 0, "A0wxx" }, { VM, KVM_IRQFD, 0, "fixf" }, { VM, KVM_IRQFD, 0, "fixf" },
	{ VM, KVM_IOEVENTFD, 0, "Xgxfx" }, { VM, KVM_IOEVENTFD, 0, "Xgxfx" }, { VM, KVM_REGISTER_COALESCED_MMIO, 0, "gwx" },
	{ VM, KVM_UNREGISTER_COALESCED_MMIO, 0, "gwx" }, { VM, KVM_GET_CLOCK }, { VM, KVM_SET_CLOCK, KVM_GET_CLOCK },
	{ VM, KVM_SET_TSC_KHZ, 0, "q" }, { VM, KVM_GET_TSC_KHZ }, { VM, KVM_X86_SET_MSR_FILTER, 0, "y0R(yLm0p)" },
	{ VM, KVM_HYPERV_EVENTFD, 0, "xfy" }, { VM, KVM_GET_STATS_FD, 0, 0, DEV },
	{ VM, KEEL_GET_INFO }, { VM, KEEL_GET_STATE, 0, "pX000000" }, { VM, KEEL_SET_STATE, 0, "pXy00000" },
	{ VM, KEEL_SNAPSHOT, 0, "00000000" }, { VM, KEEL_SNAPSHOT, 0, "00000000" }, { VM, KEEL_RESET, 0, "xx000000" },
	{ VM, KEEL_RESET, 0, "xx000000" }, { VM, KEEL_RESET, 0, "xx000000" }, { VM, KEEL_DROP, 0, "X" },
	{ VM, KEEL_MARK_DIRTY, 0, "gzy0" },

	{ VCPU, KVM_GET_REGS }, { VCPU, KVM_SET_REGS, KVM_GET_REGS }, { VCPU, KVM_GET_SREGS },
	{ VCPU, KVM_SET_SREGS, KVM_GET_SREGS }, { VCPU, KVM_GET_SREGS2 }, { VCPU, KVM_SET_SREGS2, KVM_GET_SREGS2 },
	{ VCPU, KVM_GET_FPU }, { VCPU, KVM_SET_FPU, KVM_GET_FPU }, { VCPU, KVM_GET_XSAVE },
	{ VCPU, KVM_SET_XSAVE, KVM_GET_XSAVE }, { VCPU, KVM_GET_XSAVE2 }, { VCPU, KVM_SET_XSAVE, KVM_GET_XSAVE2 },
	{ VCPU, KVM_GET_XCRS }, { VCPU, KVM_SET_XCRS, KVM_GET_XCRS }, { VCPU, KVM_GET_DEBUGREGS },
	{ VCPU, KVM_SET_DEBUGREGS, KVM_GET_DEBUGREGS }, { VCPU, KVM_SET_GUEST_DEBUG, 0, "D0qqqqqqqq" },
	{ VCPU, KVM_GET_VCPU_EVENTS }, { VCPU, KVM_SET_VCPU_EVENTS, KVM_GET_VCPU_EVENTS }, { VCPU, KVM_INTERRUPT, 0, "x" },
	{ VCPU, KVM_NMI }, { VCPU, KVM_SMI }, { VCPU, KVM_GET_MP_STATE }, { VCPU, KVM_SET_MP_STATE, 0, "x" }, { VCPU, KVM_GET_LAPIC },
	{ VCPU, KVM_SET_LAPIC, KVM_GET_LAPIC }, { VCPU, KVM_SET_VAPIC_ADDR, 0, "g" }, { VCPU, KVM_SET_CPUID, 0, "n0(wwwwww)" },
	{ VCPU, KVM_GET_ONE_REG, 0, "rp" }, { VCPU, KVM_SET_ONE_REG, 0, "rp" }, { VCPU, KVM_GET_REG_LIST, 0, "x0" },
	{ VCPU, KVM_GET_CPUID2, 0, "N" }, { VCPU, KVM_SET_CPUID2, KVM_GET_CPUID2, "" }, { VCPU, KVM_GET_MSRS, 0, "n0(m0v)" },
	{ VCPU, KVM_SET_MSRS, 0, "n0(m0v)" }, { VCPU, KVM_SET_MSRS, 0, "n0(m0v)" }, { VCPU, KVM_SET_MSRS, 0, "n0(m0v)" },
	{ VCPU, KVM_X86_SETUP_MCE, 0, "q" }, { VCPU, KVM_X86_SET_MCE, 0, "qqqqb" }, { VCPU, KVM_SET_TSC_KHZ, 0, "q" },
	{ VCPU, KVM_GET_TSC_KHZ }, { VCPU, KVM_KVMCLOCK_CTRL }, { VCPU, KVM_HAS_DEVICE_ATTR, 0, "0xXp" },
	{ VCPU, KVM_GET_DEVICE_ATTR, 0, "0xXp" }, { VCPU, KVM_SET_DEVICE_ATTR, 0, "0xXp" }, { VCPU, KVM_TRANSLATE, 0, "g" },
	{ VCPU, KVM_GET_SUPPORTED_HV_CPUID, 0, "N" }, { VCPU, KVM_SET_SIGNAL_MASK, 0, "S" },
	{ VCPU, KVM_ENABLE_CAP, 0, "c0XXXX" }, { VCPU, KVM_ENABLE_CAP, 0, "c0XXXX" }, { VCPU, KVM_GET_STATS_FD, 0, 0, DEV },
};
#define ROWS	(sizeof(rows) / sizeof(rows[0]))
_Static_assert(ROWS <= 128, "shared->rows_ok is too small");

struct filler {
	u64 *s;
	u8 *buf, *scratch;
	unsigned int at;
};

static void put(struct filler *f, u64 v, unsigned int size)
{
	if (f->at + size <= BUF)
		memcpy(f->buf + f->at, &v, size);
	f->at += size;
}

static int some_file(u64 *s)
{
	return pick_fd(s, below(s, 8) ? EVENT : below(s, WHATS))->fd;
}

static const char *fill(struct filler *f, const char *arg, unsigned int times)
{
	const char *end = arg;
	u64 *s = f->s;

	for (; times; times--)
		for (end = arg; *end && *end != ')'; end++) {
			unsigned int n;

			switch (*end) {
			case 'b': put(f, any(s), 1); break;
			case 'h': put(f, any(s), 2); break;
			case 'w': put(f, any(s), 4); break;
			case 'q': put(f, any(s), 8); break;
			case 'x': put(f, below(s, 16) ? below(s, 9) : any(s), 4); break;
			case 'X': put(f, below(s, 16) ? below(s, 9) : any(s), 8); break;
			case 'y': put(f, below(s, 64) ? below(s, 2) : any(s), 4); break;
			case '0': put(f, below(s, 64) ? 0 : any(s), 4); break;
			case 's': put(f, below(s, 6) | !below(s, 8) << 16 | (below(s, 32) ? 0 : any(s)), 4); break;
			case 'g': put(f, gpa(s), 8); break;
			case 'z': put(f, below(s, 4) ? (below(s, 3) ? below(s, 64) : below(s, 2048)) << 12 : any(s), 8); break;
			case 'u': put(f, below(s, 16) ? (u64)ARENA + (below(s, ARENA_SIZE) & ~0xfffULL) : any(s), 8); break;
			case 'p': put(f, below(s, 32) ? (u64)f->scratch : any(s), 8); break;
			case 'f': put(f, below(s, 16) ? some_file(s) : any(s), 4); break;
			case 'i': put(f, below(s, 16) ? below(s, 32) : any(s), 4); break;
			case 'A': put(f, below(s, 2) ? 0xfee00000 | below(s, 4) << 12 | below(s, 4) << 2 : below(s, 24), 4); break;
			case 'c': put(f, below(s, 32) ? below(s, 240) : any(s), 4); break;
			case 'm': put(f, msr(s), 4); break;
			case 'r': put(f, below(s, 8) ? KVM_X86_REG_MSR(msr(s)) : any(s), 8); break;
			case 'v': put(f, msr_val(s), 8); break;
			case 'P': put(f, below(s, 40) * 64, 4); break;
			case 'L': put(f, below(s, 2) ? 0 : below(s, 0x300), 4); break;
			case 'D': put(f, (rnd(s) & 3) | (rnd(s) & rnd(s) & 0x3f0000), 4); break;
			case 'N': put(f, below(s, 8) ? 150 : below(s, 160), 4); break;
			case 'S':
				put(f, 8, 4);
				put(f, rnd(s) & ~(1ULL << (SIGUSR1 - 1)), 8);
				break;
			case 'n': case 'R':
				n = *end == 'R' ? 16 : below(s, 16) ? below(s, 9) : any(s);
				if (*end == 'n')
					put(f, n, 4);
				while (*++end != '(')
					put(f, 0, 4);
				end = fill(f, end + 1, n < 64 ? n : 1);
				break;
			}
		}
	return end;
}

/* Some bits, bytes and words of @size other than they were */
static void change(u64 *s, u8 *buf, unsigned int size)
{
	unsigned int n = below(s, 4), at;

	for (; n && size; n--) {
		at = below(s, size);
		if (below(s, 3)) {
			buf[at] ^= 1 << below(s, 8);
		} else {
			u64 v = any(s);

			at &= ~7U;
			memcpy(buf + at, &v, size - at < 8 ? size - at : 8);
		}
	}
}

static void one_ioctl(struct worker *w, u64 *s)
{
	unsigned int i = below(s, ROWS), size;
	const struct row *row = &rows[i];
	struct fuzz_fd *f = pick_fd(s, row->what);
	u8 *buf = w->scratch + BUF;
	struct filler fill_it = { .s = s, .buf = buf, .scratch = w->scratch };
	unsigned long arg = (unsigned long)buf;
	int ret, vm = f->vm;

	memset(buf, 0, BUF);
	if (!below(s, 8))
		for (size = 0; size < BUF; size++)
			buf[size] = rnd(s);
	if (!below(s, 3))
		for (size = 0; size < BUF; size++)
			w->scratch[size] = rnd(s);
	size = _IOC_SIZE(row->cmd);
	if (row->get) {
		fill(&fill_it, row->arg && *row->arg ? row->arg : "N", 1);
		fill_it.at = 0;
		if (row->arg && !*row->arg)
			size = 2048;
		ioctl(f->fd, row->get, buf);
		change(s, buf, size);
	} else if (row->arg) {
		fill(&fill_it, row->arg, 1);
		if (fill_it.at > size)
			size = fill_it.at < BUF ? fill_it.at : BUF;
		if (!below(s, 16))
			change(s, buf, size);
	}
	if (_IOC_DIR(row->cmd) == _IOC_NONE) {
		memcpy(&arg, buf, sizeof(arg));
		if (row->makes == VM)
			arg = (u32)arg;
	} else if (!below(s, 64)) {
		arg = any(s);		/* which may be one of ours: a reason more to be a process of one's own */
		if (arg - 0x400000 < 0x1000000)
			arg = 0;
	} else if (!below(s, 64)) {
		arg = (unsigned long)w->scratch + 3 * BUF - below(s, size + 1);		/* half of it is not there */
	}
	ret = ioctl(f->fd, row->cmd, arg);
	if (ret < 0)
		return;
	__sync_fetch_and_add(&shared->rows_ok[i], 1);
	if (row->makes)
		add_fd(s, ret, row->makes, vm);
}

static void run_vcpu(struct worker *w, u64 *s)
{
	struct fuzz_fd *f = pick_fd(s, VCPU);
	unsigned int n = 1 + below(s, 24);
	struct kvm_run *run = f->run;

	for (; n && !enough; n--) {
		if (run)
			run->immediate_exit = !below(s, 16);
		w->running = now_ns();
		__sync_fetch_and_add(&shared->runs, 1);
		if (ioctl(f->fd, KVM_RUN, 0) < 0 && errno != EINTR && errno != EAGAIN)
			n = 1;
		w->running = 0;
		if (run && !below(s, 4)) {
			u8 *at = (u8 *)run + below(s, 2) * 32;

			change(s, at, below(s, 2) ? 256 : sizeof(*run) - 32);
			if (below(s, 2))
				run->kvm_valid_regs = run->kvm_dirty_regs = below(s, 8);
		}
	}
}

/* A vCPU begins anew: wild C code in long mode, or anything in real mode */
static void restart(u64 *s, struct fuzz_fd *f)
{
	struct vm *vm = vms[f->vm];
	struct vcpu v = { .vm = vm, .id = below(s, VCPUS), .fd = f->fd, .run = f->run };
	struct kvm_mp_state mp = { KVM_MP_STATE_RUNNABLE };
	struct kvm_regs r = { .rip = HEAP_GPA, .rflags = 2 | any(s), .rsp = 0x7000 };
	struct kvm_sregs sr;

	if (vm->nr <= v.id || f->what != VCPU)
		return;
	if (below(s, 4)) {
		/* What it had at the start */
		r = *(struct kvm_regs *)vm->vcpu[v.id]->result;
		r.rdi = rnd(s);
		sr = *(struct kvm_sregs *)(vm->vcpu[v.id]->result + sizeof(r));
	} else if (!ioctl(v.fd, KVM_GET_SREGS, &sr)) {
		r.rip = below(s, 0x10000);
		sr.cr0 = 0x60000010;
		sr.cr4 = 0;
		sr.efer = 0;
		sr.cs.base = sr.ds.base = sr.es.base = sr.ss.base = below(s, 2) ? 0 : HEAP_GPA;
		sr.cs.l = 0;
		sr.cs.db = 0;
	} else {
		return;
	}
	ioctl(v.fd, KVM_SET_SREGS, &sr);
	ioctl(v.fd, KVM_SET_REGS, &r);
	ioctl(v.fd, KVM_SET_MP_STATE, &mp);
}

/* Into memory that another thread may be taking away */
static void poke(void *to, const void *from, size_t size)
{
	struct iovec local = { (void *)from, size }, remote = { to, size };

	process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
}

static void memory(struct worker *w, u64 *s)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE };
	static const int advice[] = { MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_PAGEOUT, MADV_COLD,
				      MADV_FREE, MADV_DONTFORK };
	u8 *at = ARENA + below(s, VMS) * MEM_SIZE + (below(s, 2) ? HEAP_GPA : 0) + (below(s, HEAP_GPA) & ~0xfffULL);
	size_t size = (1 + below(s, below(s, 2) ? 4 : 512)) << 12;
	u32 code[64];
	int i;

	if (at + size > ARENA + ARENA_SIZE)
		size = ARENA + ARENA_SIZE - at;
	switch (below(s, 8)) {
	case 0:
		munmap(at, size);
		break;
	case 1:
		mprotect(at, size, pick(s, prots));
		break;
	case 2: case 3:
		madvise(at, size, pick(s, advice));
		break;
	case 4:
		mmap(at, size, pick(s, prots), MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		break;
	case 5:
		/* Read-only, and shared between two VMs */
		mmap(at, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		break;
	default:
		/* Code: anything, or what exits in one way or another, over and over */
		for (i = 0; i < 64; i++) {
			static const u32 some[] = {
				0x90a20f90, 0x90320f90, 0x90300f90, 0x9090e4e4, 0x90f4fb90, 0xd9010f90, 0xc1010f90, 0x90200f90,
				0xc0220f90, 0x90086df3, 0x9000a4f3, 0x00010f67, 0x80cd9090, 0x10c70ff0, 0x90cff890, 0x9006010f,
				0xae0f9090, 0x90d0010f, 0x90089090, 0xfeebf4f4, 0x9090eb90, 0x0000ea90, 0x90909a90, 0x909d9c90,
			};

			code[i] = below(s, 3) ? pick(s, some) : rnd(s);
		}
		poke(ARENA + below(s, VMS) * MEM_SIZE + (below(s, 2) ? HEAP_GPA + below(s, 0x100000) : below(s, 0x10000)),
		     code, sizeof(code));
	}
}

/* A whole state, changed here and there, of this VM or another one */
static void some_state(struct worker *w, u64 *s)
{
	static u8 bufs[THREADS][65536] __attribute__((aligned(8)));
	struct keel_state state = { .data = (u64)bufs[w->nr], .size = sizeof(bufs[0]) };
	struct fuzz_fd *f = pick_fd(s, VM);
	unsigned int n = below(s, 4);

	if (ioctl(f->fd, KEEL_GET_STATE, &state))
		return;
	while (n--)
		change(s, bufs[w->nr], state.size);
	if (!below(s, 8))
		state.size = below(s, state.size + 1);
	state.flags = below(s, 4) == 0;
	ioctl(below(s, 4) ? f->fd : pick_fd(s, VM)->fd, KEEL_SET_STATE, &state);
}

/* A VM made of that, with how it was set up: it lives for a moment */
static void some_vm(struct worker *w, u64 *s)
{
	static u8 bufs[THREADS][65536] __attribute__((aligned(8)));
	struct keel_state state = { .data = (u64)bufs[w->nr], .size = sizeof(bufs[0]), .flags = KEEL_WITH_SETUP };
	unsigned int n = below(s, 4);
	int vm, vcpu;

	if (ioctl(pick_fd(s, VM)->fd, KEEL_GET_STATE, &state))
		return;
	while (n--)
		change(s, bufs[w->nr], state.size);
	if (!below(s, 8))
		state.size = below(s, state.size + 1);
	state.flags = below(s, 4) ? 0 : KEEL_WITH_MEMSLOTS;
	vm = ioctl(pick_fd(s, SYS)->fd, KEEL_CREATE_VM_FROM, &state);
	if (vm < 0)
		return;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, below(s, 3));
	if (vcpu >= 0)
		close(vcpu);
	close(vm);
}

/* Another process has our files, and no right to them, for a while */
static void other_process(struct worker *w, u64 *s)
{
	pid_t pid = fork();
	int i, status;

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (i = 0; i < 8; i++)
			one_ioctl(w, s);
		if (below(s, 2))
			sleep_ms(below(s, 20));
		_exit(0);
	}
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
}

static void one_op(struct worker *w, u64 op)
{
	u64 s = op;
	struct fuzz_fd *f;

	switch (below(&s, 64)) {
	default:
		one_ioctl(w, &s);
		break;
	case 0 ... 15:
		run_vcpu(w, &s);
		break;
	case 16 ... 21:
		memory(w, &s);
		break;
	case 22 ... 25:
		restart(&s, pick_fd(&s, VCPU));
		break;
	case 26:
		/* The vCPUs' part that others write */
		f = pick_fd(&s, VCPU);
		if (f->run)
			change(&s, (u8 *)f->run, run_size);
		break;
	case 27:
		f = pick_fd(&s, EVENT);
		eventfd_write(f->fd, 1 + below(&s, 3));
		break;
	case 28:
		if (below(&s, 2))
			break;
		f = pick_fd(&s, below(&s, WHATS));
		if (f->fd > 2) {
			int fd = f->fd;

			f->fd = -1;
			close(fd);
		}
		break;
	case 29:
		f = pick_fd(&s, DEV);
		if (f->what == DEV && pread(f->fd, w->scratch, BUF, below(&s, 2) ? 0 : any(&s)) < 0)
			break;
		break;
	case 30:
		if (!below(&s, 4))
			other_process(w, &s);
		break;
	case 32 ... 33:
		if (below(&s, 4))
			some_state(w, &s);
		else
			some_vm(w, &s);
		break;
	case 31:
		add_fd(&s, eventfd(0, EFD_NONBLOCK | (below(&s, 2) ? EFD_SEMAPHORE : 0)), EVENT, 0);
		break;
	}
}

/* ------------------------------------------------------------------ coverage */

#define KCOV_INIT	_IOR('c', 1, unsigned long)
#define KCOV_ENABLE	_IO('c', 100)
#define COVER		(64 << 10)

static u64 *kcov_on(void)
{
	int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
	u64 *area;

	if (fd < 0)
		return NULL;
	if (ioctl(fd, KCOV_INIT, COVER))
		return NULL;
	area = mmap(NULL, COVER * sizeof(u64), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (area == MAP_FAILED || ioctl(fd, KCOV_ENABLE, 0))
		return NULL;
	return area;
}

static void kcov_take(u64 *area)
{
	u64 n = area[0], i;

	for (i = 1; i <= n && i < COVER; i++) {
		u64 pc = area[i];

		shared->cov[(pc ^ pc >> 16) & 0xffff] = 1;
	}
	area[0] = 0;
}

/* ------------------------------------------------------------------ the process of a case */

static void on_usr1(int sig)
{
}

static void *work(void *arg)
{
	struct worker *w = arg;
	u64 *area = kcov_on();
	int i;

	w->tid = syscall(SYS_gettid);
	for (i = 0; i < OPS && !enough; i++) {
		one_op(w, shared->ops[w->nr][i]);
		__sync_fetch_and_add(&shared->done, 1);
		if (area)
			kcov_take(area);
	}
	w->tid = 0;
	return NULL;
}

static void set_up(u64 *s)
{
	static const enum vm_kind kinds[] = { VM_IRQCHIP, VM_IRQCHIP, VM_SPLIT, VM_PLAIN };
	int i, j;

	for (i = 0; i < FDS; i++)
		fds[i].fd = -1;
	for (i = 0; i < VMS; i++) {
		u8 *mem = ARENA + i * MEM_SIZE;
		struct vm *vm = vms[i] = vm_new_size(pick(s, kinds), 0);

		run_size = vm->run_size;
		vm->size = MEM_SIZE;
		vm->mem = mmap(mem, MEM_SIZE, PROT_READ | PROT_WRITE,
			       MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (vm->mem != mem)
			die("no memory for a guest");
		if (below(s, 2)) {
			struct kvm_pit_config pit = { .flags = below(s, 2) };

			ioctl(vm->fd, KVM_CREATE_PIT2, &pit);
		}
		if (!below(s, 3))
			vm_enable_cap(vm, KVM_CAP_DIRTY_LOG_RING, 4096);
		if (!below(s, 2))
			vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1 + below(s, 3));
		vm_slot(vm, 0, 0, MEM_SIZE, mem, below(s, 2) ? KVM_MEM_LOG_DIRTY_PAGES : 0);
		if (below(s, 2))	/* else there is nothing in system management mode */
			vm_slot(vm, 1 << 16, 0, MEM_SIZE, mem, below(s, 2) ? KVM_MEM_LOG_DIRTY_PAGES : 0);
		add_fd(s, vm->sys, SYS, i);
		add_fd(s, vm->fd, VM, i);
		add_fd(s, eventfd(0, EFD_NONBLOCK), EVENT, i);
		add_fd(s, eventfd(0, EFD_NONBLOCK), EVENT, i);
		for (j = 0; j < VCPUS; j++) {
			struct vcpu *v = vcpu_new(vm, j);
			struct kvm_cpuid2 *c = vm->cpuid;
			struct kvm_cpuid_entry2 *e;
			struct kvm_regs *r = malloc(sizeof(struct kvm_regs) + sizeof(struct kvm_sregs));

			vcpu_long(v, guest_wild, rnd(s));
			vcpu_get_regs(v, r);
			vcpu_get_sregs(v, (struct kvm_sregs *)(r + 1));
			v->result = (u64)r;
			add_fd(s, v->fd, VCPU, i);
			/* Windows' hypervisor beside KVM's */
			if (below(s, 2)) {
				struct kvm_enable_cap cap = { .cap = KVM_CAP_HYPERV_SYNIC2 };
				struct kvm_cpuid2 *hv = calloc(1, BUF), *both = calloc(1, 2 * BUF);

				hv->nent = 64;
				if (!ioctl(vm->sys, KVM_GET_SUPPORTED_HV_CPUID, hv)) {
					memcpy(both, hv, sizeof(*hv) + hv->nent * sizeof(*e));
					for (e = c->entries; e < c->entries + c->nent; e++)
						if (e->function >> 28 != 4 && both->nent < 200)
							both->entries[both->nent++] = *e;
					ioctl(v->fd, KVM_SET_CPUID2, both);
				}
				ioctl(v->fd, KVM_ENABLE_CAP, &cap);
				free(hv);
				free(both);
			}
		}
	}
}

static void show_threads(pid_t pid)
{
	char path[64], text[4096];
	struct dirent *d;
	DIR *dir;
	int fd, n;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.10s/stack", pid, d->d_name);
		fd = open(path, O_RDONLY);
		n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
		close(fd);
		text[n > 0 ? n : 0] = 0;
		printf("# thread %s:\n%s", d->d_name, text);
	}
	if (dir)
		closedir(dir);
	fflush(stdout);
}

/* 0, or what is wrong */
static int run_case(u64 seed)
{
	struct sigaction sa = { .sa_handler = on_usr1 };
	u64 s = seed, start, now;
	bool busy;
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGUSR1, &sa, NULL);
	set_up(&s);
	start = now_ns();
	for (i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		w->nr = i;
		/* Three buffers and nothing behind */
		w->scratch = mem_alloc(4 * BUF);
		munmap(w->scratch + 3 * BUF, BUF);
		if (pthread_create(&w->thread, NULL, work, w))
			die("no thread");
	}
	do {
		sleep_ms(KICK_MS);
		now = now_ns();
		enough = now - start > CASE_MS * 1000000ULL * scale;
		busy = false;
		for (i = 0; i < THREADS; i++) {
			struct worker *w = &workers[i];
			u64 running = w->running;

			if (!w->tid && (enough || w->running == 0))
				continue;
			busy = true;
			if (w->tid)
				syscall(SYS_tgkill, getpid(), w->tid, SIGUSR1);
			if (running && now > running && now - running > HANG_MS * 1000000ULL) {
				printf("# thread %d does not come back from KVM_RUN\n", w->tid);
				show_threads(getpid());
				return 3;
			}
		}
		if (now - start > 2 * HANG_MS * 1000000ULL) {
			printf("# an operation takes too long\n");
			show_threads(getpid());
			return 3;
		}
	} while (busy || now - start < 2 * KICK_MS * 1000000ULL);
	return 0;
}

/* ------------------------------------------------------------------ cases */

static long users_of_module(void)
{
	long n = -1;
	FILE *f = fopen("/sys/module/keel/refcnt", "r");

	if (f) {
		if (fscanf(f, "%ld", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

/* What the kernel has that is nobody's: in KB */
static long kernel_memory(void)
{
	static const char *const names[] = { "SUnreclaim:", "PageTables:", "VmallocUsed:", "Percpu:", "KernelStack:" };
	char name[64];
	long sum = 0, v;
	FILE *f = fopen("/proc/meminfo", "r");
	int i;

	while (f && fscanf(f, "%63s %ld %*[^\n]", name, &v) == 2)
		for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (!strcmp(name, names[i]))
				sum += v;
	if (f)
		fclose(f);
	return sum;
}

static u64 (*kept)[THREADS][OPS];
static unsigned int nr_kept;
static u8 *covered;
static unsigned int nr_covered;

static void make_case(u64 *s)
{
	int t, i;

	for (t = 0; t < THREADS; t++)
		for (i = 0; i < OPS; i++)
			shared->ops[t][i] = rnd(s);
	if (!nr_kept || !below(s, 4))
		return;
	/* Threads of two that were kept, and a few operations that are new */
	for (t = 0; t < THREADS; t++) {
		u64 *from = kept[below(s, nr_kept)][below(s, THREADS)];

		for (i = 0; i < OPS; i++)
			if (below(s, 8))
				shared->ops[t][i] = from[i];
	}
}

static void keep_case(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < sizeof(shared->cov); i++)
		if (shared->cov[i] && !covered[i]) {
			covered[i] = 1;
			n++;
		}
	nr_covered += n;
	if (n)
		memcpy(kept[nr_kept < KEPT ? nr_kept++ : n % KEPT], shared->ops, sizeof(shared->ops));
}

static bool wait_child(pid_t pid, int *status, u64 ms)
{
	u64 end = now_ns() + ms * 1000000ULL;

	while (waitpid(pid, status, WNOHANG) != pid) {
		if (now_ns() > end)
			return false;
		sleep_ms(2);
	}
	return true;
}

int main(int argc, char **argv)
{
	u64 seconds = argc > 1 ? atoi(argv[1]) : 30;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, s, runs = 0, ops = 0, end;
	unsigned int cases = 0, early = 0, i, rows_used = 0;
	long users, mem = 0, users_end, grown;
	bool hung = false;
	FILE *log = NULL;

	if (getenv("KEEL_TIME_SCALE"))
		scale = atoi(getenv("KEEL_TIME_SCALE"));
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	kept = calloc(KEPT, sizeof(*kept));
	covered = calloc(1, sizeof(shared->cov));
	users = users_of_module();
	printf("TAP version 13\n1..3\n# seed %llu, %llu s%s\n", (unsigned long long)seed, (unsigned long long)seconds,
	       access("/sys/kernel/debug/kcov", R_OK) ? "" : ", with KCOV");
	end = now_ns() + seconds * 1000000000ULL;
	for (cases = 0; now_ns() < end && !hung; cases++) {
		u64 case_seed = seed + cases;
		int status = 0;
		pid_t pid;

		s = case_seed;
		rnd(&s);
		make_case(&s);
		memset(shared->cov, 0, sizeof(shared->cov));
		if (argc > 3 && (log = fopen(argv[3], "w"))) {
			fprintf(log, "case %u seed %llu\n", cases, (unsigned long long)case_seed);
			fclose(log);
		}
		pid = fork();
		if (!pid)
			_exit(run_case(rnd(&s)));
		if (!wait_child(pid, &status, 3 * HANG_MS)) {
			printf("# case %u does not end\n", cases);
			show_threads(pid);
			kill(pid, SIGKILL);
			hung = true;
			wait_child(pid, &status, HANG_MS);
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
			printf("# case %u\n", cases);
			hung = true;
		} else if (status) {
			early++;	/* it did itself what its guest could do to it */
		}
		keep_case();
		if (cases == 8)
			mem = kernel_memory();
	}
	for (i = 0; i < ROWS; i++)
		rows_used += !!shared->rows_ok[i];
	runs = shared->runs;
	ops = shared->done;
	printf("# %u cases (%u ended early), %llu operations, %llu of KVM_RUN, %u of %u kinds of ioctls succeeded\n", cases, early,
	       (unsigned long long)ops, (unsigned long long)runs, rows_used, (unsigned int)ROWS);
	for (i = 0; i < ROWS; i++)
		if (!shared->rows_ok[i])
			printf("# never: row %u, %#lx\n", i, rows[i].cmd);
	if (nr_covered)
		printf("# %u places reached, %u cases kept\n", nr_covered, nr_kept);
	printf("%s 1 - fuzz: vCPUs come back, processes end\n", hung ? "not ok" : "ok");
	/* A worker that waits for a page may be last to go. */
	for (i = 0; (users_end = users_of_module()) > users && i < 100 * scale; i++)
		sleep_ms(100);
	if (users_end > users)
		printf("# %ld users of the module, %ld at first\n", users_end, users);
	printf("%s 2 - fuzz: the module has no more users than before\n", users_end > users ? "not ok" : "ok");
	grown = mem ? kernel_memory() - mem : 0;
	printf("# the kernel's memory grew by %ld KB\n", grown);
	printf("%s 3 - fuzz: the kernel has its memory back\n", grown > 32768 * (long)scale ? "not ok" : "ok");
	return hung || users_end > users || grown > 32768 * (long)scale;
}
