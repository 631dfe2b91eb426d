/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tiny VMM the selftests share: host side.
 *
 * A test program is linked statically at its fixed address (0x400000), and its
 * own image is copied to the guest-physical address equal to its virtual one;
 * the guest's page tables map the low 4 GiB one to one.  A guest function is
 * therefore an ordinary C function of the test file (it calls nothing of libc),
 * and a global variable has one address but two copies: the host's and the
 * guest's, which the host reaches with guest_var().
 *
 * What fails in here ends the test process with a message; what the caller
 * wants to see failing it does with xioctl(), which returns -errno.
 */
#ifndef SELFTESTS_VMM_H
#define SELFTESTS_VMM_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/kvm_para.h>
#include "kvm-newer.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Guest-physical layout of a VM made by vm_new() */
#define CODE_GPA	0x8000UL	/* flat real and protected mode code */
#define PT_GPA		0x10000UL	/* PML4, PDPT, four page directories */
#define IDT_GPA		0x16000UL
#define CPU_GPA		0x20000UL	/* a page a vCPU: GDT, TSS, its number */
#define STACK_GPA	0x100000UL	/* 16 KiB a vCPU */
#define STACK_SIZE	0x4000UL
#define IMAGE_GPA	0x400000UL
#define HEAP_GPA	0x800000UL	/* free for the test */
#define MEM_SIZE	0x1000000UL
#define HOLE_GPA	0xd0000000UL	/* never backed: MMIO */
#define IOAPIC_GPA	0xfec00000UL
#define LAPIC_GPA	0xfee00000UL

#define MAX_VCPUS	64		/* that have a stack and a page */

/* Ports on which guest code reports; each takes a 32-bit out */
#define PORT_DONE	0x5e0
#define PORT_SYNC	0x5e4
#define PORT_FAIL	0x5e8
#define PORT_TRAP	0x5ec

/* Selectors in the guest's GDT */
#define SEL_CODE64	0x08
#define SEL_DATA	0x10
#define SEL_CODE32	0x18
#define SEL_UDATA	0x23
#define SEL_UCODE64	0x2b
#define SEL_TSS		0x30

enum vm_kind {
	VM_PLAIN,		/* no irqchip in the kernel */
	VM_IRQCHIP,		/* PIC, IOAPIC and LAPIC in the kernel */
	VM_SPLIT,		/* LAPIC in the kernel only, 24 IOAPIC routes */
};

struct vm;

struct vcpu {
	struct vm *vm;
	int id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	volatile int tid;	/* of the thread in vcpu_start(), once it runs */
	u64 result;
};

struct vm {
	int sys;		/* the node */
	int fd;
	int run_size;
	u8 *mem;		/* slot 0 */
	size_t size;
	struct kvm_cpuid2 *cpuid;
	int nr;
	struct vcpu *vcpu[MAX_VCPUS];
	bool image;
};

#define die(fmt, ...) \
	vmm_die("%s:%d: " fmt, __FILE__, __LINE__, ##__VA_ARGS__)
void vmm_die(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

/* An expression that may not fail */
#define must(expr) ({						\
	long must__ = (long)(expr);				\
	if (must__ < 0)						\
		die("%s: %s", #expr, strerror(errno));		\
	must__; })

/* ioctl() that returns -errno */
#define xioctl(fd, req, arg) ({					\
	long xi__ = ioctl(fd, req, arg);			\
	(int)(xi__ < 0 ? -errno : xi__); })

const char *node_path(void);
int node_open(void);

struct vm *vm_new(enum vm_kind kind);
struct vm *vm_new_size(enum vm_kind kind, size_t size);
void vm_free(struct vm *vm);
int vm_try_slot(struct vm *vm, u32 slot, u64 gpa, u64 size, void *hva,
		u32 flags);
void vm_slot(struct vm *vm, u32 slot, u64 gpa, u64 size, void *hva, u32 flags);
void *mem_alloc(size_t size);
int vm_cap(struct vm *vm, int cap);
int vm_enable_cap(struct vm *vm, u32 cap, u64 arg0);
void vm_image(struct vm *vm);

/* Split one 2 MiB page of the guest's identity map into 4 KiB ones at @pt */
u64 *vm_split_page(struct vm *vm, u64 gva, u64 pt);

struct vcpu *vcpu_new(struct vm *vm, int id);
struct vcpu *vcpu_bare(struct vm *vm, int id);	/* no CPUID set */
void vcpu_free(struct vcpu *v);
void vcpu_long(struct vcpu *v, void (*fn)(u64 arg), u64 arg);
void vcpu_real(struct vcpu *v, const void *code, size_t size);
void vcpu_prot(struct vcpu *v, const void *code, size_t size);
void vcpu_get_regs(struct vcpu *v, struct kvm_regs *r);
void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *r);
void vcpu_get_sregs(struct vcpu *v, struct kvm_sregs *s);
void vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *s);
int vcpu_get_msr(struct vcpu *v, u32 msr, u64 *val);	/* entries done */
int vcpu_set_msr(struct vcpu *v, u32 msr, u64 val);
struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *c, u32 fn, u32 index);
struct kvm_cpuid2 *cpuid_supported(int sys);

/* From the binary stats of a VM's or vCPU's fd */
#define NO_STAT		(~0ULL)
bool shadow_paging(void);	/* was keel told to do without the second dimension? */
u64 fd_stat(int fd, const char *name);
bool lapics_by_cpu(void);	/* does keel let the CPU run LAPICs in x2APIC mode? */
bool interrupts_posted(void);	/* and does that CPU take interrupts for them by itself? */
u64 vcpu_stat(struct vcpu *v, const char *name);	/* and it must be there */

/* Run to the next exit that is not a guest's report of failure */
u32 vcpu_run(struct vcpu *v);
void vcpu_take_init(struct vcpu *v);	/* an INIT, of a vCPU with a LAPIC in the kernel: it is done with */
void vcpu_settle(struct vcpu *v);	/* what an exit has begun is completed, by a KVM_RUN that does not get as far as the guest */
/* Run, and it must be: */
u64 vcpu_done(struct vcpu *v);			/* guest_done(): its value */
u32 vcpu_sync(struct vcpu *v);			/* guest_sync(): its value */
void vcpu_expect(struct vcpu *v, u32 reason);
u8 *vcpu_expect_io(struct vcpu *v, int dir, u16 port, int size, u32 count);
struct kvm_run *vcpu_expect_mmio(struct vcpu *v, bool write, u64 gpa, int len);
/* A thread that runs the vCPU to guest_done() */
void vcpu_start(struct vcpu *v);
u64 vcpu_join(struct vcpu *v);

const char *exit_name(u32 reason);
bool on_tcg(void);		/* are we under QEMU's emulator? */
u64 now_ns(void);
/* A limit, longer where the lab tells that the machine is slow: KEEL_TIME_SCALE, of which 3 is one that has nothing else to do */
u64 scaled(u64 limit);
void stay_on(int tid, int cpu);
void wait_until_halted(struct vcpu *v);	/* for the first time */
bool file_write(const char *path, const char *text);	/* all of it, in place of what it has */
void sleep_ms(unsigned int ms);
bool wait_for(volatile u32 *p, u32 val, unsigned int ms);

static inline void *gpa_hva(struct vm *vm, u64 gpa)
{
	return vm->mem + gpa;
}

/* The guest's copy of a global variable */
#define guest_var(vm, var) \
	(*(volatile __typeof__(var) *)((vm)->mem + (uintptr_t)&(var)))

/* A piece of 16 or 32-bit code: NAME[] up to NAME_end[] */
#define CODE(bits, name, body)						\
	asm(".pushsection .rodata\n.code" #bits "\n"			\
	    #name ":\n" body "\n" #name "_end:\n"			\
	    ".code64\n.popsection\n");					\
	extern const u8 name[], name##_end[]
#define CODE16(name, body)	CODE(16, name, body)
#define CODE32(name, body)	CODE(32, name, body)
#define code_size(name)		((size_t)(name##_end - name))

#endif
