/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A tiny machine for the emulator's tests: flat memory, a page of device memory
 * and ports served by "userspace" through a replay buffer, as a VMM would.
 */
#ifndef KEEL_UNIT_EMUL_ENV_H
#define KEEL_UNIT_EMUL_ENV_H

#include "../../kmod/emul/emul.h"

#define ENV_MEM		0x40000u	/* linear 0 .. 256K is memory */
#define ENV_RDONLY	0x3f000u	/* its last page cannot be written */
#define ENV_MMIO	0xf0000000ull	/* one page of device registers */

struct env {
	struct emul e;
	u64 regs[EMUL_NR_REGS];
	u8 mem[ENV_MEM];
	u8 mmio[4096];
	struct emul_seg segs[EMUL_NR_SEGS];
	struct emul_dt dt[2];
	u64 cr[9], dr[8], xcr0;
	u64 efer, star, lstar, cstar, mask, gsbase, sysenter[3];
	u8 vec[32][64];
	u64 kmask[8];
	struct emul_fx fx;
	bool lacks_tzcnt;
	bool has_open;		/* port 0x5658 and counter 0x10000 are anybody's */

	/* What userspace has answered for the instruction in progress. */
	u8 replay[256];
	unsigned int replay_have, replay_at;
	bool pending;		/* a request was recorded */
	bool pending_pio;
	u64 pending_addr;
	unsigned int pending_bytes;
	bool wrote;		/* a device write is recorded: no more room */

	/* Counters and last arguments. */
	unsigned int exits, reads, writes, get_segs, fetches, cmpxchgs;
	unsigned int pio_reads, pio_max;	/* elements read; most allowed at once */
	u8 pio_log[8192];
	unsigned int pio_logged;
	int last_sysop;
	u64 last_invlpg;
	u32 last_invpcid;	/* type << 16 | pcid; the address is in last_invlpg */
	int last_int, last_int_kind;
	bool steal;		/* another CPU changes memory before each cmpxchg */
};

/* Power-on: real mode, flat zero segments, rip 0x1000, rsp 0x8000. */
void env_init(struct env *v);
/* Protected or long mode with flat segments at a CPL, GDT at 0x3000. */
void env_mode(struct env *v, enum emul_mode mode, u8 cpl);
/* A descriptor in the GDT. */
void env_gdt(struct env *v, unsigned int index, u32 base, u32 limit, u32 attr);
void env_code(struct env *v, const void *bytes, unsigned int n);
/* One decode and exec, no userspace. */
enum emul_result env_step(struct env *v);
/* Run one instruction to its end: serve userspace, go on with REP. */
enum emul_result env_run(struct env *v);

#endif
