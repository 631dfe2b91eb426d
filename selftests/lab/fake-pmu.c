// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters for perf where the emulated CPU has none, so that keel's can be tested: raw events of its vendor's numbers. The lab's
 * only; what it counts is not what hardware would. It cannot tell guest from host, so it demands that its user asks for the
 * guest alone, and counts while the thread runs. An AMD CPU is said to have PERFCTR_CORE and version 2; on Intel's, perf is made to say that
 * it has an architectural PMU of version 2, four counters and three fixed ones, and that GLOBAL_CTRL is to be exchanged.
 *
 *	0x76 (AMD); 0x3c, 0xc0, 0x300 (Intel): a count is a tick of the TSC
 *	0xfe	the count is the event itself, whatever was counted: config, bit 40: not in user mode, 41: not in kernel mode
 *
 * Its parameters tell of events: how many there are now, and ever were, the last one's number, and how often
 * somebody wanted to know what to exchange; how often without zeros where perf looks for a guest's PEBS, how often PEBS_ENABLE
 * was written, and on how many CPUs perf thinks that SVM, or VMX, is on. "exchange" chooses what perf wants exchanged:
 *
 *	0	nothing: GLOBAL_CTRL is the same in guest and host
 *	1	the host uses PEBS on a CPU that does not keep it out of guests: GLOBAL_CTRL and PEBS_ENABLE
 *	2	on one that does, and could do PEBS in guests: GLOBAL_CTRL; and what is of no interest to guests without it
 *	3	a register in which guest and VMM see what the entry loaded and what the exit did: KERNEL_GS_BASE
 */
#include <linux/hrtimer.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <asm/msr.h>
#include <asm/msr-trace.h>
#include <asm/perf_event.h>
#include <asm/tsc.h>

#define ECHO	0xfe

static atomic_t live, made, last, switched, blind, pebs_writes, svm_cpus, vmx_cpus;
static int exchange;
static struct perf_event *pin;

static int get_atomic(char *buf, const struct kernel_param *kp)
{
	return sprintf(buf, "%d\n", atomic_read(kp->arg));
}

static const struct kernel_param_ops atomic_ops = { .get = get_atomic };
module_param_cb(live, &atomic_ops, &live, 0444);
module_param_cb(made, &atomic_ops, &made, 0444);
module_param_cb(last, &atomic_ops, &last, 0444);
module_param_cb(switched, &atomic_ops, &switched, 0444);
module_param_cb(blind, &atomic_ops, &blind, 0444);
module_param_cb(pebs_writes, &atomic_ops, &pebs_writes, 0444);
module_param_cb(svm_cpus, &atomic_ops, &svm_cpus, 0444);
module_param_cb(vmx_cpus, &atomic_ops, &vmx_cpus, 0444);
module_param(exchange, int, 0644);

static u8 number(struct perf_event *event)
{
	return event->attr.config;
}

static bool is_intel(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL;
}

static bool ticks(u64 config)
{
	u8 event = config;

	return is_intel() ? event == 0x3c || event == 0xc0 || (config & 0xffff) == 0x300 : event == 0x76;
}

static void count(struct perf_event *event)
{
	u64 now = rdtsc(), ticks = now - local64_xchg(&event->hw.prev_count, now);

	local64_add(ticks, &event->count);
	local64_sub(ticks, &event->hw.period_left);
	if (number(event) == ECHO)
		local64_set(&event->count, event->attr.config | (u64)event->attr.exclude_user << 40 |
			    (u64)event->attr.exclude_kernel << 41);
}

static ktime_t until_overflow(struct perf_event *event)
{
	s64 left = clamp_t(s64, local64_read(&event->hw.period_left), 0, 1LL << 42);

	return ns_to_ktime(max_t(u64, div_u64((u64)left * 1000, max(tsc_khz / 1000, 1u)), 10000));
}

static enum hrtimer_restart fire(struct hrtimer *timer)
{
	struct perf_event *event = container_of(timer, struct perf_event, hw.hrtimer);

	count(event);
	if (local64_read(&event->hw.period_left) <= 0) {
		local64_set(&event->hw.period_left, event->hw.sample_period);
		event->overflow_handler(event, NULL, NULL);
	}
	hrtimer_forward_now(timer, until_overflow(event));
	return HRTIMER_RESTART;
}

static void fake_start(struct perf_event *event, int flags)
{
	event->hw.state = 0;
	local64_set(&event->hw.prev_count, rdtsc());
	if (!event->hw.sample_period)
		return;
	if (local64_read(&event->hw.period_left) <= 0)
		local64_set(&event->hw.period_left, event->hw.sample_period);
	hrtimer_start(&event->hw.hrtimer, until_overflow(event), HRTIMER_MODE_REL_PINNED_HARD);
}

static void fake_stop(struct perf_event *event, int flags)
{
	if (event->hw.state & PERF_HES_STOPPED)
		return;
	hrtimer_cancel(&event->hw.hrtimer);
	count(event);
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
}

static int fake_add(struct perf_event *event, int flags)
{
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
	if (flags & PERF_EF_START)
		fake_start(event, 0);
	return 0;
}

static void fake_gone(struct perf_event *event)
{
	atomic_dec(&live);
}

static struct pmu fake = {
	.module = THIS_MODULE,
	.task_ctx_nr = perf_sw_context,
};

static int fake_event_init(struct perf_event *event)
{
	if (event->attr.type != PERF_TYPE_RAW || (!ticks(event->attr.config) && number(event) != ECHO))
		return -ENOENT;
	if (!event->attr.exclude_host || event->attr.exclude_guest)
		return -EINVAL;
#ifdef KEEL_HRTIMER_SETUP
	hrtimer_setup(&event->hw.hrtimer, fire, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
#else
	hrtimer_init(&event->hw.hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	event->hw.hrtimer.function = fire;
#endif
	event->destroy = fake_gone;
	atomic_inc(&live);
	atomic_inc(&made);
	atomic_set(&last, event->attr.config);
	return 0;
}

/* Two functions of perf's that say what they find in a struct only perf has: what they were called with, and their answer. */
static int keep_argument(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	*(unsigned long *)ri->data = regs->di;
	return 0;
}

static int tell_capability(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	**(struct x86_pmu_capability **)ri->data = (struct x86_pmu_capability) {
		.version = 2,
		.num_counters_gp = 4,
		.num_counters_fixed = 3,
		.bit_width_gp = 48,
		.bit_width_fixed = 48,
		.events_mask_len = 7,
	};
	return 0;
}

static int keep_arguments(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	/* Zeros for as long as kvm.ko's struct is: perf of some kernels does not ask whether there is one. */
	if (!regs->si || memchr_inv((void *)regs->si, 0, 2048))
		atomic_inc(&blind);
	return keep_argument(ri, regs);
}

static int tell_switch(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	static struct perf_guest_switch_msr lists[][4] = {
		{ { MSR_CORE_PERF_GLOBAL_CTRL, 0xf, 0xf } },
		{ { MSR_CORE_PERF_GLOBAL_CTRL, 0xf, 0xe }, { MSR_IA32_PEBS_ENABLE, 1, 0 } },
		{ { MSR_CORE_PERF_GLOBAL_CTRL, 0xf, 0xe }, { MSR_IA32_DS_AREA, 0x1000, 0 }, { MSR_PEBS_DATA_CFG, 1, 0 },
		  { MSR_IA32_PEBS_ENABLE, 1, 0 } },
		{ { MSR_CORE_PERF_GLOBAL_CTRL, 0xf, 0xf }, { MSR_KERNEL_GS_BASE, 0xabcd000, 0x1234000 } },
	};
	static const int lengths[] = { 1, 2, 4, 2 };
	unsigned int which = min_t(unsigned int, READ_ONCE(exchange), ARRAY_SIZE(lists) - 1);

	**(int **)ri->data = lengths[which];
	regs->ax = (unsigned long)lists[which];
	atomic_inc(&switched);
	return 0;
}

static void see_write_msr(void *unused, unsigned int msr, u64 val, int failed)
{
	if (msr == MSR_IA32_PEBS_ENABLE)
		atomic_inc(&pebs_writes);
}

static int see_svm_on(struct kprobe *p, struct pt_regs *regs)
{
	atomic_inc(&svm_cpus);
	return 0;
}

static int see_svm_off(struct kprobe *p, struct pt_regs *regs)
{
	atomic_dec(&svm_cpus);
	return 0;
}

static int see_vmx(struct kprobe *p, struct pt_regs *regs)
{
	atomic_add((int)regs->di ? 1 : -1, &vmx_cpus);
	return 0;
}

static struct kprobe svm_on_probe = { .symbol_name = "amd_pmu_enable_virt", .pre_handler = see_svm_on };
static struct kprobe svm_off_probe = { .symbol_name = "amd_pmu_disable_virt", .pre_handler = see_svm_off };
static struct kprobe vmx_probe = { .symbol_name = "intel_pt_handle_vmx", .pre_handler = see_vmx };
static struct kprobe *virt_probes[] = { &svm_on_probe, &svm_off_probe, &vmx_probe };

static struct kretprobe capability_probe = {
	.kp.symbol_name = "perf_get_x86_pmu_capability",
	.entry_handler = keep_argument,
	.handler = tell_capability,
	.data_size = sizeof(unsigned long),
};

static struct kretprobe switch_probe = {
	.kp.symbol_name = "perf_guest_get_msrs",
	.entry_handler = keep_arguments,
	.handler = tell_switch,
	.data_size = sizeof(unsigned long),
};

static struct kretprobe *probes[] = { &capability_probe, &switch_probe };

static int __init fake_init(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW, .size = sizeof(attr), .config = ECHO, .exclude_host = true, .disabled = true,
	};
	int err;

	if (boot_cpu_data.x86_vendor == X86_VENDOR_AMD) {
		set_cpu_cap(&boot_cpu_data, X86_FEATURE_PERFCTR_CORE);
		set_cpu_cap(&boot_cpu_data, X86_FEATURE_PERFMON_V2);
	}
	fake.event_init = fake_event_init;
	fake.add = fake_add;
	fake.del = fake_stop;
	fake.start = fake_start;
	fake.stop = fake_stop;
	fake.read = count;
	/* Never unloaded: see below. */
	err = is_intel() ? register_kretprobes(probes, ARRAY_SIZE(probes)) : 0;
	if (!err)
		err = register_kprobes(virt_probes, ARRAY_SIZE(virt_probes));
	if (!err)
		err = register_trace_write_msr(see_write_msr, NULL);
	if (err)
		return err;
	err = perf_pmu_register(&fake, "fake", PERF_TYPE_RAW);
	if (err)
		return err;
	/* Perf's hook in the scheduler stays on: what a test counts is not when that is switched. */
	pin = perf_event_create_kernel_counter(&attr, -1, current, NULL, NULL);
	if (!IS_ERR(pin)) {
		atomic_set(&live, 0);
		atomic_set(&made, 0);
	}
	return 0;
}

module_init(fake_init);
MODULE_DESCRIPTION("Performance counters that count the TSC, for a lab without any");
MODULE_LICENSE("GPL");
