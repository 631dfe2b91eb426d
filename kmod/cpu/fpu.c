// SPDX-License-Identifier: GPL-2.0-only
/*
 * fpu.c - the guest's x87, SSE, AVX ... state, XCR0, XSS, PKRU.
 *
 * The state lives in an area of keel's own, in the standard XSAVE format (or plain FXSAVE on a host without
 * XSAVE), and is in the registers only inside kernel_fpu_begin()/end().  PKRU is apart: the kernel runs under
 * it when it touches user memory, so it is swapped around the entry itself and is never part of an XRSTOR.
 * MSR_TSC_AUX, and the MSRs of control-flow enforcement (cet.c), travel with the FPU: like it, they mean nothing to the kernel
 * between begin and end.
 *
 * The area is a page, which has room for all but the tiles of AMX.  A guest whose CPUID has those gets a larger one, if its
 * process may have it (arch_prctl(2), ARCH_REQ_XCOMP_GUEST_PERM).  MSR_IA32_XFD travels with that: the kernel writes it
 * when it switches tasks, and remembers what it wrote, so the value it left is there again when they are.
 *
 * Locks: vcpu->mutex for the ioctls; load/save with preemption off, enter/leave with IRQs off.
 * SDM vol. 1 chapter 13; APM vol. 2 11.5, vol. 4 appendix A.
 */
#include <linux/gfp.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/processor.h>
#include "ops.h"

#define LEGACY_BYTES	512
#define HEADER_END	(LEGACY_BYTES + 64)
#define FCW_INIT	0x37f
#define MXCSR_INIT	0x1f80
#define AVX512_FEATURES	(XFEATURE_MASK_OPMASK | XFEATURE_MASK_ZMM_Hi256 | XFEATURE_MASK_Hi16_ZMM)
#define CET_FEATURES	(BIT_ULL(11) | BIT_ULL(12))	/* of user mode, of the supervisor */
#define MAX_FEATURE	19

/* Of the host, constant after load. */
static struct {
	bool xsave;
	u64 xcr0, xss;		/* what the kernel runs with */
	u64 features;		/* what guests may have in XCR0 */
	u32 swapped;		/* what XSAVE and XRSTOR move for every guest: all but PKRU and tiles */
	u64 supervisor;		/* what guests may have in XSS: in MSRs that are switched one by one (cet.c), not in the area */
	u32 mxcsr_mask;
	bool pku, xss_msr, tsc_aux;
	struct {
		u32 offset, bytes;
		bool aligned;
	} comp[MAX_FEATURE + 1];
} host __ro_after_init;

/* 0: XCR0, 1: what of it is not in its initial state */
static u64 xgetbv(u32 index)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (index));
	return lo | (u64)hi << 32;
}

static void xsetbv0(u64 val)
{
	asm volatile("xsetbv" : : "a" ((u32)val), "d" ((u32)(val >> 32)), "c" (0) : "memory");
}

static u32 pkru_read(void)
{
	u32 val, edx;

	asm volatile(".byte 0x0f,0x01,0xee" : "=a" (val), "=d" (edx) : "c" (0));
	return val;
}

static void pkru_write(u32 val)
{
	asm volatile(".byte 0x0f,0x01,0xef" : : "a" (val), "c" (0), "d" (0) : "memory");
}

static struct fxregs_state *legacy(struct keel_fpu *fpu)
{
	return fpu->state;
}

static struct xstate_header *header(struct keel_fpu *fpu)
{
	return fpu->state + LEGACY_BYTES;
}

/* ------------------------------------------------------------------ setup */

static void __init read_components(void)
{
	unsigned int i;

	for (i = 2; i <= MAX_FEATURE; i++) {
		u32 eax, ebx, ecx, edx;

		if (!(host.features & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
		if (!eax || (ebx + eax > PAGE_SIZE && i != XFEATURE_XTILE_DATA)) {
			host.features &= ~BIT_ULL(i);
			continue;
		}
		host.comp[i].bytes = eax;
		host.comp[i].offset = ebx;
		host.comp[i].aligned = ecx & BIT(1);
	}
	if ((host.features & AVX512_FEATURES) != AVX512_FEATURES)
		host.features &= ~(u64)AVX512_FEATURES;
	if ((host.features & XFEATURE_MASK_XTILE) != XFEATURE_MASK_XTILE)
		host.features &= ~(u64)XFEATURE_MASK_XTILE;
	for (i = 2; i <= MAX_FEATURE; i++) {
		u32 eax, ebx, ecx, edx;

		if (!(host.supervisor & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
		host.comp[i].bytes = eax;
		host.comp[i].aligned = ecx & BIT(1);
	}
}

int __init keel_fpu_setup(void)
{
	struct fxregs_state *fx = (void *)get_zeroed_page(GFP_KERNEL);

	if (!fx)
		return -ENOMEM;
	kernel_fpu_begin();
	asm volatile("fxsave64 (%0)" : : "r" (fx) : "memory");
	kernel_fpu_end();
	host.mxcsr_mask = fx->mxcsr_mask ?: 0xffbf;
	free_page((unsigned long)fx);

	host.tsc_aux = boot_cpu_has(X86_FEATURE_RDTSCP) || boot_cpu_has(X86_FEATURE_RDPID);
	host.xsave = boot_cpu_has(X86_FEATURE_XSAVE) && boot_cpu_has(X86_FEATURE_OSXSAVE);
	if (!host.xsave)
		return 0;
	host.xcr0 = xgetbv(0);
	host.pku = boot_cpu_has(X86_FEATURE_OSPKE);
	host.features = host.xcr0 & (XFEATURE_MASK_FP | XFEATURE_MASK_SSE | XFEATURE_MASK_YMM | AVX512_FEATURES |
				     (host.pku ? XFEATURE_MASK_PKRU : 0) |
				     (keel_hw.xfd && boot_cpu_has(X86_FEATURE_XFD) ? XFEATURE_MASK_XTILE : 0));
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		host.xss_msr = rdmsrq_safe(MSR_IA32_XSS, &host.xss) == 0;
	if (host.xss_msr) {
		u32 eax, ebx, ecx, edx;

		cpuid_count(0xd, 1, &eax, &ebx, &ecx, &edx);
		host.supervisor = ecx & CET_FEATURES;
	}
	read_components();
	host.swapped = host.features & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE);
	return 0;
}

bool keel_fpu_has_cet(void)
{
	return host.supervisor == CET_FEATURES;
}

u64 keel_supported_xcr0(void)
{
	return host.features;
}

/* Only if what they are about is: they are no state of their own. */
u64 keel_supported_xss(void)
{
	return keel_cet_offers(X86_FEATURE_SHSTK) || keel_cet_offers(X86_FEATURE_IBT) ? host.supervisor : 0;
}

/* Tiles only for guests of a process that has asked for them. */
u64 keel_permitted_xcr0(void)
{
	if (!(host.features & XFEATURE_MASK_XTILE) || keel_guest_xfeatures() & XFEATURE_MASK_XTILE_DATA)
		return host.features;
	return host.features & ~(u64)XFEATURE_MASK_XTILE;
}

static bool is_supported_xcr0(const struct kvm_device_attr *attr)
{
	return !attr->group && attr->attr == KVM_X86_XCOMP_GUEST_SUPP;
}

SYS_IOCTL(keel_sys_has_attr)
{
	return is_supported_xcr0(buf) ? 0 : -ENXIO;
}

SYS_IOCTL(keel_sys_get_attr)
{
	const struct kvm_device_attr *attr = buf;

	if (!is_supported_xcr0(attr))
		return -ENXIO;
	return put_user(keel_supported_xcr0(), (u64 __user *)(unsigned long)attr->addr);
}

size_t keel_xsave_size(void)
{
	return max_t(size_t, sizeof(struct kvm_xsave), keel_xstate_bytes(keel_permitted_xcr0(), false));
}

u32 keel_xstate_bytes(u64 features, bool compacted)
{
	u32 end = HEADER_END;
	unsigned int i;

	features &= host.features | (compacted ? host.supervisor : 0);
	for (i = 2; i <= MAX_FEATURE; i++) {
		if (!(features & BIT_ULL(i)))
			continue;
		if (!compacted)
			end = max(end, host.comp[i].offset + host.comp[i].bytes);
		else
			end = (host.comp[i].aligned ? ALIGN(end, 64) : end) + host.comp[i].bytes;
	}
	return end;
}

/* ------------------------------------------------------------------ life */

/* All that XSAVE has ever written there; PKRU is apart. */
static size_t area_size(u64 swapped)
{
	return host.xsave ? keel_xstate_bytes(swapped, false) : LEGACY_BYTES;
}

void keel_fpu_reset(struct keel_vcpu *vcpu, bool init)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	memset(fpu->cet.guest, 0, sizeof(fpu->cet.guest));
	if (init || !fpu->state)
		return;		/* INIT leaves the rest as it was */
	memset(fpu->state, 0, area_size(fpu->swapped));
	legacy(fpu)->cwd = FCW_INIT;
	legacy(fpu)->mxcsr = MXCSR_INIT;
	fpu->xcr0 = XFEATURE_MASK_FP;
	fpu->xss = 0;
	fpu->pkru = 0;
	keel_fpu_set_xfd(vcpu, 0);
	fpu->xfd_err = 0;
}

int keel_fpu_init(struct keel_vcpu *vcpu)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	fpu->bytes = PAGE_SIZE;
	fpu->swapped = host.swapped;
	/* For keel_fpu_reset(), which follows.  All of it is the VMM's to read, and zero where no XSAVE writes. */
	fpu->state = alloc_pages_exact(fpu->bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return fpu->state ? 0 : -ENOMEM;
}

void keel_fpu_free(struct keel_vcpu *vcpu)
{
	if (vcpu->fpu.state)
		free_pages_exact(vcpu->fpu.state, vcpu->fpu.bytes);
	vcpu->fpu.state = NULL;
}

static bool has_tiles(const struct keel_fpu *fpu)
{
	return fpu->swapped & XFEATURE_MASK_XTILE;
}

int keel_fpu_grow(struct keel_vcpu *vcpu, u64 features)
{
	struct keel_fpu *fpu = &vcpu->fpu;
	u32 bytes = keel_xstate_bytes(host.features, false);
	void *area;

	if (!(features & XFEATURE_MASK_XTILE_DATA) || has_tiles(fpu))
		return 0;
	if (!(keel_permitted_xcr0() & XFEATURE_MASK_XTILE_DATA))
		return -EPERM;
	area = alloc_pages_exact(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!area)
		return -ENOMEM;
	memcpy(area, fpu->state, fpu->bytes);
	free_pages_exact(fpu->state, fpu->bytes);
	fpu->state = area;
	fpu->bytes = bytes;
	fpu->swapped |= XFEATURE_MASK_XTILE;
	return 0;
}

/* ------------------------------------------------------------------ switching */

static void xfd_change(u64 from, u64 to)
{
	if (from != to)
		keel_wrmsr(MSR_IA32_XFD, to);
}

static void xrstor(const struct keel_fpu *fpu)
{
	asm volatile("xrstor64 (%0)" : : "r" (fpu->state), "a" (fpu->swapped), "d" (0) : "memory");
}

static void xsave(const struct keel_fpu *fpu, u32 what)
{
	asm volatile("xsave64 (%0)" : : "r" (fpu->state), "a" (what), "d" (0) : "memory");
}

/*
 * While tiles are moved none are disabled: XRSTOR would fault, and XSAVE leave out what a guest has in them, which is still
 * there when it enables them again.
 */
static noinline void load_with_tiles(struct keel_fpu *fpu)
{
	fpu->host_xfd = keel_rdmsr(MSR_IA32_XFD);
	xfd_change(fpu->host_xfd, 0);
	xrstor(fpu);
	xfd_change(0, fpu->xfd);
	fpu->xfd_loaded = true;
}

/*
 * Most of the time there are none: nobody waits for eight kilobytes of zeros then.  And a CPU does not sleep deeply with
 * tiles in use.
 */
static noinline void save_with_tiles(struct keel_fpu *fpu)
{
	u32 unused;

	xfd_change(fpu->xfd, 0);
	unused = XFEATURE_MASK_XTILE & ~xgetbv(1);
	header(fpu)->xfeatures &= ~(u64)unused;
	xsave(fpu, fpu->swapped & ~unused);
	if (header(fpu)->xfeatures & XFEATURE_MASK_XTILE)
		asm volatile(".byte 0xc4,0xe2,0x78,0x49,0xc0");		/* tilerelease */
	xfd_change(0, fpu->host_xfd);
	fpu->xfd_loaded = false;
}

/* Will the guest run with another XCR0, XSS or PKRU than the host? */
static bool fpu_swaps(const struct keel_vcpu *vcpu)
{
	const struct keel_fpu *fpu = &vcpu->fpu;

	if (host.pku && ((vcpu->cr4 & X86_CR4_PKE) || (fpu->xcr0 & XFEATURE_MASK_PKRU)))
		return true;
	return vcpu->cr4 & X86_CR4_OSXSAVE && (fpu->xcr0 != host.xcr0 || (host.xss_msr && fpu->xss != host.xss));
}

void keel_fpu_load(struct keel_vcpu *vcpu)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	/*
	 * AMD CPUs before Zen load the pointers to the last x87 instruction and its operand only with an exception: this
	 * guest would see another's, or a task's.  An instruction of our own makes them point to here; nothing may be
	 * pending before it, and no register full.
	 */
	if (static_cpu_has_bug(X86_BUG_FXSAVE_LEAK))
		asm volatile("fnclex; emms; fildl %0" : : "m" (*(s32 *)fpu->state));
	if (unlikely(has_tiles(fpu)))
		load_with_tiles(fpu);
	else if (likely(fpu->swapped))
		xrstor(fpu);
	else
		asm volatile("fxrstor64 (%0)" : : "r" (fpu->state) : "memory");
	/* None of what this depends on changes before they are saved. */
	fpu->swaps = fpu_swaps(vcpu);
	/* Also for a guest that is not told of RDTSCP and RDPID: not every CPU can keep it from them. */
	if (host.tsc_aux) {
		fpu->host_tsc_aux = keel_rdmsr(MSR_TSC_AUX);
		if (fpu->host_tsc_aux != vcpu->msrs.tsc_aux)
			keel_wrmsr(MSR_TSC_AUX, vcpu->msrs.tsc_aux);
	}
	if (unlikely(fpu->cet.used))
		keel_cet_load(vcpu);
}

void keel_fpu_save(struct keel_vcpu *vcpu)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	if (unlikely(has_tiles(fpu)))
		save_with_tiles(fpu);
	else if (likely(fpu->swapped))
		xsave(fpu, fpu->swapped);
	else
		asm volatile("fxsave64 (%0)" : : "r" (fpu->state) : "memory");
	if (host.tsc_aux && fpu->host_tsc_aux != vcpu->msrs.tsc_aux)
		keel_wrmsr(MSR_TSC_AUX, fpu->host_tsc_aux);
	if (unlikely(fpu->cet.used))
		keel_cet_save(vcpu);
}

/*
 * XCR0, XSS and PKRU as the guest has them, where that is not what the host has.  CR4.OSXSAVE and CR4.PKE do not change
 * without an exit on any backend, so the copy of CR4 is right about them.
 */
void keel_fpu_swap_in(struct keel_vcpu *vcpu)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	if (vcpu->cr4 & X86_CR4_OSXSAVE) {
		fpu->swap_xcr0 = fpu->xcr0 != host.xcr0;
		if (fpu->swap_xcr0)
			xsetbv0(fpu->xcr0);
		fpu->swap_xss = host.xss_msr && fpu->xss != host.xss;
		if (fpu->swap_xss)
			wrmsrq(MSR_IA32_XSS, fpu->xss);
	}
	if (host.pku && ((vcpu->cr4 & X86_CR4_PKE) || (fpu->xcr0 & XFEATURE_MASK_PKRU))) {
		fpu->swap_pkru = true;
		fpu->host_pkru = pkru_read();
		if (fpu->host_pkru != fpu->pkru)
			pkru_write(fpu->pkru);
	}
}

void keel_fpu_swap_out(struct keel_vcpu *vcpu)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	if (fpu->swap_pkru) {
		fpu->pkru = pkru_read();
		if (fpu->pkru != fpu->host_pkru)
			pkru_write(fpu->host_pkru);
	}
	if (fpu->swap_xss)
		wrmsrq(MSR_IA32_XSS, host.xss);
	if (fpu->swap_xcr0)
		xsetbv0(host.xcr0);
	fpu->swap_pkru = fpu->swap_xss = fpu->swap_xcr0 = false;
}

/* ------------------------------------------------------------------ XCR0, XFD */

int keel_set_xcr0(struct keel_vcpu *vcpu, u64 val)
{
	if (!(val & XFEATURE_MASK_FP) || (val & ~(vcpu->model.xcr0_allowed | XFEATURE_MASK_FP)))
		return 1;
	if ((val & XFEATURE_MASK_YMM) && !(val & XFEATURE_MASK_SSE))
		return 1;
	if ((val & AVX512_FEATURES) &&
	    ((val & AVX512_FEATURES) != AVX512_FEATURES || !(val & XFEATURE_MASK_YMM)))
		return 1;
	if ((val & XFEATURE_MASK_XTILE) && (val & XFEATURE_MASK_XTILE) != XFEATURE_MASK_XTILE)
		return 1;
	vcpu->fpu.xcr0 = val;
	return 0;
}

int keel_set_xss(struct keel_vcpu *vcpu, u64 val)
{
	if (val & ~vcpu->model.xss_allowed)
		return 1;
	vcpu->fpu.xss = val;
	return 0;
}

void keel_fpu_set_tsc_aux(struct keel_vcpu *vcpu, u32 val)
{
	vcpu->msrs.tsc_aux = val;
	if (vcpu->atomic && host.tsc_aux)	/* it is in the CPU right now */
		keel_wrmsr(MSR_TSC_AUX, val);
}

/* The backend looks at whether there is any: keel_fpu_nm(). */
void keel_fpu_set_xfd(struct keel_vcpu *vcpu, u64 val)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	if (fpu->xfd_loaded)		/* it is in the CPU right now */
		xfd_change(fpu->xfd, val);
	if (!fpu->xfd != !val)
		keel_request(KEEL_REQ_INTERCEPTS, vcpu);
	fpu->xfd = val;
}

/*
 * #NM in the guest, which has disabled something.  Was it that?  The register in which the CPU tells must be 0 when a task
 * of the host has the next #NM, and stays so if it is CR0.TS that this one is about.
 */
int keel_fpu_nm(struct keel_vcpu *vcpu)
{
	u64 err = keel_rdmsr(MSR_IA32_XFD_ERR);

	if (err) {
		vcpu->fpu.xfd_err = err;
		keel_wrmsr(MSR_IA32_XFD_ERR, 0);
	}
	keel_raise(vcpu, X86_TRAP_NM);
	return KEEL_RESUME;
}

int keel_emulate_xsetbv(struct keel_vcpu *vcpu)
{
	u64 next;
	int r = keel_next_rip(vcpu, &next);

	if (r)
		return r;
	if (keel_cpl(vcpu) || (u32)vcpu->regs[KEEL_RCX] || keel_set_xcr0(vcpu, keel_read_edx_eax(vcpu)))
		keel_raise_error(vcpu, X86_TRAP_GP, 0);
	else
		keel_advance(vcpu, next);
	return KEEL_RESUME;
}

/* ------------------------------------------------------------------ the area, seen from outside */

/*
 * XSAVE may leave a component out that is in its initial state, with old bytes in its place.  Write the
 * initial state there, so that every byte means something.  Not tiles, which XRSTOR would then have in use; nobody but
 * keel_get_xsave2() looks at those.
 */
static void complete_area(struct keel_fpu *fpu)
{
	struct fxregs_state *fx = legacy(fpu);
	u64 missing;
	unsigned int i;

	if (!host.xsave)
		return;
	missing = host.swapped & ~header(fpu)->xfeatures;	/* of this page */
	if (!missing)
		return;
	if (missing & XFEATURE_MASK_FP) {
		u32 mxcsr = fx->mxcsr, mask = fx->mxcsr_mask;

		memset(fx, 0, offsetof(struct fxregs_state, xmm_space));
		fx->cwd = FCW_INIT;
		fx->mxcsr = mxcsr;
		fx->mxcsr_mask = mask;
	}
	if (missing & XFEATURE_MASK_SSE)
		memset(fx->xmm_space, 0, sizeof(fx->xmm_space));
	for (i = 2; i <= MAX_FEATURE; i++)
		if (missing & BIT_ULL(i))
			memset(fpu->state + host.comp[i].offset, 0, host.comp[i].bytes);
	header(fpu)->xfeatures |= missing;
}

/*
 * Where the parts of a vector register are: 16 bytes beside x87, the next 16 and the upper 32 in components of theirs, and
 * registers 16 to 31 whole in another.  Not there: the host has none.
 */
static void *vec_part(struct keel_fpu *fpu, unsigned int reg, unsigned int at)
{
	unsigned int part = reg > 15 ? XFEATURE_Hi16_ZMM : at >= 32 ? XFEATURE_ZMM_Hi256 : XFEATURE_YMM;

	if (reg < 16 && !at)
		return &legacy(fpu)->xmm_space[reg * 4];
	if (!(host.swapped & BIT_ULL(part)))
		return NULL;
	if (reg > 15)
		return fpu->state + host.comp[part].offset + (reg - 16) * 64 + at;
	return fpu->state + host.comp[part].offset + (at >= 32 ? reg * 32 + at - 32 : reg * 16);
}

void keel_fpu_read_vec(struct keel_vcpu *vcpu, unsigned int reg, void *buf, unsigned int bytes)
{
	unsigned int at;

	complete_area(&vcpu->fpu);
	for (at = 0; at < bytes; at += 16) {
		void *part = vec_part(&vcpu->fpu, reg, at);

		if (part)
			memcpy(buf + at, part, 16);
		else
			memset(buf + at, 0, 16);
	}
}

void keel_fpu_write_vec(struct keel_vcpu *vcpu, unsigned int reg, const void *buf, unsigned int bytes,
			bool zero_upper)
{
	unsigned int at;

	complete_area(&vcpu->fpu);
	for (at = 0; at < (zero_upper ? 64 : bytes); at += 16) {
		void *part = vec_part(&vcpu->fpu, reg, at);

		if (!part)
			continue;
		if (at < bytes)
			memcpy(part, buf + at, 16);
		else
			memset(part, 0, 16);
	}
}

u64 keel_fpu_read_kmask(struct keel_vcpu *vcpu, unsigned int reg)
{
	struct keel_fpu *fpu = &vcpu->fpu;

	if (!(host.swapped & XFEATURE_MASK_OPMASK))
		return 0;
	complete_area(fpu);
	return ((u64 *)(fpu->state + host.comp[XFEATURE_OPMASK].offset))[reg];
}

/* With the mask that MXCSR is to obey: what a VMM has set may have had any, and XRSTOR would fault. */
void *keel_fpu_legacy(struct keel_vcpu *vcpu)
{
	complete_area(&vcpu->fpu);
	legacy(&vcpu->fpu)->mxcsr_mask = host.mxcsr_mask;
	return legacy(&vcpu->fpu);
}

/* ------------------------------------------------------------------ ioctls */

VCPU_IOCTL(keel_get_fpu)
{
	struct fxregs_state *fx = legacy(&vcpu->fpu);
	struct kvm_fpu *out = buf;

	complete_area(&vcpu->fpu);
	memcpy(out->fpr, fx->st_space, sizeof(out->fpr));
	out->fcw = fx->cwd;
	out->fsw = fx->swd;
	out->ftwx = fx->twd;
	out->pad1 = 0;
	out->last_opcode = fx->fop;
	out->last_ip = fx->rip;
	out->last_dp = fx->rdp;
	memcpy(out->xmm, fx->xmm_space, sizeof(out->xmm));
	out->mxcsr = fx->mxcsr;
	out->pad2 = 0;
	return 0;
}

VCPU_IOCTL(keel_set_fpu)
{
	struct fxregs_state *fx = legacy(&vcpu->fpu);
	const struct kvm_fpu *in = buf;

	complete_area(&vcpu->fpu);
	memcpy(fx->st_space, in->fpr, sizeof(in->fpr));
	fx->cwd = in->fcw;
	fx->swd = in->fsw;
	fx->twd = in->ftwx;
	fx->fop = in->last_opcode;
	fx->rip = in->last_ip;
	fx->rdp = in->last_dp;
	memcpy(fx->xmm_space, in->xmm, sizeof(in->xmm));
	/* Not MXCSR, which KVM neither tells nor takes here: what a VMM has from there would unmask all exceptions. */
	return 0;
}

/* What an image of it may have. */
static u64 area_features(const struct keel_fpu *fpu)
{
	return host.xsave ? fpu->swapped | (host.features & XFEATURE_MASK_PKRU) : XFEATURE_MASK_FPSSE;
}

/*
 * The image of the ABI: the area, and PKRU where XSAVE would put it, without what the guest's CPUID does not tell of, which
 * is none of its state.
 */
VCPU_IOCTL(keel_get_xsave2)
{
	u64 shown = vcpu->model.xcr0_allowed | XFEATURE_MASK_FPSSE;
	struct keel_fpu *fpu = &vcpu->fpu;
	unsigned long hidden;
	void __user *to = (void __user *)arg;
	u64 pkru = fpu->pkru;
	struct xstate_header h;
	unsigned int i;

	BUILD_BUG_ON(sizeof(struct kvm_xsave) != PAGE_SIZE);
	complete_area(fpu);
	legacy(fpu)->mxcsr_mask = host.mxcsr_mask;	/* at which XRSTOR does not look */
	h = *header(fpu);
	h.xfeatures |= host.xsave ? host.features & XFEATURE_MASK_PKRU : XFEATURE_MASK_FPSSE;
	h.xfeatures &= shown;
	hidden = area_features(fpu) & ~h.xfeatures;
	if (copy_to_user(to, fpu->state, fpu->bytes) || copy_to_user(to + LEGACY_BYTES, &h, sizeof(h)))
		return -EFAULT;
	if (h.xfeatures & XFEATURE_MASK_PKRU &&
	    copy_to_user(to + host.comp[XFEATURE_PKRU].offset, &pkru, min_t(u32, host.comp[XFEATURE_PKRU].bytes, 8)))
		return -EFAULT;
	for_each_set_bit(i, &hidden, MAX_FEATURE + 1)
		if (clear_user(to + host.comp[i].offset, host.comp[i].bytes))
			return -EFAULT;
	return 0;
}

/* The ABI's first one has room for a page. */
VCPU_IOCTL(keel_get_xsave)
{
	return has_tiles(&vcpu->fpu) ? -EINVAL : keel_get_xsave2(vcpu, buf, arg);
}

/* Would LDTILECFG take it, and make something of it?  Palette 0 is the initial state. */
static bool tilecfg_valid(const u8 *cfg)
{
	const u16 *row_bytes = (const u16 *)(cfg + 16);
	const u8 *rows = cfg + 48;
	u32 eax, ebx, ecx, edx, i;

	cpuid_count(0x1d, 0, &eax, &ebx, &ecx, &edx);
	if (!cfg[0] || cfg[0] > eax || memchr_inv(cfg + 2, 0, 14))
		return false;
	cpuid_count(0x1d, cfg[0], &eax, &ebx, &ecx, &edx);
	for (i = 0; i < 16; i++) {
		/* EBX: bytes of a row, and how many tiles; ECX: rows */
		if ((row_bytes[i] || rows[i]) && i >= ebx >> 16)
			return false;
		if (row_bytes[i] > (u16)ebx || rows[i] > (u16)ecx || !row_bytes[i] != !rows[i])
			return false;
	}
	return true;
}

/*
 * LDTILECFG faults at a configuration that makes no sense.  XRSTOR is to make the initial state of it.  Nobody would catch a
 * fault of its in keel_fpu_load(), so this does not count on it: the initial state is made here, of the tiles, too.
 */
static void settle_tiles(void *image)
{
	struct xstate_header *h = image + LEGACY_BYTES;

	if (h->xfeatures & XFEATURE_MASK_XTILE_CFG && !tilecfg_valid(image + host.comp[XFEATURE_XTILE_CFG].offset))
		h->xfeatures &= ~(u64)XFEATURE_MASK_XTILE;
}

/*
 * Would XRSTOR take it?  In the standard form it faults at components that XCR0, here the host's, has not, at a header of
 * the other form or with reserved bits, and at reserved bits of MXCSR, whatever the header says of SSE.
 */
static bool image_valid(const struct keel_fpu *fpu, const void *image)
{
	const struct xstate_header *h = image + LEGACY_BYTES;
	const struct fxregs_state *fx = image;

	return !(h->xfeatures & ~area_features(fpu)) && !h->xcomp_bv &&
	       !memchr_inv(h->reserved, 0, sizeof(h->reserved)) && !(fx->mxcsr & ~host.mxcsr_mask);
}

/* All of it or nothing: it becomes the guest's state by taking the other's place, which is the next one's then. */
VCPU_IOCTL(keel_set_xsave)
{
	struct keel_fpu *fpu = &vcpu->fpu;
	void *image = has_tiles(fpu) ? NULL : xchg(&vcpu->vm->spare_page, NULL);
	struct xstate_header *h;
	long err = 0;

	image = image ?: alloc_pages_exact(fpu->bytes, GFP_KERNEL_ACCOUNT);
	if (!image)
		return -ENOMEM;
	h = image + LEGACY_BYTES;
	if (copy_from_user(image, (void __user *)arg, fpu->bytes)) {
		err = -EFAULT;
	} else if (!image_valid(fpu, image)) {
		err = -EINVAL;
	} else {
		fpu->pkru = 0;
		if (h->xfeatures & XFEATURE_MASK_PKRU)
			memcpy(&fpu->pkru, image + host.comp[XFEATURE_PKRU].offset, sizeof(fpu->pkru));
		h->xfeatures &= ~(u64)XFEATURE_MASK_PKRU;
		settle_tiles(image);
		swap(fpu->state, image);
	}
	if (!has_tiles(fpu))
		image = xchg(&vcpu->vm->spare_page, image);
	if (image)
		free_pages_exact(image, fpu->bytes);
	return err;
}

/* ------------------------------------------------------------------ the state (snap/state.c) */

size_t keel_fpu_state_size(const struct keel_vcpu *vcpu)
{
	return sizeof(struct keel_state_fpu) + area_size(vcpu->fpu.swapped);
}

/* As it is, with what XSAVE left out left out: that is exact. */
VCPU_IOCTL(keel_fpu_get_state)
{
	struct keel_fpu *fpu = &vcpu->fpu;
	struct keel_state_fpu *s = buf;

	s->xcr0 = fpu->xcr0;
	s->xss = fpu->xss;
	s->pkru = fpu->pkru;
	(void)keel_cet_get_msr(vcpu, KEEL_MSR_SSP, &s->ssp, true);
	memcpy(s + 1, fpu->state, area_size(fpu->swapped));
	return 0;
}

VCPU_IOCTL(keel_fpu_set_state)
{
	struct keel_fpu *fpu = &vcpu->fpu;
	const struct keel_state_fpu *s = buf;
	const struct xstate_header *h = (void *)(s + 1) + LEGACY_BYTES;

	if (s->reserved || ((struct fxregs_state *)(s + 1))->mxcsr & ~host.mxcsr_mask)
		return -EINVAL;
	if (host.xsave && (!image_valid(fpu, s + 1) || h->xfeatures & XFEATURE_MASK_PKRU))
		return -EINVAL;
	if (s->xcr0 != fpu->xcr0 && keel_set_xcr0(vcpu, s->xcr0))
		return -EINVAL;
	if (keel_set_xss(vcpu, s->xss) || keel_cet_set_msr(vcpu, KEEL_MSR_SSP, s->ssp, true))
		return -EINVAL;
	fpu->pkru = s->pkru;
	memcpy(fpu->state, s + 1, area_size(fpu->swapped));
	settle_tiles(fpu->state);
	return 0;
}

/* ------------------------------------------------------------------ XCR0, as the ioctls have it */

VCPU_IOCTL(keel_get_xcrs)
{
	struct kvm_xcrs *out = buf;

	memset(out, 0, sizeof(*out));
	if (!host.xsave)
		return 0;
	out->nr_xcrs = 1;
	out->xcrs[0].value = vcpu->fpu.xcr0;
	return 0;
}

VCPU_IOCTL(keel_set_xcrs)
{
	const struct kvm_xcrs *in = buf;
	unsigned int i;

	if (!host.xsave || in->nr_xcrs > KVM_MAX_XCRS || in->flags)
		return -EINVAL;
	/* XCR0 is the only one; others are nobody's. */
	for (i = 0; i < in->nr_xcrs; i++)
		if (in->xcrs[i].xcr == 0)
			return keel_set_xcr0(vcpu, in->xcrs[i].value) ? -EINVAL : 0;
	return 0;
}
