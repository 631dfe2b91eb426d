/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tool.h - the keel command: what its subcommands share.
 */
#ifndef TOOL_H
#define TOOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Exit statuses, as keel(1) lists them.  exec has its own for what goes wrong before the command runs. */
enum {
	EXIT_OK,
	EXIT_FAILED,
	EXIT_USAGE,
	EXIT_NO_HARDWARE,	/* the CPU, or its firmware, does not let it */
	EXIT_NOT_LOADED,	/* no module, or it is not loaded */
	EXIT_BUSY,		/* somebody uses it */
	EXIT_NO_PERMISSION,
	EXIT_EXEC = 125, EXIT_CANNOT_RUN, EXIT_NOT_FOUND,
};

#define NODE		"/dev/keel"
#define KVM_NODE	"/dev/kvm"
#define STATE		"/sys/class/misc/keel"
#define DEBUGFS		"/sys/kernel/debug"
#define DEBUGFS_KEEL	DEBUGFS "/keel"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

int cmd_status(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_unload(int argc, char **argv);
int cmd_share(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_selftest(int argc, char **argv);

/* "keel: ..." on standard error; answers @status, so that it can be returned */
int complain(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int usage_of(const char *command);	/* its line of the help, as a complaint */
void *need(void *p);			/* memory, or the end */
bool number(const char *text, u64 *n);	/* a decimal one, above 0, and nothing else */
u64 now_ns(void);

/* ---------------------------------------------------------------- host.c */

/* First line of a file without its end; false if it cannot be read */
bool read_line(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

struct host {
	char vendor[16], model[128];
	const char *virt;		/* "svm", "vmx", or NULL */
	bool offered;			/* the kernel sees it, too: firmware and kernel leave it on */
	const char *firmware;		/* "on", "off", "unknown" */
	char features[256];		/* words, of those that matter to a hypervisor */
	char kernel[128];
};

void host_read(struct host *h);
const char *host_refuses(const struct host *h);	/* why keel cannot run here; NULL if nothing is known against it */

bool module_loaded(const char *name);
int module_users(const char *name);		/* its reference count, -1 if it is not loaded */

struct process {
	pid_t pid;
	int keel_nodes, keel_vms, kvm_vms;	/* files it has open */
};

struct processes {
	struct process *list;
	unsigned int n;
	unsigned int hidden;			/* that we may not look into */
};

void processes_read(struct processes *p);
void process_name(pid_t pid, char *buf, size_t size);	/* the VM's if it has one, else the program's */
void process_user(pid_t pid, char *buf, size_t size);
/* Who has the CPU's virtualization: a module's name, or NULL for nobody that is known of */
const char *virt_holder(const struct host *h, const struct processes *p);
const char *virt_holder_now(void);
int node_error(int err);			/* why /dev/keel does not open, as a complaint; answers the exit status */

/* ---------------------------------------------------------------- share.c */

int share_hand_over(void);	/* keel's VMs may run beside kvm's from now on; or -errno */
int share_error(int err);	/* that, as a complaint; answers the exit status */

/* ---------------------------------------------------------------- vms.c */

#define BUCKETS	32

struct exit_count {
	char name[32];
	unsigned int slot;
	u64 count;
	u64 ns;
	u32 bucket[BUCKETS];
};

struct vcpu {
	unsigned int id;
	int thread, cpu;
	char state[16];
	u64 exits, fast_exits, user_exits, irq_exits, halt_exits, injected_irqs;
	struct exit_count *exit;
	unsigned int nr_exits;
};

struct snapshot {
	u64 id, parent;			/* 0: none */
	u64 pages;			/* in its store */
	u64 delta;			/* by which it differs from its parent */
	u64 state;			/* bytes */
	bool current, broken;
};

struct vm {
	u64 serial;
	pid_t owner;
	u64 memory_pages, pages_4k, pages_2m, pages_1g, table_pages;
	u64 snapshot_pages, resets, reset_pages, reset_ns;
	struct snapshot *snapshot;
	unsigned int nr_snapshots;
	struct vcpu *vcpu;
	unsigned int nr_vcpus;
};

struct sample {
	u64 ns;
	struct vm *vm;
	unsigned int nr_vms;
};

int sample_take(struct sample *s);		/* 0, or -errno */
void sample_free(struct sample *s);
const struct vm *sample_vm(const struct sample *s, u64 serial);
const struct vcpu *vm_vcpu(const struct vm *vm, unsigned int id);
const struct exit_count *vcpu_exit(const struct vcpu *v, unsigned int slot);
u64 vm_exits(const struct vm *vm);
u64 vm_mapped_bytes(const struct vm *vm);
u64 vm_snapshot_bytes(const struct vm *vm);	/* that all of them keep */
int sample_error(int err);			/* as a complaint; answers the exit status */

#endif
