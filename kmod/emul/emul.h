/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * x86 instruction emulator: interface.
 *
 * The emulator decodes one guest instruction and executes it on the register
 * image in struct emul. Everything that is not a general register, RIP or
 * RFLAGS is reached through struct emul_ops. It allocates nothing, takes no
 * lock and calls nothing but the ops, so the caller's locks are the locks, and
 * the same files build in userspace for tests and fuzzing.
 *
 * How a caller uses it:
 *
 *	fill e->regs, e->rip, e->rflags, e->mode, e->cpl, e->lma (and e->ops)
 *	r = emul_decode(e);
 *	if (r == EMUL_OK)
 *		r = emul_exec(e);
 *
 * What a result means (the same for both calls):
 *
 * EMUL_OK	The instruction is done: take regs, rip, rflags, cpl and shadow
 *		back from *e. If rip did not move, a REP instruction stopped
 *		between iterations: re-enter the guest, which may take an
 *		interrupt, and come back. A write or OUT the ops recorded for
 *		userspace is delivered now. The replay buffer is forgotten.
 * EMUL_USER	An op needs userspace first. Registers in *e are as before the
 *		instruction. When the answer is there, decode and exec again;
 *		the ops then answer the same accesses, in the same order, from
 *		their replay buffer. The emulator makes all reads that can have
 *		side effects before its first write.
 * EMUL_FAULT	Inject e->fault; registers as before the instruction.
 * EMUL_RETRY	Enter the guest again at the same rip.
 * EMUL_UNHANDLEABLE	Not an instruction, or not a situation, it knows.
 *
 * Anything but EMUL_OK leaves regs, rip, rflags and cpl in *e untouched. A REP
 * instruction that meets a fault or EMUL_USER after some iterations answers
 * EMUL_OK with rip in place: the ops must drop a request recorded by that last
 * access, for it comes again as the first access of the next round.
 *
 * What the caller knows of an access before the emulator asks for it (an exit
 * that named an address) it may use if emul_one_access() says that the
 * instruction, once decoded, makes no other.
 *
 * The caller does what follows an instruction: #DB for TF if it was set in the
 * old rflags, and what e->shadow says: the interrupt shadow, a new task's first
 * event.
 */
#ifndef KEEL_EMUL_H
#define KEEL_EMUL_H

#include "emul_types.h"

enum emul_result {
	EMUL_OK,
	EMUL_FAULT,
	EMUL_RETRY,
	EMUL_USER,
	EMUL_UNHANDLEABLE,
};

/* How the code segment makes the CPU decode; emul_mode() computes it. */
enum emul_mode {
	EMUL_MODE_REAL,
	EMUL_MODE_VM86,
	EMUL_MODE_PROT16,	/* protected or compatibility mode, CS.D = 0 */
	EMUL_MODE_PROT32,	/* protected or compatibility mode, CS.D = 1 */
	EMUL_MODE_LONG64,
};

enum emul_reg {
	EMUL_RAX, EMUL_RCX, EMUL_RDX, EMUL_RBX,
	EMUL_RSP, EMUL_RBP, EMUL_RSI, EMUL_RDI,
	EMUL_R8, EMUL_R9, EMUL_R10, EMUL_R11,
	EMUL_R12, EMUL_R13, EMUL_R14, EMUL_R15,
	EMUL_NR_REGS,
};

/* Numbered as in the instruction encoding; TR and LDTR follow. */
enum emul_sreg {
	EMUL_SEG_ES, EMUL_SEG_CS, EMUL_SEG_SS,
	EMUL_SEG_DS, EMUL_SEG_FS, EMUL_SEG_GS,
	EMUL_SEG_TR, EMUL_SEG_LDTR,
	EMUL_NR_SEGS,
};

enum emul_table {
	EMUL_DT_GDT,
	EMUL_DT_IDT,
};

/* Segment attributes: bits 8..23 of a descriptor's high word, limit left out. */
#define EMUL_ATTR_TYPE		0x000fu
#define EMUL_ATTR_S		0x0010u	/* code or data, not system */
#define EMUL_ATTR_DPL_SHIFT	5
#define EMUL_ATTR_DPL		0x0060u
#define EMUL_ATTR_P		0x0080u
#define EMUL_ATTR_AVL		0x1000u
#define EMUL_ATTR_L		0x2000u
#define EMUL_ATTR_DB		0x4000u
#define EMUL_ATTR_G		0x8000u
#define EMUL_ATTR_UNUSABLE	0x10000u /* null selector was loaded */

struct emul_seg {
	u64 base;
	u32 limit;	/* last valid offset in bytes, G already applied */
	u32 attr;	/* EMUL_ATTR_* */
	u16 selector;
};

struct emul_dt {
	u64 base;
	u16 limit;
};

struct emul_fault {
	u8 vector;
	bool has_error;
	u32 error;
	u64 cr2;	/* for #PF */
};

/* What kind of memory access, for ops->read, write and probe. */
#define EMUL_ACC_WRITE		0x1u	/* on a read: a write comes next, check its rights */
#define EMUL_ACC_SYSTEM		0x2u	/* tables and TSS: supervisor whatever the CPL */

#define EMUL_VEC_DE		0
#define EMUL_VEC_DB		1
#define EMUL_VEC_BP		3
#define EMUL_VEC_OF		4
#define EMUL_VEC_BR		5
#define EMUL_VEC_UD		6
#define EMUL_VEC_NM		7
#define EMUL_VEC_TS		10
#define EMUL_VEC_NP		11
#define EMUL_VEC_SS		12
#define EMUL_VEC_GP		13
#define EMUL_VEC_PF		14
#define EMUL_VEC_MF		16

/* e->shadow: what the instruction did to interrupt recognition. */
#define EMUL_SHADOW_STI		0x1	/* no interrupt before the next instruction is done */
#define EMUL_SHADOW_SS		0x2	/* the same, and no debug trap */
#define EMUL_SHADOW_IRET	0x4	/* IRET: NMIs are no longer blocked */
#define EMUL_SHADOW_INT		0x8	/* INTn, SYSCALL: no debug trap before the first instruction there is done, or IRET */
#define EMUL_TASK_NEW		0x10	/* all registers are another task's: no step is reported */
#define EMUL_TASK_TRAP		0x20	/* which asks for a debug trap before its first instruction */
#define EMUL_TASK_FAULT		0x40	/* which begins with e->fault: it was found when the old task was gone */

/*
 * e->cet: what the CPU does beside at transfers of control, and the emulator does not: such an instruction is unhandleable.
 * The next instruction that is to be an ENDBR is so, whichever it is.
 */
#define EMUL_CET_STACK		0x1	/* this privilege level has a shadow stack */
#define EMUL_CET_BRANCH		0x2	/* and looks where indirect branches go */
#define EMUL_CET_FAR		0x4	/* any privilege level does one or the other */
#define EMUL_CET_ENDBR		0x8	/* an indirect branch has just been */

/* Largest single access, and the largest batch of INS. */
#define EMUL_MAX_ACCESS		64
#define EMUL_MAX_BATCH		1024
#define EMUL_MAX_VEC		64	/* bytes of a vector register */
/* Iterations of a REP instruction in one emul_exec(). */
#define EMUL_MAX_REP		1024

enum emul_swint {
	EMUL_SWINT_INT,		/* INT n, INTO */
	EMUL_SWINT_INT3,
	EMUL_SWINT_ICEBP,
};

/* x87, MMX and SSE state, as FXSAVE64 lays it out. */
struct emul_fx {
	u16 cw, sw;
	u8 tw;			/* a bit for each physical register that is in use */
	u8 reserved;
	u16 op;
	u64 ip, dp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];		/* ST(0) first */
	u8 xmm[16][16];
	u8 rest[96];
};

/* What the CPU has, whatever the guest is told: the same bytes are other instructions without. */
enum emul_cpu {
	EMUL_CPU_TZCNT,
	EMUL_CPU_LZCNT,
};

enum emul_open {
	EMUL_OPEN_PORT,
	EMUL_OPEN_COUNTER,
};

enum emul_sysop {
	EMUL_SYS_HLT,
	EMUL_SYS_WBINVD,
	EMUL_SYS_INVD,
	EMUL_SYS_MONITOR,
	EMUL_SYS_MWAIT,
	EMUL_SYS_PAUSE,
	EMUL_SYS_RSM,		/* #UD outside system management mode; else new registers: EMUL_RETRY */
	EMUL_SYS_HYPERCALL,	/* vmcall or vmmcall; the op sets result registers in e->regs */
};

struct emul;

/*
 * All ops may return any emul_result; on EMUL_FAULT they have set e->fault.
 * Those marked optional may be NULL: the instruction is then unhandleable.
 * CPL, mode, limit and reserved-bit checks that depend on the instruction are
 * made before an op is called; checks that depend on the register written
 * (CR, DR, MSR, XCR contents) are the op's.
 */
struct emul_ops {
	/*
	 * Read guest memory at a linear address, as CPL e->cpl unless
	 * EMUL_ACC_SYSTEM. May cross a page. With EMUL_ACC_WRITE the page must
	 * be writable too. MMIO that userspace serves: EMUL_USER, and the data
	 * on replay.
	 */
	enum emul_result (*read)(struct emul *e, u64 linear, void *buf, unsigned int bytes,
				 unsigned int access);
	/*
	 * Write guest memory. If it crosses a page both are checked before
	 * either is written. MMIO that userspace serves is recorded and
	 * EMUL_OK returned; with no room to record, EMUL_USER. More than
	 * EMUL_MAX_ACCESS bytes is an INS batch, announced by probe().
	 */
	enum emul_result (*write)(struct emul *e, u64 linear, const void *buf, unsigned int bytes,
				  unsigned int access);
	/*
	 * Would that access fault? Moves no data, has no effect, records
	 * nothing. For more than EMUL_MAX_ACCESS bytes: EMUL_UNHANDLEABLE if it
	 * is not plain memory.
	 */
	enum emul_result (*probe)(struct emul *e, u64 linear, unsigned int bytes,
				  unsigned int access);
	/*
	 * Atomically replace old by new (1, 2, 4, 8 or 16 bytes); EMUL_RETRY if
	 * memory does not hold old. Rights as for write. On device memory it
	 * is a write of new. EMUL_ACC_SYSTEM: the accessed or busy bit of a
	 * descriptor.
	 */
	enum emul_result (*replace)(struct emul *e, u64 linear, const void *old, const void *new,
				    unsigned int bytes, unsigned int access);
	/*
	 * Instruction bytes at a linear address. *bytes says how many are
	 * wanted at most, never across a page, and how many there are, at least 1.
	 */
	enum emul_result (*fetch)(struct emul *e, u64 linear, void *buf, unsigned int *bytes);

	/*
	 * Port input, *count elements of size 1, 2 or 4 (more than one for
	 * REP INS): may do fewer and say so in *count, at least 1; EMUL_USER,
	 * and the data on replay. Output is of one element: VMMs have never
	 * been given more. It records what userspace is to do and returns EMUL_OK.
	 */
	enum emul_result (*pio_in)(struct emul *e, u16 port, unsigned int size, void *data,
				   unsigned int *count);
	enum emul_result (*pio_out)(struct emul *e, u16 port, unsigned int size, const void *data);

	/* Hidden and visible parts of a segment register; cannot fail. */
	void (*get_seg)(struct emul *e, unsigned int seg, struct emul_seg *s);
	/* CPL is not derived from it: the caller takes e->cpl after EMUL_OK. */
	void (*set_seg)(struct emul *e, unsigned int seg, const struct emul_seg *s);
	void (*get_dt)(struct emul *e, enum emul_table t, struct emul_dt *dt);
	void (*set_dt)(struct emul *e, enum emul_table t, const struct emul_dt *dt);

	/* nr 0, 2, 3, 4 or 8; the op checks the value. */
	enum emul_result (*get_cr)(struct emul *e, unsigned int nr, u64 *val);
	enum emul_result (*set_cr)(struct emul *e, unsigned int nr, u64 val);
	/* nr 0..7; the op checks CR4.DE, DR7.GD and the value. */
	enum emul_result (*get_dr)(struct emul *e, unsigned int nr, u64 *val);
	enum emul_result (*set_dr)(struct emul *e, unsigned int nr, u64 val);
	/* What other instructions look at, and the instructions RDMSR and WRMSR. */
	enum emul_result (*get_msr)(struct emul *e, u32 msr, u64 *val);
	enum emul_result (*set_msr)(struct emul *e, u32 msr, u64 val);
	enum emul_result (*rdmsr)(struct emul *e, u32 msr, u64 *val);
	enum emul_result (*wrmsr)(struct emul *e, u32 msr, u64 val);
	/* Extended control registers: XGETBV, XSETBV, and XCR0 for AVX moves. Optional. */
	enum emul_result (*get_xcr)(struct emul *e, u32 nr, u64 *val);
	enum emul_result (*set_xcr)(struct emul *e, u32 nr, u64 val);

	/* In: leaf in r[0], subleaf in r[2]. Out: eax, ebx, ecx, edx. */
	enum emul_result (*cpuid)(struct emul *e, u32 r[4]);
	/* rdtsc: aux gets TSC_AUX when not NULL (RDTSCP). */
	enum emul_result (*rdtsc)(struct emul *e, u64 *tsc, u32 *aux);
	enum emul_result (*rdpmc)(struct emul *e, u32 counter, u64 *val);
	enum emul_result (*invlpg)(struct emul *e, u64 linear);
	/* INVPCID, type 0..3: one address of one context, all of one, all, all but global pages. */
	enum emul_result (*invpcid)(struct emul *e, unsigned int type, u16 pcid, u64 linear);
	/* Instructions whose whole effect is outside the CPU registers; enum emul_sysop. */
	enum emul_result (*sysop)(struct emul *e, enum emul_sysop what);
	/*
	 * Deliver a software interrupt through a protected-mode IDT: queue it
	 * with the return address e->next_rip. Optional. Real mode is done here.
	 */
	enum emul_result (*soft_int)(struct emul *e, u8 vector, enum emul_swint kind);

	bool (*cpu_has)(struct emul *e, enum emul_cpu what);
	/* May any program use that port, or read that counter, whatever IOPL, the TSS and CR4 say?  Optional. */
	bool (*is_open)(struct emul *e, enum emul_open what, u32 number);

	/* Vector registers 0 to 31 for moves, 16, 32 or 64 bytes. Optional. */
	enum emul_result (*read_vec)(struct emul *e, unsigned int reg, void *buf,
				     unsigned int bytes);
	/* zero_upper: VEX or EVEX encoded, clear what lies above bytes. */
	enum emul_result (*write_vec)(struct emul *e, unsigned int reg, const void *buf,
				      unsigned int bytes, bool zero_upper);
	enum emul_result (*read_kmask)(struct emul *e, unsigned int reg, u64 *mask);	/* optional */
	/* The state itself, changed when nothing can fail any more. Optional. */
	enum emul_result (*fxstate)(struct emul *e, struct emul_fx **fx);
};

/* One decoded instruction. What starts at a constant is kept together: cheap to set up. */
struct emul_insn {
	u8 bytes[16];	/* fetched so far; an instruction has at most 15 */
	u8 have;	/* how many of them are valid */
	u8 mode;
	u8 opsize;	/* bytes: 1, 2, 4, 8 */
	u8 adsize;	/* bytes: 2, 4, 8 */
	u8 opcode;
	u8 dst, src, src2;	/* operand kinds, see internal.h */

	u8 len;		/* consumed by the decoder: the instruction's length */
	u8 prefix;	/* EMUL_PFX_* */
	u8 rex;		/* REX byte, or its equivalent from VEX */
	u8 seg;		/* segment of the memory operand */
	u8 seg_override;	/* EMUL_NO_REG if none */
	u8 map;		/* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
	u8 modrm;
	u8 mod;		/* 3 if there is no memory operand */
	u8 reg, rm;	/* extended by REX */
	u8 base, index, scale;	/* EMUL_NO_REG if absent, EMUL_REG_RIP */
	u8 vex;		/* 0 none, 1 VEX, 2 EVEX */
	u8 vex_v, vex_l_pp;	/* VEX.vvvv, with EVEX.V', not inverted; VEX.L and pp */
	u8 evex, evex_at;	/* its last byte, if it is one: z, L'L, b, V', aaa; where its first is */
	s64 disp;
	u64 imm;
	u64 imm2;	/* second immediate: ENTER level, far selector */

	u32 flags;
	enum emul_result (*exec)(struct emul *e);
};

#define EMUL_PFX_LOCK	0x01
#define EMUL_PFX_REP	0x02	/* F3 */
#define EMUL_PFX_REPNE	0x04	/* F2 */
#define EMUL_PFX_OPSIZE	0x08
#define EMUL_PFX_ADSIZE	0x10

#define EMUL_NO_REG	0xff
#define EMUL_REG_RIP	0xfe

struct emul {
	const struct emul_ops *ops;

	/* In and out: architectural state. */
	u64 *regs;		/* EMUL_NR_REGS of them, the caller's own; written when nothing can fail any more */
	u64 rip;
	u64 rflags;
	u8 cpl;
	/* In: how the CPU runs; emul_mode(), EFER.LMA, CR4.LA57. */
	u8 mode;
	bool lma;
	bool la57;
	bool cpu_la57;		/* the CPU has it */
	bool foreign;		/* fast system calls in long mode are as on any vendor's CPU: the guest's is another's */
	bool lock_cr8;		/* in the CPU LOCK MOV CR0 is MOV CR8, in any mode (APM vol. 3, MOV CRn: AltMovCr8) */
	u16 lam;		/* bytes: the last bit that counts in pointers of user, and of supervisor; 0: all do */
	u8 cet;			/* EMUL_CET_* */
	/* Out. */
	u8 shadow;		/* EMUL_SHADOW_*, EMUL_TASK_* */
	struct emul_fault fault;

	/* Decoded instruction, valid from emul_decode() to emul_exec(). */
	struct emul_insn insn;
	u64 insn_rip;		/* where insn was decoded... */
	bool insn_valid;	/* ...if that came to its end */
	u64 next_rip;		/* what rip becomes; branches change it */

	/* Private to the emulator. */
	u64 new_flags;
	u64 ea;			/* offset of the memory operand */
	u64 dst, src, src2;	/* operand values, zero-extended */
	u64 old;		/* dst as read, for LOCK */
	u64 linear;		/* of the memory operand, once checked */
	u8 seg_valid;
	struct emul_seg segs[6];
	u64 batch[EMUL_MAX_BATCH / 8];
};

/* Fetch and decode the instruction at e->rip. */
enum emul_result emul_decode(struct emul *e);

/* A plain move: one access, of at most 8 bytes, to the memory operand at e->linear. */
bool emul_one_access(const struct emul *e);
bool emul_repeats(const struct emul *e);	/* a string instruction with REP or REPNE */

/* Execute what emul_decode() decoded. */
enum emul_result emul_exec(struct emul *e);

/*
 * A plain move from memory that came to EMUL_USER needs no second look at its operand: how many bytes it reads, or 0 of
 * any other instruction; and its end, with these bytes, zero-extended.
 */
unsigned int emul_plain_load(const struct emul *e);
enum emul_result emul_exec_loaded(struct emul *e, u64 val);

/* Real mode: deliver an interrupt, NMI or exception at e->rip.  Not decoded: only the state in struct emul is used. */
enum emul_result emul_real_interrupt(struct emul *e, u8 vector);

/* What starts a task switch, numbered as VMX does in an exit's qualification. */
enum emul_switch {
	EMUL_SWITCH_CALL,
	EMUL_SWITCH_IRET,
	EMUL_SWITCH_JMP,
	EMUL_SWITCH_GATE,	/* an interrupt or exception */
};

struct emul_task {
	u64 rip;		/* where the old task goes on */
	u32 error;		/* pushed on the new one's stack, if there is one */
	bool has_error;
	bool external;		/* not the program's doing: faults say so in their error codes */
	u8 why;			/* enum emul_switch */
	u16 selector;		/* of the new TSS */
};

/*
 * Switch tasks.  Not decoded: only the state in struct emul is used.  The privilege of who asks has been checked.
 * Results as of an instruction; a fault that belongs to the new task comes with EMUL_OK and EMUL_TASK_FAULT.  What is left
 * to the caller: the local breakpoints of DR7 end with a task.
 */
enum emul_result emul_task_switch(struct emul *e, const struct emul_task *task);

#define EMUL_LEN_MORE		(-1)	/* the bytes end before the instruction does */
#define EMUL_LEN_INVALID	(-2)	/* no instruction, or longer than 15 bytes */

/*
 * Length of the instruction at bytes, of which n may be looked at: to step over
 * one that was intercepted. Touches no guest state.
 */
int emul_insn_length(const u8 *bytes, unsigned int n, enum emul_mode mode);

/* The decode mode for these register contents; cs_attr as in struct emul_seg. */
static inline enum emul_mode emul_mode(u64 cr0, bool lma, u64 rflags, u32 cs_attr)
{
	if (!(cr0 & 1))
		return EMUL_MODE_REAL;
	if (rflags & (1u << 17))
		return EMUL_MODE_VM86;
	if (lma && (cs_attr & EMUL_ATTR_L))
		return EMUL_MODE_LONG64;
	return cs_attr & EMUL_ATTR_DB ? EMUL_MODE_PROT32 : EMUL_MODE_PROT16;
}

/* Linear address masking, as the control registers of a CPU that has it say. */
static inline void emul_set_lam(struct emul *e, u64 cr3, u64 cr4)
{
	u16 user = cr3 & 1ull << 61 ? 56 : cr3 & 1ull << 62 ? 47 : 0;
	u16 supervisor = !(cr4 & 1ull << 28) ? 0 : e->la57 ? 56 : 47;

	e->lam = user | supervisor << 8;
}

#endif
