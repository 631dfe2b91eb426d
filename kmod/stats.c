// SPDX-License-Identifier: GPL-2.0-only
/*
 * stats.c - counters to read: debugfs keel/stats for the module as a whole, keel/vms for each VM and vCPU that lives,
 * and KVM_GET_STATS_FD for one VM or vCPU (binary format, api.rst 4.133).  Opening debugfs keel/latency has exits timed.
 *
 * Locks: totals_lock for what is left of objects that are gone; keel_hw_lock for the walk over live VMs.
 * The counters themselves are read without a lock.
 */
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include "ops.h"

#define NAME_BYTES	48

#define STAT_NAME(name)	#name,
static const char *const vcpu_names[] = { KEEL_VCPU_STATS(STAT_NAME) };
static const char *const vm_names[] = { KEEL_VM_STATS(STAT_NAME) };

#define NR_VCPU		ARRAY_SIZE(vcpu_names)
#define NR_VM		ARRAY_SIZE(vm_names)

/* The counters come first in their structures, in the list's order. */
static const u64 *vcpu_counters(const struct keel_vcpu *vcpu)
{
	BUILD_BUG_ON(offsetof(struct keel_vcpu_stats, by_exit) != NR_VCPU * sizeof(u64));
	return (const u64 *)&vcpu->stat;
}

static const u64 *vm_counters(const struct keel_vm *vm)
{
	BUILD_BUG_ON(sizeof(struct keel_vm_stats) != NR_VM * sizeof(u64));
	return (const u64 *)&vm->stat;
}

/* ------------------------------------------------------------------ totals */

static DEFINE_SPINLOCK(totals_lock);
static struct totals {
	u64 vcpu[NR_VCPU];
	u64 vm[NR_VM];
	u64 *by_exit;
} gone;

static void add(u64 *sum, const u64 *counters, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		sum[i] += READ_ONCE(counters[i]);
}

int keel_stats_vcpu_init(struct keel_vcpu *vcpu)
{
	vcpu->stat.by_exit = kvcalloc(keel_hw.nr_exits, sizeof(u64), GFP_KERNEL_ACCOUNT);
	return vcpu->stat.by_exit ? 0 : -ENOMEM;
}

void keel_stats_fold_vcpu(struct keel_vcpu *vcpu)
{
	spin_lock(&totals_lock);
	add(gone.vcpu, vcpu_counters(vcpu), NR_VCPU);
	if (vcpu->stat.by_exit && gone.by_exit)
		add(gone.by_exit, vcpu->stat.by_exit, keel_hw.nr_exits);
	spin_unlock(&totals_lock);
	kvfree(vcpu->stat.by_exit);
	kvfree(vcpu->stat.latency);
	vcpu->stat.by_exit = NULL;
}

void keel_stats_fold_vm(struct keel_vm *vm)
{
	spin_lock(&totals_lock);
	add(gone.vm, vm_counters(vm), NR_VM);
	spin_unlock(&totals_lock);
}

static void add_live(struct totals *t)
{
	struct keel_vcpu *vcpu;
	struct keel_vm *vm;
	unsigned int i;

	mutex_lock(&keel_hw_lock);
	list_for_each_entry(vm, &keel_vms, list) {
		add(t->vm, vm_counters(vm), NR_VM);
		keel_for_each_vcpu(vcpu, i, vm) {
			add(t->vcpu, vcpu_counters(vcpu), NR_VCPU);
			if (vcpu->stat.by_exit)
				add(t->by_exit, vcpu->stat.by_exit, keel_hw.nr_exits);
		}
	}
	mutex_unlock(&keel_hw_lock);
}

static int stats_show(struct seq_file *m, void *unused)
{
	struct totals *t = kzalloc(sizeof(*t), GFP_KERNEL);
	unsigned int i;
	int err = -ENOMEM;

	if (!t)
		return -ENOMEM;
	t->by_exit = kvcalloc(keel_hw.nr_exits, sizeof(u64), GFP_KERNEL);
	if (!t->by_exit)
		goto out;
	err = 0;
	add_live(t);
	spin_lock(&totals_lock);
	add(t->vcpu, gone.vcpu, NR_VCPU);
	add(t->vm, gone.vm, NR_VM);
	if (gone.by_exit)
		add(t->by_exit, gone.by_exit, keel_hw.nr_exits);
	spin_unlock(&totals_lock);
	for (i = 0; i < NR_VCPU; i++)
		seq_printf(m, "%s %llu\n", vcpu_names[i], t->vcpu[i]);
	for (i = 0; i < NR_VM; i++)
		seq_printf(m, "%s %llu\n", vm_names[i], t->vm[i]);
	for (i = 0; i < keel_hw.nr_exits; i++) {
		const char *name = keel_hw.exit_name(i);

		/* Slots that share a name (one a register) are told apart by their number. */
		if (name && t->by_exit[i])
			seq_printf(m, "exit_%s_%u %llu\n", name, i, t->by_exit[i]);
	}
	kvfree(t->by_exit);
out:
	kfree(t);
	return err;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/* ------------------------------------------------------------------ each VM */

static const char *vcpu_state(const struct keel_vcpu *vcpu)
{
	static const char *const names[] = {
		[KVM_MP_STATE_UNINITIALIZED] = "offline",
		[KVM_MP_STATE_INIT_RECEIVED] = "offline",
		[KVM_MP_STATE_HALTED] = "halted",
	};
	u32 state = READ_ONCE(vcpu->mp_state);

	if (state < ARRAY_SIZE(names) && names[state])
		return names[state];
	return READ_ONCE(vcpu->in_loop) ? "running" : "userspace";
}

static void show_latency(struct seq_file *m, unsigned int slot, const char *name, const struct keel_latency *l)
{
	unsigned int i;

	seq_printf(m, "latency_%s_%u %llu", name, slot, READ_ONCE(l->ns));
	for (i = 0; i < KEEL_LATENCY_BUCKETS; i++)
		if (l->count[i])
			seq_printf(m, " %u:%u", i, READ_ONCE(l->count[i]));
	seq_putc(m, '\n');
}

static void show_vcpu(struct seq_file *m, const struct keel_vcpu *vcpu)
{
	const struct keel_latency *latency = smp_load_acquire(&vcpu->stat.latency);
	unsigned int i;

	seq_printf(m, "vcpu %u\nthread %d\ncpu %d\nstate %s\n", vcpu->id, READ_ONCE(vcpu->thread.nr),
		   READ_ONCE(vcpu->cpu), vcpu_state(vcpu));
	for (i = 0; i < NR_VCPU; i++)
		seq_printf(m, "%s %llu\n", vcpu_names[i], READ_ONCE(vcpu_counters(vcpu)[i]));
	for (i = 0; i < keel_hw.nr_exits; i++) {
		const char *name = keel_hw.exit_name(i);
		u64 count = READ_ONCE(vcpu->stat.by_exit[i]);

		if (!name || !count)
			continue;
		seq_printf(m, "exit_%s_%u %llu\n", name, i, count);
		if (latency)
			show_latency(m, i, name, &latency[i]);
	}
}

/* One VM at a time, so that the lock is not held while userspace is waited for; new ones come at the list's end. */
static void *vms_start(struct seq_file *m, loff_t *pos)
{
	mutex_lock(&keel_hw_lock);
	return seq_list_start(&keel_vms, *pos);
}

static void *vms_next(struct seq_file *m, void *at, loff_t *pos)
{
	return seq_list_next(at, &keel_vms, pos);
}

static void vms_stop(struct seq_file *m, void *at)
{
	mutex_unlock(&keel_hw_lock);
}

static int vms_show(struct seq_file *m, void *at)
{
	struct keel_vm *vm = list_entry(at, struct keel_vm, list);
	struct keel_vcpu *vcpu;
	unsigned int i;

	seq_printf(m, "vm %llu\nowner %d\nmemory_pages %llu\n", vm->serial, vm->owner, READ_ONCE(vm->slots.pages[0]));
	for (i = 0; i < NR_VM; i++)
		seq_printf(m, "%s %llu\n", vm_names[i], READ_ONCE(vm_counters(vm)[i]));
	keel_snaps_show(m, vm);
	keel_for_each_vcpu(vcpu, i, vm)
		show_vcpu(m, vcpu);
	return 0;
}

static const struct seq_operations vms_sops = {
	.start = vms_start,
	.next = vms_next,
	.stop = vms_stop,
	.show = vms_show,
};
DEFINE_SEQ_ATTRIBUTE(vms);

/* ------------------------------------------------------------------ how long exits take */

DEFINE_STATIC_KEY_FALSE(keel_latency_on);
static atomic_t latency_period = ATOMIC_INIT(0);

/* Where sleeping is allowed, and before the exits that are to be measured. */
void keel_latency_want(struct keel_vcpu_stats *stat)
{
	struct keel_latency *l;

	if (stat->latency)
		return;
	l = kvcalloc(keel_hw.nr_exits, sizeof(*l), GFP_KERNEL_ACCOUNT);
	smp_store_release(&stat->latency, l);	/* readers come without a lock; without memory there is nothing to read */
}

void keel_latency_exit(struct keel_vcpu_stats *stat)
{
	stat->exit_period = atomic_read(&latency_period);
	stat->exit_at = local_clock();
}

void keel_latency_entry(struct keel_vcpu_stats *stat)
{
	struct keel_latency *l = stat->latency;
	s64 ns = local_clock() - stat->exit_at;
	bool known = stat->exit_at && stat->exit_period == atomic_read(&latency_period);

	stat->exit_at = 0;
	/* Nobody measured for a while in between; or another CPU's clock, a little behind. */
	if (!l || !known || ns < 0)
		return;
	l += stat->exit_slot;
	l->ns += ns;
	l->count[min(fls64(ns), KEEL_LATENCY_BUCKETS - 1)]++;
}

static int latency_open(struct inode *inode, struct file *file)
{
	atomic_inc(&latency_period);
	static_branch_inc(&keel_latency_on);
	return nonseekable_open(inode, file);
}

static int latency_release(struct inode *inode, struct file *file)
{
	static_branch_dec(&keel_latency_on);
	return 0;
}

static const struct file_operations latency_fops = {
	.owner = THIS_MODULE,
	.open = latency_open,
	.release = latency_release,
};

static struct dentry *stats_dir;

int keel_stats_init(void)
{
	gone.by_exit = kvcalloc(keel_hw.nr_exits, sizeof(u64), GFP_KERNEL);
	if (!gone.by_exit)
		return -ENOMEM;
	stats_dir = debugfs_create_dir("keel", NULL);
	debugfs_create_file("stats", 0444, stats_dir, NULL, &stats_fops);
	debugfs_create_file("vms", 0444, stats_dir, NULL, &vms_fops);
	debugfs_create_file("latency", 0400, stats_dir, NULL, &latency_fops);
	return 0;
}

void keel_stats_exit(void)
{
	debugfs_remove_recursive(stats_dir);
	kvfree(gone.by_exit);
	gone.by_exit = NULL;
}

/* ------------------------------------------------------------------ KVM_GET_STATS_FD */

/* One object's counters behind a file; the file holds a reference to the VM. */
struct stats_file {
	struct keel_vm *vm;
	const u64 *counters;
	unsigned int n;
	size_t data_at, bytes;
	u8 image[];		/* header, id, descriptors; the data is read afresh each time */
};

static u32 stat_flags(bool instant)
{
	return (instant ? KVM_STATS_TYPE_INSTANT : KVM_STATS_TYPE_CUMULATIVE) | KVM_STATS_UNIT_NONE |
	       KVM_STATS_BASE_POW10;
}

static struct stats_file *make_image(const char *const *names, unsigned int n, unsigned int nr_instant, const char *id)
{
	/* Where the name begins for userspace; in newer kernels' own view it is part of the structure. */
	size_t desc_bytes = offsetof(struct kvm_stats_desc, name) + NAME_BYTES;
	struct kvm_stats_header header = {
		.name_size = NAME_BYTES,
		.num_desc = n,
		.id_offset = sizeof(header),
		.desc_offset = sizeof(header) + NAME_BYTES,
		.data_offset = sizeof(header) + NAME_BYTES + n * desc_bytes,
	};
	struct stats_file *sf;
	unsigned int i;

	sf = kzalloc(sizeof(*sf) + header.data_offset, GFP_KERNEL_ACCOUNT);
	if (!sf)
		return NULL;
	memcpy(sf->image, &header, sizeof(header));
	strscpy(sf->image + header.id_offset, id, NAME_BYTES);
	for (i = 0; i < n; i++) {
		struct kvm_stats_desc *desc = (void *)(sf->image + header.desc_offset + i * desc_bytes);

		desc->flags = stat_flags(i < nr_instant);
		desc->size = 1;
		desc->offset = i * sizeof(u64);
		strscpy((char *)desc + offsetof(struct kvm_stats_desc, name), names[i], NAME_BYTES);
	}
	sf->n = n;
	sf->data_at = header.data_offset;
	sf->bytes = header.data_offset + n * sizeof(u64);
	return sf;
}

static ssize_t stats_file_read(struct file *file, char __user *ubuf, size_t len, loff_t *pos)
{
	struct stats_file *sf = file->private_data;
	u8 *copy;
	ssize_t ret;

	copy = kmalloc(sf->bytes, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, sf->image, sf->data_at);
	memcpy(copy + sf->data_at, sf->counters, sf->n * sizeof(u64));
	ret = simple_read_from_buffer(ubuf, len, pos, copy, sf->bytes);
	kfree(copy);
	return ret;
}

static int stats_file_release(struct inode *inode, struct file *file)
{
	struct stats_file *sf = file->private_data;

	keel_vm_put(sf->vm);
	kfree(sf);
	return 0;
}

static const struct file_operations stats_file_fops = {
	.owner = THIS_MODULE,
	.read = stats_file_read,
	.release = stats_file_release,
	.llseek = noop_llseek,
};

static long open_stats(struct keel_vm *vm, struct stats_file *sf, const u64 *counters)
{
	struct file *file;
	int fd;

	if (!sf)
		return -ENOMEM;
	sf->vm = vm;
	sf->counters = counters;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		kfree(sf);
		return fd;
	}
	keel_vm_get(vm);
	file = anon_inode_getfile("keel-stats", &stats_file_fops, sf, O_RDONLY);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		keel_vm_put(vm);
		kfree(sf);
		return PTR_ERR(file);
	}
	file->f_mode |= FMODE_PREAD;
	fd_install(fd, file);
	return fd;
}

#define NR_VM_INSTANT	5	/* pages_*, table_pages and snapshot_pages, first in the list, are what there is now */

VM_IOCTL(keel_vm_stats_fd)
{
	char id[NAME_BYTES];

	snprintf(id, sizeof(id), "kvm-%d", vm->owner);
	return open_stats(vm, make_image(vm_names, NR_VM, NR_VM_INSTANT, id), vm_counters(vm));
}

VCPU_IOCTL(keel_vcpu_stats_fd)
{
	char id[NAME_BYTES];

	snprintf(id, sizeof(id), "kvm-%d/vcpu-%u", vcpu->vm->owner, vcpu->id);
	return open_stats(vcpu->vm, make_image(vcpu_names, NR_VCPU, 0, id), vcpu_counters(vcpu));
}
