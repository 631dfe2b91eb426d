// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulator tests with known results: device memory and ports, through userspace
 * and replay.
 */
#include "emul_test.h"

void mmio_read(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RDI = ENV_MMIO + 0x10;
	RAX = ~0ull;
	CODE(0x8b, 0x07);			/* mov (%rdi), %eax */
	CHECK(env_step(v) == EMUL_USER);
	CHECK(RAX == ~0ull && RIP == 0x1000);
	CHECK(v->pending_addr == ENV_MMIO + 0x10 && v->pending_bytes == 4);
	CHECK(v->get_segs == 0);
	CHECK(env_run(v) == EMUL_OK);
	CHECK(RAX == mmio(0x10, 4) && RIP == 0x1002);

	CHECK(RUN(0x0f, 0xb6, 0x1f) == EMUL_OK && RBX == mmio(0x10, 1)); /* movzbl (%rdi), %ebx */
	RBX = ~0ull;
	CHECK(RUN(0x66, 0x8b, 0x1f) == EMUL_OK && RBX == (~0xffffull | mmio(0x10, 2))); /* mov (%rdi), %bx */
	CHECK(RUN(0x8a, 0x3f) == EMUL_OK);	/* mov (%rdi), %bh */
	CHECK(RBX == (~0xffffull | mmio(0x10, 1) << 8 | mmio(0x10, 1)));
	v->mmio[0x10] = 0x85;
	CHECK(RUN(0x48, 0x0f, 0xbe, 0x1f) == EMUL_OK && RBX == (u64)(s8)0x85); /* movsbq (%rdi), %rbx */
	CHECK(RUN(0x48, 0xa1, 0x10, 0, 0, 0xf0, 0, 0, 0, 0) == EMUL_OK && RAX == mmio(0x10, 8)); /* movabs */
	CHECK(v->exits == 6);
}

void mmio_write(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RDI = ENV_MMIO + 0x20;
	RAX = 0x1122334455667788;
	CODE(0x89, 0x07);			/* mov %eax, (%rdi) */
	CHECK(env_step(v) == EMUL_OK && v->wrote && RIP == 0x1002);
	CHECK(mmio(0x20, 4) == 0x55667788 && v->get_segs == 0 && v->reads == 0);
	CHECK(RUN(0x48, 0xc7, 0x07, 0xfe, 0xff, 0xff, 0xff) == EMUL_OK); /* movq $-2, (%rdi) */
	CHECK(mmio(0x20, 8) == (u64)-2);
}

/* What stood at an address the last time counts only as long as it still stands there. */
void same_again(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_LONG64, 0);
	RDI = ENV_MMIO;
	for (k = 0; k < 3; k++) {
		RIP = 0x1000;
		RAX = k;
		CHECK(RUN(0x89, 0x47, 0x10) == EMUL_OK && RIP == 0x1003);	/* mov %eax, 16(%rdi) */
		CHECK(mmio(0x10, 4) == k);
	}
	/* the last byte is another one */
	RIP = 0x1000;
	CHECK(RUN(0x89, 0x47, 0x14) == EMUL_OK && mmio(0x14, 4) == 2);
	/* the same bytes, with less before them */
	RIP = 0x1000;
	CHECK(RUN(0x41, 0x89, 0x47, 0x10) == EMUL_OK && RIP == 0x1004);	/* mov %eax, 16(%r15) */
	RIP = 0x1001;
	RAX = 7;
	CODE();
	CHECK(env_run(v) == EMUL_OK && RIP == 0x1004 && mmio(0x10, 4) == 7);
	/* the same bytes elsewhere, in another mode: 48 is DEC EAX there */
	RIP = 0x1000;
	RAX = 0x55;
	CHECK(RUN(0x48, 0x89, 0xc3) == EMUL_OK && RIP == 0x1003 && RBX == 0x55);
	RIP = 0x1000;
	v->e.mode = EMUL_MODE_PROT32;
	v->e.lma = false;
	v->segs[EMUL_SEG_CS].attr ^= EMUL_ATTR_DB | EMUL_ATTR_L;
	CHECK(env_run(v) == EMUL_OK && RIP == 0x1001 && RAX == 0x54);
	/* an instruction that ends at a page's end, and one that does not end there */
	env_mode(v, EMUL_MODE_LONG64, 0);
	for (k = 0; k < 2; k++) {
		RIP = 0x1ffe;
		RAX = k;
		CHECK(RUN(0x89, 0xc3) == EMUL_OK && RIP == 0x2000 && RBX == k);	/* mov %eax, %ebx */
	}
	for (k = 0; k < 2; k++) {
		RIP = 0x1ffe;
		CHECK(RUN(0xb8, 5, 0, 0, 0) == EMUL_OK && RIP == 0x2003 && RAX == 5);
		v->mem[0x2000] = 6;
		RIP = 0x1ffe;
		CHECK(env_run(v) == EMUL_OK && RAX == 0x605);
	}
	/* what failed to decode is not remembered */
	RIP = 0x1000;
	CHECK(RUN(0x89, 0xc3) == EMUL_OK);
	RIP = 0x1000;
	FAULTS_BARE(RUN(0xf0, 0x89, 0xc3), EMUL_VEC_UD);	/* lock mov */
	FAULTS_BARE(env_run(v), EMUL_VEC_UD);
	/* nor what was there before where nothing can be fetched: it is not what could not be run */
	RIP = 0x1000;
	CHECK(RUN(0x89, 0xc3) == EMUL_OK && v->e.insn.have);
	RIP = ENV_MMIO;
	CHECK(env_run(v) == EMUL_FAULT && v->e.insn.have == 0);
	/* an interrupt delivered in between leaves no prefix of it, and does not pass for it */
	RIP = 0x1000;
	RCX = 3;
	RDI = 0x8000;
	RAX = 0xaa;
	CHECK(RUN(0xf3, 0xaa) == EMUL_OK && RCX == 0 && RDI == 0x8003);	/* rep stosb */
	v->e.mode = EMUL_MODE_REAL;
	v->e.lma = false;
	v->dt[EMUL_DT_IDT] = (struct emul_dt){ .limit = 0x3ff };
	set_mem(0x40 * 4, 0x12345678, 4);
	RSP = 0x7000;
	CHECK(emul_real_interrupt(&v->e, 0x40) == EMUL_OK && RIP == 0x5678 && RSP == 0x6ffa);
	CHECK(v->segs[EMUL_SEG_CS].base == 0x12340 && mem(0x6ffa, 2) == 0x1002);
	v->e.mode = EMUL_MODE_LONG64;
	v->e.lma = true;
	RIP = 0x1000;
	RCX = 3;
	CHECK(env_run(v) == EMUL_OK && RCX == 0 && RDI == 0x8006);
}

void mmio_rmw(void)
{
	u64 was;

	env_mode(v, EMUL_MODE_LONG64, 0);
	was = mmio(0x30, 4);
	RDI = ENV_MMIO + 0x30;
	RAX = 5;
	CHECK(RUN(0x01, 0x07) == EMUL_OK);	/* add %eax, (%rdi) */
	CHECK(mmio(0x30, 4) == ((was + 5) & 0xffffffff) && v->exits == 2);
	was = mmio(0x30, 4);
	CHECK(RUN(0xf0, 0xff, 0x07) == EMUL_OK);	/* lock incl (%rdi) */
	CHECK(mmio(0x30, 4) == ((was + 1) & 0xffffffff));
	was = mmio(0x30, 4);
	RBX = 0xabcdef;
	CHECK(RUN(0x87, 0x1f) == EMUL_OK);	/* xchg %ebx, (%rdi) */
	CHECK(RBX == was && mmio(0x30, 4) == 0xabcdef);
}

void mmio_two_reads(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	RSI = ENV_MMIO + 0x40;
	RDI = ENV_MMIO + 0x48;
	CHECK(RUN(0x48, 0xa7) == EMUL_OK);	/* cmpsq */
	CHECK(v->exits == 2 && RSI == ENV_MMIO + 0x48 && RDI == ENV_MMIO + 0x50);
	CHECK(!(v->e.rflags & X86_EFLAGS_ZF));

	RSI = ENV_MMIO;
	RSP = 0x8000;
	CHECK(RUN(0xff, 0x36) == EMUL_OK);	/* push (%rsi) */
	CHECK(mem(0x7ff8, 8) == mmio(0, 8) && RSP == 0x7ff8);
	RSI = ENV_MMIO + 0x100;
	CHECK(RUN(0x8f, 0x06) == EMUL_OK);	/* pop (%rsi) */
	CHECK(mmio(0x100, 8) == mmio(0, 8) && RSP == 0x8000);
}

void rep_mmio(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_LONG64, 0);
	RSI = ENV_MMIO;
	RDI = 0x10000;
	RCX = 33;
	CHECK(RUN(0xf3, 0xa4) == EMUL_OK);	/* rep movsb */
	CHECK(RCX == 0 && RSI == ENV_MMIO + 33 && RDI == 0x10021 && v->exits == 33);
	CHECK(!memcmp(v->mem + 0x10000, v->mmio, 33) && v->mem[0x10021] == 0);

	v->exits = 0;
	RDI = ENV_MMIO + 0x200;
	RCX = 9;
	RAX = 0xdeadbeef;
	CHECK(RUN(0xf3, 0xab) == EMUL_OK);	/* rep stosd */
	CHECK(v->exits == 9 && RCX == 0);
	for (k = 0; k < 9; k++)
		CHECK(mmio(0x200 + 4 * k, 4) == 0xdeadbeef);
	CHECK(mmio(0x224, 4) != 0xdeadbeef);

	/* Device to device: read, replay, write; the next read waits for the write. */
	v->exits = 0;
	RSI = ENV_MMIO;
	RDI = ENV_MMIO + 0x300;
	RCX = 4;
	CHECK(RUN(0xf3, 0x48, 0xa5) == EMUL_OK);	/* rep movsq */
	CHECK(!memcmp(v->mmio, v->mmio + 0x300, 32) && RCX == 0);
}

void rep_rounds(void)
{
	env_mode(v, EMUL_MODE_LONG64, 0);
	memset(v->mem + 0x10000, 0x5a, 5000);
	RSI = 0x10000;
	RDI = 0x20000;
	RCX = 5000;
	CODE(0xf3, 0xa4);
	CHECK(env_step(v) == EMUL_OK && RIP == 0x1000 && RCX == 5000 - EMUL_MAX_REP);
	CHECK(env_run(v) == EMUL_OK && RIP == 0x1002 && RCX == 0);
	CHECK(!memcmp(v->mem + 0x10000, v->mem + 0x20000, 5000) && v->mem[0x20000 + 5000] == 0);

	/* A fault in the middle: what is done is done, the rest faults. */
	RDI = ENV_RDONLY - 12;
	RCX = 5;
	RAX = 1;
	CODE(0xf3, 0xab);
	CHECK(env_step(v) == EMUL_OK && RIP == 0x1002 && RCX == 2 && RDI == ENV_RDONLY);
	CHECK(env_step(v) == EMUL_FAULT && v->e.fault.vector == EMUL_VEC_PF);
	CHECK(v->e.fault.error == 3 && v->e.fault.cr2 == ENV_RDONLY && RCX == 2);

	/* REPE CMPSB stops after the pair that differs; REPNE SCASB after the match. */
	memcpy(v->mem + 0x10000, "abcdef", 6);
	memcpy(v->mem + 0x10100, "abcxef", 6);
	RSI = 0x10000;
	RDI = 0x10100;
	RCX = 6;
	CHECK(RUN(0xf3, 0xa6) == EMUL_OK && RCX == 2 && RSI == 0x10004);
	CHECK(!(v->e.rflags & X86_EFLAGS_ZF) && (v->e.rflags & X86_EFLAGS_CF));
	RDI = 0x10000;
	RCX = 6;
	RAX = 'e';
	CHECK(RUN(0xf2, 0xae) == EMUL_OK && RCX == 1 && RDI == 0x10005);
	RCX = 0;
	CHECK(RUN(0xf3, 0xa4) == EMUL_OK && RDI == 0x10005);
	/* 32-bit addresses: the counter and pointers are 32 bits, and wrap. */
	RCX = 0xffffffff00000002;
	RDI = 0xffffffff00010000;
	RAX = 0x77;
	v->e.rflags |= X86_EFLAGS_DF;
	CHECK(RUN(0x67, 0xf3, 0xaa) == EMUL_OK && RCX == 0 && RDI == 0xfffe);
	CHECK(v->mem[0x10000] == 0x77 && v->mem[0xffff] == 0x77);
}

void pio(void)
{
	env_mode(v, EMUL_MODE_PROT32, 0);
	RDX = 0x1f0;
	RAX = 0xffffffff;
	CODE(0x66, 0xed);			/* in %dx, %ax */
	CHECK(env_step(v) == EMUL_USER && v->pending_pio && v->pending_addr == 0x1f0 &&
	      v->pending_bytes == 2 && RAX == 0xffffffff);
	CHECK(env_run(v) == EMUL_OK && (RAX >> 16) == 0xffff && v->pio_reads == 1);
	RAX = 0x12345678;
	CHECK(RUN(0xe7, 0x80) == EMUL_OK);	/* out %eax, $0x80 */
	CHECK(v->pio_logged == 4 && !memcmp(v->pio_log, &v->e.regs[EMUL_RAX], 4));
}

void rep_pio(void)
{
	unsigned int k;

	env_mode(v, EMUL_MODE_PROT32, 0);
	RDX = 0x1f0;
	RDI = 0x10f80;		/* crosses a page */
	RCX = 256;
	CHECK(RUN(0x66, 0xf3, 0x6d) == EMUL_OK);	/* rep insw */
	CHECK(RCX == 0 && RDI == 0x11180 && v->pio_reads == 256 && v->exits == 3);
	for (k = 1; k < 512; k++)
		CHECK(v->mem[0x10f80 + k] == (u8)(v->mem[0x10f80] + k));

	/* Userspace gives fewer than asked. */
	v->pio_max = 3;
	v->exits = v->pio_reads = 0;
	RDI = 0x12000;
	RCX = 10;
	CHECK(RUN(0xf3, 0x6c) == EMUL_OK && RCX == 0 && v->exits == 4 && v->pio_reads == 10);
	v->pio_max = ~0u;

	/* Nothing is read from the port if the store would fault. */
	v->pio_reads = v->exits = 0;
	RDI = ENV_RDONLY;
	RCX = 4;
	CHECK(RUN(0xf3, 0x6c) == EMUL_FAULT && v->e.fault.vector == EMUL_VEC_PF);
	CHECK(v->pio_reads == 0 && v->exits == 0 && RCX == 4 && RDI == ENV_RDONLY);

	/* Into device memory: element by element. */
	RDI = ENV_MMIO + 0x80;
	RCX = 40;
	CHECK(RUN(0xf3, 0x6c) == EMUL_OK && RCX == 0 && v->pio_reads == 40);

	/* Downward. */
	memcpy(v->mem + 0x10000, "\1\2\3\4\5\6\7\10", 8);
	v->pio_logged = 0;
	v->e.rflags |= X86_EFLAGS_DF;
	RSI = 0x10007;
	RCX = 8;
	CHECK(RUN(0xf3, 0x6e) == EMUL_OK && RSI == 0xffff && RCX == 0);
	CHECK(v->pio_logged == 8 && !memcmp(v->pio_log, "\10\7\6\5\4\3\2\1", 8));
	v->e.rflags &= ~(u64)X86_EFLAGS_DF;
	v->pio_logged = 0;
	RSI = 0x10000;
	RCX = 8;
	CODE(0xf3, 0x6e);
	CHECK(env_step(v) == EMUL_OK && RCX == 7 && v->pio_logged == 1);	/* VMMs get them one by one */

	/* The segment limit ends in the batch: the elements before it are moved. */
	v->segs[EMUL_SEG_DS].limit = 0x10003;
	v->pio_logged = 0;
	RSI = 0x10000;
	RCX = 8;
	FAULTS(RUN(0xf3, 0x6e), EMUL_VEC_GP, 0);
	CHECK(RCX == 4 && v->pio_logged == 4);
}

void io_permission(void)
{
	env_mode(v, EMUL_MODE_PROT32, 3);
	v->segs[EMUL_SEG_TR].base = 0x5000;
	v->segs[EMUL_SEG_TR].limit = 0x80 + 0x40;
	set_mem(0x5000 + 102, 0x80, 2);
	memset(v->mem + 0x5080, 0xff, 0x41);
	v->mem[0x5080 + 0x60 / 8] = 0xfe;	/* port 0x60 only */
	RDX = 0x60;
	CHECK(RUN(0xee) == EMUL_OK);
	FAULTS(RUN(0x66, 0xef), EMUL_VEC_GP, 0);
	RDX = 0x61;
	FAULTS(RUN(0xee), EMUL_VEC_GP, 0);
	RDX = 0x3f8;	/* beyond the bitmap */
	FAULTS(RUN(0xee), EMUL_VEC_GP, 0);
	v->e.rflags |= X86_EFLAGS_IOPL;
	CHECK(RUN(0xee) == EMUL_OK);
	v->e.mode = EMUL_MODE_VM86;	/* the bitmap counts whatever IOPL says */
	FAULTS(RUN(0xee), EMUL_VEC_GP, 0);
	/* but of what is anybody's */
	RDX = 0x5658;
	FAULTS(RUN(0xee), EMUL_VEC_GP, 0);
	RCX = 0x10000;
	FAULTS(RUN(0x0f, 0x33), EMUL_VEC_GP, 0);
	v->has_open = true;
	CHECK(RUN(0xee) == EMUL_OK);
	RDX = 0x5659;
	FAULTS(RUN(0xee), EMUL_VEC_GP, 0);
	CHECK(RUN(0x0f, 0x33) == EMUL_OK && RAX == 0x10000 && RDX == 1);
	RCX = 0x10001;
	FAULTS(RUN(0x0f, 0x33), EMUL_VEC_GP, 0);
}
