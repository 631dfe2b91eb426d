// SPDX-License-Identifier: GPL-2.0-only
/*
 * A host that watches for split locks (split_lock_detect=) and a guest that has one: its #AC is the host's, for the guest has
 * no alignment check on and is to hear nothing of it. The thread that runs it is treated as any with a split lock. In the lab
 * INT1 stands for the instruction: BOCHS_SPLIT_LOCK of bochs-fix.c, and SPLIT_LOCK for this program. L1's kernel knows of no
 * such CPU, and sends SIGBUS, as if it had been told to.
 */
#include <signal.h>
#include "test.h"

static volatile u32 nr_ac, nr_db;

static void ac_handler(struct guest_frame *f)
{
	nr_ac++;
	f->rip++;
}

static void db_handler(struct guest_frame *f)
{
	nr_db++;
}

static void split_guest(u64 arg)
{
	guest_on(DB_VEC, db_handler);
	guest_on(AC_VEC, ac_handler);
	asm volatile(".byte 0xf1");
	guest_eq(nr_ac, 0);
	guest_eq(nr_db, 1);
	guest_done(0);
}

static volatile sig_atomic_t nr_sigbus;

static void on_sigbus(int sig)
{
	nr_sigbus++;
}

TEST(split_lock)
{
	struct sigaction sa = { .sa_handler = on_sigbus };
	struct vm *vm;
	struct vcpu *v;

	if (!getenv("SPLIT_LOCK"))
		SKIP(return, "for a host that watches: BOCHS_SPLIT_LOCK");
	sigaction(SIGBUS, &sa, NULL);
	vm = vm_new(VM_PLAIN);
	v = vcpu_new(vm, 0);
	vcpu_long(v, split_guest, 0);
	vcpu_expect(v, KVM_EXIT_EXCEPTION);
	EXPECT_EQ(AC_VEC, v->run->ex.exception);
	EXPECT_EQ(0, v->run->ex.error_code);
	EXPECT_EQ(1, nr_sigbus);
	/* the second attempt */
	vcpu_done(v);
	EXPECT_EQ(1, nr_sigbus);
	vm_free(vm);
}

TEST_HARNESS_MAIN
