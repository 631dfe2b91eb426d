/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the emulator's tests with known results share: one CPU, and a way to say
 * what it is to do.
 */
#ifndef UNIT_EMUL_TEST_H
#define UNIT_EMUL_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emul_env.h"

extern struct env *v;
extern bool ok;		/* the test that runs */

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			printf("# %s:%d: %s\n", __func__, __LINE__, #cond); \
			ok = false; \
		} \
	} while (0)

#define CODE(...) \
	do { \
		static const u8 b[] = { __VA_ARGS__ }; \
		env_code(v, b, sizeof(b)); \
	} while (0)

/* Run one instruction given as bytes, from wherever rip is. */
#define RUN(...) \
	({ \
		CODE(__VA_ARGS__); \
		env_run(v); \
	})

#define FAULTS(r, vec, err) \
	CHECK((r) == EMUL_FAULT && v->e.fault.vector == (vec) && v->e.fault.has_error && \
	      v->e.fault.error == (err))
#define FAULTS_BARE(r, vec) \
	CHECK((r) == EMUL_FAULT && v->e.fault.vector == (vec) && !v->e.fault.has_error)

#define RAX v->e.regs[EMUL_RAX]
#define RBX v->e.regs[EMUL_RBX]
#define RCX v->e.regs[EMUL_RCX]
#define RDX v->e.regs[EMUL_RDX]
#define RSP v->e.regs[EMUL_RSP]
#define RBP v->e.regs[EMUL_RBP]
#define RSI v->e.regs[EMUL_RSI]
#define RDI v->e.regs[EMUL_RDI]
#define RIP v->e.rip

static inline u64 mem(u64 at, unsigned int n)
{
	u64 x = 0;

	memcpy(&x, v->mem + at, n);
	return x;
}

static inline void set_mem(u64 at, u64 x, unsigned int n)
{
	memcpy(v->mem + at, &x, n);
}

static inline u64 mmio(unsigned int at, unsigned int n)
{
	u64 x = 0;

	memcpy(&x, v->mmio + at, n);
	return x;
}

#define CODE_ATTR	(EMUL_ATTR_P | EMUL_ATTR_S | 0xa | EMUL_ATTR_G | EMUL_ATTR_DB)
#define CODE64_ATTR	(EMUL_ATTR_P | EMUL_ATTR_S | 0xa | EMUL_ATTR_G | EMUL_ATTR_L)
#define DATA_ATTR	(EMUL_ATTR_P | EMUL_ATTR_S | 0x2 | EMUL_ATTR_G | EMUL_ATTR_DB)
#define DPL(n)		((n) << EMUL_ATTR_DPL_SHIFT)

void standard_gdt(void);

/* emul_io.c */
void mmio_read(void);
void mmio_write(void);
void same_again(void);
void mmio_rmw(void);
void mmio_two_reads(void);
void rep_mmio(void);
void rep_rounds(void);
void pio(void);
void rep_pio(void);
void io_permission(void);

/* emul_task.c */
void task_states(void);
void task_16(void);
void task_insns(void);
void task_early(void);
void task_late(void);
void call_gates(void);

#endif
