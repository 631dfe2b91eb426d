/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mitigate_barrier.S - the branch prediction barrier, for exits and for the change of vCPUs, and branch history cleared after
 * exits; see mitigate.h.  The kernel's own are not for every module.
 */
#include <linux/linkage.h>
#include <asm/alternative.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>

.section .noinstr.text, "ax"

/* void keel_ibpb(void): RAX, RCX and RDX are used.  A whole barrier where the kernel could do with a selective one. */
SYM_FUNC_START(keel_ibpb)
	mov	$MSR_IA32_PRED_CMD, %ecx
	mov	$PRED_CMD_IBPB, %eax
	xor	%edx, %edx
	wrmsr
	/* On some CPUs it leaves what returns are predicted from. */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_BUG_IBPB_NO_RET
	RET
SYM_FUNC_END(keel_ibpb)

/*
 * void keel_clear_history(void): RCX is used.  So many taken branches that none of the guest's is left in the longest history
 * that CPUs are known to keep.  Each round has a call and a return in it: a loop without is one that some CPUs come to
 * run out of a buffer (the loop stream detector), past what predicts, and keeps history of, branches.  What follows does not
 * run ahead of them.
 */
#define HISTORY_BRANCHES	194
#define ROUND_JUMPS	16
#define ROUNDS		11
SYM_FUNC_START_LOCAL(history_round)
	.rept	ROUND_JUMPS
	jmp	1f
	int3
1:
	.endr
	RET
SYM_FUNC_END(history_round)

SYM_FUNC_START(keel_clear_history)
	mov	$ROUNDS, %ecx
1:	call	history_round
	sub	$1, %ecx
	jnz	1b
	lfence
	RET
SYM_FUNC_END(keel_clear_history)
.if	ROUNDS * (ROUND_JUMPS + 3) < HISTORY_BRANCHES
.error	"too few branches"
.endif
