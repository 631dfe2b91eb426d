// SPDX-License-Identifier: GPL-2.0-only
/*
 * hw.c - virtualization on and off per physical CPU: with the first VM and the last, with CPU hotplug,
 * suspend, reboot.  Nothing is claimed that another hypervisor module owns: where virtualization is on
 * already, keel says who to ask and stays off, or borrows it from kvm.ko (share.c), which changes little here: cpu_enable and
 * cpu_disable turn nothing on or off then, and the order to kvm.ko matters.
 *
 * Lock: keel_hw_lock guards the count of VMs and the list; the hotplug callbacks take it too.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/rculist.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <asm/kvm_para.h>
#include "cpu/mitigate.h"
#include "ops.h"

DEFINE_MUTEX(keel_hw_lock);
LIST_HEAD(keel_vms);
bool keel_rebooting;
struct keel_hw_caps keel_hw __ro_after_init;
DEFINE_STATIC_KEY_FALSE(keel_takes_irqs);
DEFINE_STATIC_KEY_FALSE(keel_shared);

#define KEEL_OP_DEFINE(name, ret, args) \
	DEFINE_STATIC_CALL_NULL(keel_op_##name, *(((struct keel_ops *)0)->name));
KEEL_OPS(KEEL_OP_DEFINE)

static struct keel_ops *const keel_backends[] = { &svm_ops, &vmx_ops };
static struct keel_ops *keel_backend;

static unsigned int hw_users;		/* VMs that hold virtualization on */
static u64 hw_serial;			/* of the last VM */
static bool hw_on;			/* CPUs that come up must turn it on */
static bool hw_lost;			/* one that was suspended could not: its VMs are dead, and no new ones until they are gone */
static DEFINE_PER_CPU(bool, hw_cpu_on);
static enum cpuhp_state hw_cpuhp;

/*
 * This machine is one of KVM's, perhaps, which tells its kernel of a page that is not there by a page fault whose address is a
 * token; and while a guest of ours runs, by an exit that says so, for which only that module of the kernel's is made.  Where
 * it is not asked for it, it waits for the page itself.  (No lab has an outer KVM.)
 */
static DEFINE_PER_CPU(bool, hw_apf_asked);

static bool hw_apf_exits(void)
{
	u32 base, r[4];

	if (!boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return false;
	/* Behind the leaves of Hyper-V's interface, if it tells of that, too. */
	for (base = KVM_CPUID_SIGNATURE; base <= KVM_CPUID_SIGNATURE + 0x100; base += 0x100) {
		cpuid(base, &r[0], &r[1], &r[2], &r[3]);
		if (!memcmp(&r[1], KVM_SIGNATURE, 3 * sizeof(r[0])))
			return cpuid_eax(base | KVM_CPUID_FEATURES) & BIT(KVM_FEATURE_ASYNC_PF_VMEXIT);
	}
	return false;
}

static void hw_ask_apf(bool on)
{
	u64 val;

	if (!hw_apf_exits() || rdmsrq_safe(MSR_KVM_ASYNC_PF_EN, &val))
		return;
	if (!on)
		__this_cpu_write(hw_apf_asked, val & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT);
	if (!__this_cpu_read(hw_apf_asked))
		return;
	val &= ~(u64)KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT;
	wrmsrq_safe(MSR_KVM_ASYNC_PF_EN, on ? val | KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT : val);
}

/* CPUs that cannot leave their reason in @refusal, where the last one stays. */
static void hw_enable_cpu(void *refusal)
{
	const char *why;

	if (__this_cpu_read(hw_cpu_on))
		return;
	why = keel_call(cpu_enable, keel_hw_shared());
	if (why) {
		WRITE_ONCE(*(const char **)refusal, why);
		return;
	}
	if (!keel_hw_shared())
		keel_mitigate_cpu(true);
	hw_ask_apf(false);
	__this_cpu_write(hw_cpu_on, true);
}

static void hw_disable_cpu(void *unused)
{
	if (!__this_cpu_read(hw_cpu_on))
		return;
	__this_cpu_write(hw_cpu_on, false);
	keel_call(cpu_disable, keel_hw_shared());
	if (!keel_hw_shared())
		keel_mitigate_cpu(false);
	hw_ask_apf(true);
}

bool __keel_hw_arrive(struct keel_vcpu *vcpu)
{
	if (unlikely(!__this_cpu_read(hw_cpu_on)))
		return false;
	if (!vcpu->arrived) {
		vcpu->arrived = true;
		keel_mitigate_arrive(vcpu->serial);
	}
	return true;
}

void keel_hw_leave(struct keel_vcpu *vcpu)
{
	if (!vcpu->arrived)
		return;
	vcpu->arrived = false;
	keel_mitigate_leave();
}

/*
 * A crash, or a reboot without ceremony: IRQs off, on other CPUs in an NMI, from which there is no return.  VMX keeps INIT
 * from coming, and the next kernel from writing CR4.
 */
static void hw_emergency(void)
{
	keel_rebooting = true;
	keel_call(cpu_emergency);
}

static DEFINE_MUTEX(hw_emergency_lock);	/* of the next one; keel_hw_lock may be taken under it */
static bool hw_emergency_on;		/* it is called */
static unsigned long hw_emergency_kvm;	/* bit a module of kvm's that has the callback, or is about to */

/* In the background: who makes and deletes VMs does not wait for the grace period that taking it back takes. */
static void hw_emergency_update(struct work_struct *unused)
{
	bool want;

	mutex_lock(&hw_emergency_lock);
	mutex_lock(&keel_hw_lock);
	want = KEEL_EMERGENCY_CALLBACK && hw_users && !keel_hw_shared();	/* kvm has its own then */
	mutex_unlock(&keel_hw_lock);
	want = want && !READ_ONCE(hw_emergency_kvm);
	if (want && !hw_emergency_on)
		keel_emergency_register(hw_emergency);
	else if (!want && hw_emergency_on)
		keel_emergency_unregister(hw_emergency);
	hw_emergency_on = want;
	mutex_unlock(&hw_emergency_lock);
}

static DECLARE_WORK(hw_emergency_work, hw_emergency_update);

static const char *const hw_kvm_modules[] = { "kvm_intel", "kvm_amd" };

/*
 * Before one is initialized, afterwards, and when it is gone: it is called or keel, not both, and for a moment
 * nobody.
 */
static int hw_module_changes(struct notifier_block *nb, unsigned long state, void *data)
{
	int which = match_string(hw_kvm_modules, ARRAY_SIZE(hw_kvm_modules), ((struct module *)data)->name);

	if (which < 0)
		return NOTIFY_DONE;
	assign_bit(which, &hw_emergency_kvm,
		   state == MODULE_STATE_COMING || (state == MODULE_STATE_LIVE && KEEL_EMERGENCY_KVM));
	hw_emergency_update(NULL);
	return NOTIFY_DONE;
}

static struct notifier_block hw_modules = { .notifier_call = hw_module_changes };

static int hw_emergency_init(void)
{
	struct kobject *module;
	struct module *mod;	/* NULL: built into the kernel */
	unsigned int i;
	int err;

	if (!KEEL_EMERGENCY_CALLBACK)
		return 0;
	err = register_module_notifier(&hw_modules);
	for (i = 0; !err && KEEL_EMERGENCY_KVM && i < ARRAY_SIZE(hw_kvm_modules); i++) {
		module = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, hw_kvm_modules[i]);
		/* One that is going is not heard of any more. */
		mod = module ? container_of(module, struct module_kobject, kobj)->mod : NULL;
		if (module && !(mod && mod->state == MODULE_STATE_GOING))
			set_bit(i, &hw_emergency_kvm);
		kobject_put(module);
	}
	return err;
}

static void hw_emergency_exit(void)
{
	if (KEEL_EMERGENCY_CALLBACK)
		unregister_module_notifier(&hw_modules);
	flush_work(&hw_emergency_work);
}

/* Suspend: hotplug has taken every other CPU down; this one runs with IRQs off and tasks frozen. */
static int hw_suspend(void)
{
	hw_disable_cpu(NULL);
	keel_clock_suspend();
	return 0;
}

/*
 * Somebody else may have taken the CPU meanwhile.  No vCPU's thread is in the kernel: what they find when they are thawed is
 * a dead VM.  The lock cannot be had here, but nothing else runs, and the list's links forward hold at any moment.
 */
static void hw_resume(void)
{
	const char *why = NULL;
	struct keel_vm *vm;

	keel_clock_resume();
	if (hw_on)
		hw_enable_cpu(&why);
	if (!why)
		return;
	pr_err("keel: the VMs are lost after suspend: %s\n", why);
	hw_lost = true;
	hw_on = false;		/* no CPU that comes back need try */
	list_for_each_entry(vm, &keel_vms, list)
		WRITE_ONCE(vm->dead, true);
}

KEEL_DEFINE_SYSCORE(hw_syscore, hw_suspend, hw_resume);

static int hw_turn_on(void)
{
	const char *why = NULL;
	bool shared = keel_share_wanted(&why);

	if (shared != static_key_enabled(&keel_shared)) {
		if (shared)
			static_branch_enable_cpuslocked(&keel_shared);
		else
			static_branch_disable_cpuslocked(&keel_shared);
	}
	if (!why) {
		on_each_cpu(hw_enable_cpu, &why, 1);
		if (why)
			on_each_cpu(hw_disable_cpu, NULL, 1);
	}
	if (why) {
		pr_warn_ratelimited("keel: no VM: %s\n", why);
		return -EBUSY;
	}
	/* Suspend takes them from the last to the first: ours is to come before kvm's, which by now is there. */
	if (shared) {
		keel_syscore_unregister(&hw_syscore);
		keel_syscore_register(&hw_syscore);
	}
	hw_on = true;
	if (KEEL_EMERGENCY_CALLBACK)
		schedule_work(&hw_emergency_work);
	return 0;
}

bool keel_hw_in_use(void)
{
	return hw_users;
}

int keel_hw_get(struct keel_vm *vm)
{
	int err = 0;

	cpus_read_lock();
	mutex_lock(&keel_hw_lock);
	if (keel_rebooting || hw_lost)
		err = -EBUSY;
	else if (!hw_users)
		err = hw_turn_on();
	if (!err) {
		hw_users++;
		vm->serial = ++hw_serial;
		list_add_tail_rcu(&vm->list, &keel_vms);	/* for hw_resume() */
	}
	mutex_unlock(&keel_hw_lock);
	cpus_read_unlock();
	return err;
}

/* Who walks the list finds whole VMs only: first off the list, then taken apart. */
void keel_hw_unlist(struct keel_vm *vm)
{
	mutex_lock(&keel_hw_lock);
	list_del_init(&vm->list);
	mutex_unlock(&keel_hw_lock);
}

void keel_hw_put(struct keel_vm *vm)
{
	cpus_read_lock();
	mutex_lock(&keel_hw_lock);
	list_del_init(&vm->list);
	if (--hw_users == 0) {
		hw_on = hw_lost = false;
		on_each_cpu(hw_disable_cpu, NULL, 1);
		if (KEEL_EMERGENCY_CALLBACK)
			schedule_work(&hw_emergency_work);
	}
	mutex_unlock(&keel_hw_lock);
	cpus_read_unlock();
}

/*
 * A CPU joins: if virtualization cannot be turned on there it must stay offline, vCPUs may move to it.  kvm.ko's turn was
 * before, whose state comes earlier on all kernels.
 */
static int hw_cpu_online(unsigned int cpu)
{
	const char *why = NULL;

	mutex_lock(&keel_hw_lock);
	if (hw_on) {
		local_irq_disable();
		hw_enable_cpu(&why);
		local_irq_enable();
	}
	mutex_unlock(&keel_hw_lock);
	keel_clock_cpu_online();
	if (why)
		pr_warn("keel: CPU %u stays offline: %s\n", cpu, why);
	return why ? -EBUSY : 0;
}

/*
 * A CPU leaves that is borrowed: kvm.ko may turn it off before hw_cpu_dying().  vCPU threads may still be scheduled in, and
 * find that they must go elsewhere: __keel_hw_arrive().
 */
static int hw_cpu_leaving(unsigned int cpu)
{
	if (keel_hw_shared()) {
		local_irq_disable();
		hw_disable_cpu(NULL);
		local_irq_enable();
	}
	return 0;
}

/*
 * A CPU leaves, and this is its last breath, IRQs off: earlier, vCPU threads may still be scheduled in.  Neither VMs nor
 * their number come or go meanwhile, for that takes cpus_read_lock().
 */
static int hw_cpu_dying(unsigned int cpu)
{
	hw_disable_cpu(NULL);
	return 0;
}

/*
 * A machine check has ended the guest; IRQs off, nothing has been let in since.  The kernel's handler is told that user
 * mode was interrupted: it then blames this thread, which gets a SIGBUS if that memory was of use to it.  In kernel mode
 * it would have to panic.
 */
void keel_machine_check(void)
{
	struct pt_regs regs = { .cs = __USER_CS, .ss = __USER_DS, .flags = X86_EFLAGS_IF };

	/* It may use RCU, for which a guest that runs is idle. */
	context_tracking_guest_exit();
	keel_do_machine_check(&regs);
	context_tracking_guest_enter();
}

/* INIT and firmware must not find SVME or VMXE set: off everywhere, and no VM runs any more. */
static int hw_reboot(struct notifier_block *nb, unsigned long action, void *data)
{
	struct keel_vm *vm;

	mutex_lock(&keel_hw_lock);
	keel_rebooting = true;
	list_for_each_entry(vm, &keel_vms, list)
		keel_vm_kill(vm);
	list_for_each_entry(vm, &keel_vms, list)
		keel_request_all(vm, KEEL_REQ_VM_DEAD, true);
	hw_on = false;
	on_each_cpu(hw_disable_cpu, NULL, 1);
	mutex_unlock(&keel_hw_lock);
	return NOTIFY_DONE;
}

/* Before kvm.ko's, which until 6.7 is one of these, and later comes after all of them. */
static struct notifier_block hw_reboot_nb = { .notifier_call = hw_reboot, .priority = 1 };

static int hw_pick_backend(void)
{
	const char *why = NULL, *last = "no backend knows this CPU";
	int err = -ENODEV;
	unsigned int i;

	/* All clocks of guests are made from it. */
	if (!tsc_khz) {
		pr_err("keel: not loaded: the kernel could not tell how fast the TSC is\n");
		return err;
	}
	for (i = 0; i < ARRAY_SIZE(keel_backends); i++) {
		int e = keel_backends[i]->setup(keel_backends[i], &why);

		if (!e) {
			keel_backend = keel_backends[i];
			keel_hw = keel_backend->caps;
#define KEEL_OP_UPDATE(name, ret, args) static_call_update(keel_op_##name, keel_backend->name);
			KEEL_OPS(KEEL_OP_UPDATE)
			if (keel_hw.takes_irqs)
				static_branch_enable(&keel_takes_irqs);
			return 0;
		}
		/* The backend that found its CPU but not its features knows the better reason. */
		if (err == -ENODEV) {
			err = e;
			last = why;
		}
	}
	pr_err("keel: not loaded: %s\n", last);
	return err;
}

int __init keel_hw_init(void)
{
	int err = keel_share_setup();

	if (!err)
		err = hw_pick_backend();
	if (err)
		return err;
	err = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "virt/keel:online", hw_cpu_online, hw_cpu_leaving);
	if (err < 0) {
		keel_backend->unsetup();
		return err;
	}
	hw_cpuhp = err;
	err = cpuhp_setup_state_nocalls(KEEL_CPUHP_DYING, "virt/keel:dying", NULL, hw_cpu_dying);
	if (err) {
		cpuhp_remove_state_nocalls(hw_cpuhp);
		keel_backend->unsetup();
		return err;
	}
	keel_syscore_register(&hw_syscore);
	register_reboot_notifier(&hw_reboot_nb);
	err = hw_emergency_init();
	if (err)
		keel_hw_exit();
	return err;
}

void keel_hw_exit(void)
{
	unregister_reboot_notifier(&hw_reboot_nb);
	keel_syscore_unregister(&hw_syscore);
	cpuhp_remove_state_nocalls(KEEL_CPUHP_DYING);
	cpuhp_remove_state_nocalls(hw_cpuhp);
	hw_emergency_exit();
	keel_share_exit();
	keel_backend->unsetup();
}
