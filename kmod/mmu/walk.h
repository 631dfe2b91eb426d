/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * walk.h - what the walk of a guest's page tables needs to know and asks for.  Kernel-free: the unit tests
 * give the two accessors at the end their own memory.
 */
#ifndef KEEL_MMU_WALK_H
#define KEEL_MMU_WALK_H

#include "emul/emul.h"

struct keel_vcpu;

/* Access rights asked of a guest walk or of a fault. */
#define MMU_ACC_WRITE	0x01u
#define MMU_ACC_USER	0x02u	/* CPL 3 access, not implicit-supervisor */
#define MMU_ACC_FETCH	0x04u
#define MMU_ACC_SYSTEM	0x08u	/* implicit supervisor access: SMAP applies whatever EFLAGS.AC says */
#define MMU_ACC_NOAD	0x10u	/* set no accessed/dirty bits (debuggers, KVM_TRANSLATE) */
#define MMU_ACC_PRESENT	0x20u	/* mmu_fault: entry was present (protection fault) */
#define MMU_ACC_ANY	0x40u	/* guest walk: only where it leads to, whatever the rights */
#define MMU_ACC_FINAL	0x80u	/* mmu_fault: where the access itself goes, not a page table on the way */
#define MMU_ACC_AHEAD	0x100u	/* mmu_fault: nobody has asked for it yet: it is waited for here, and not marked accessed */

#define MMU_MAX_LEVELS	5

/* The registers, and the model of CPU, a walk depends on. */
struct mmu_walk_env {
	u64 cr0, cr3, cr4, efer;
	u32 pkru;
	u8 maxphyaddr;
	bool gbpages;		/* 1 GB pages exist */
	bool ac;		/* EFLAGS.AC; looked at with CR4.SMAP only */
	const u64 *pdptrs;	/* PAE: registers of the CPU's with the four top entries; NULL: it reads memory */
};

/* The entries a walk went through: as long as they are these, the same access leads to the same page.  And the page. */
struct mmu_path {
	unsigned int levels;	/* 0: nothing to go by (no paging, entries of the 32-bit format, or some in registers) */
	u64 addr[MMU_MAX_LEVELS];
	u64 entry[MMU_MAX_LEVELS];
	unsigned int leaf_bits;	/* of the page's size */
	bool writable, user, nx;	/* what its entries say, whatever CR0.WP, SMEP and the like make of it */
	bool dirty;
	u8 pkey;
};

/* 0, with the way there in *path unless that is NULL; 1: *fault says which exception; -EAGAIN: an access to guest
 * memory said so. */
int mmu_walk(struct keel_vcpu *vcpu, const struct mmu_walk_env *env, u64 gva, u32 access, u64 *gpa,
	     struct emul_fault *fault, struct mmu_path *path);
/* The four entries at a PAE guest's CR3: 1 if MOV CR3 takes them, 0 if not, -errno if they cannot be read. */
int mmu_walk_pdptrs(struct keel_vcpu *vcpu, const struct mmu_walk_env *env, u64 pdptrs[4]);

/* Guest physical memory (guestmem.c in the module): contracts in memslot.h. */
int keel_vcpu_read(struct keel_vcpu *vcpu, u64 gpa, void *buf, unsigned int len);
int keel_vcpu_cmpxchg(struct keel_vcpu *vcpu, u64 gpa, void *old, const void *new, unsigned int len);

#endif
