// SPDX-License-Identifier: GPL-2.0-only
/*
 * crash NODE[,NODE] KERNEL INITRD COMMAND-LINE crash|kexec|reboot: on each CPU that this process may use a vCPU of a VM of its own
 * spins, or two of them, one of each node; then the kernel crashes into that one, is replaced by it, or reboots, without a word to anybody.
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/kvm.h>
#include <linux/reboot.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MUST(x) ({ __typeof__(x) r_ = (x); if (r_ < 0) { perror(#x); exit(1); } r_; })

/* incw 0x2000; jmp: in real mode, in one page of code and one of data */
static const unsigned char spin[] = { 0xff, 0x06, 0x00, 0x20, 0xeb, 0xfa };

struct one {
	int cpu;
	const char *node;
	volatile unsigned short *count;
};

static void *vcpu(void *arg)
{
	struct one *one = arg;
	int vm, fd;
	unsigned char *mem;
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = 0x1000, .memory_size = 0x2000 };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(one->cpu, &set);
	MUST(sched_setaffinity(0, sizeof(set), &set));
	vm = MUST(ioctl(MUST(open(one->node, O_RDWR)), KVM_CREATE_VM, 0));
	fd = MUST(ioctl(vm, KVM_CREATE_VCPU, 0));
	mem = mmap(NULL, slot.memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(mem, spin, sizeof(spin));
	slot.userspace_addr = (unsigned long)mem;
	MUST(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	MUST(ioctl(fd, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	MUST(ioctl(fd, KVM_SET_SREGS, &sregs));
	MUST(ioctl(fd, KVM_SET_REGS, &regs));
	one->count = (void *)(mem + 0x1000);
	/* Until there is no virtualization any more, at a kexec or a reboot. */
	ioctl(fd, KVM_RUN, 0);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int kernel, initrd, cpu, trigger, i, n = 0;
	const char *nodes[2];
	struct one *all[2 * CPU_SETSIZE] = { };
	const char *how = argc == 6 ? argv[5] : "";
	cpu_set_t set;
	pthread_t t;

	if (argc != 6)
		return 2;
	nodes[0] = strtok(argv[1], ",");
	nodes[1] = strtok(NULL, ",");
	if (strcmp(how, "reboot")) {
		kernel = MUST(open(argv[2], O_RDONLY));
		initrd = MUST(open(argv[3], O_RDONLY));
		MUST(syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[4]) + 1, argv[4],
			     strcmp(how, "crash") ? 0UL : KEXEC_FILE_ON_CRASH));
	}
	trigger = MUST(open("/proc/sysrq-trigger", O_WRONLY));
	sched_getaffinity(0, sizeof(set), &set);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		for (i = 0; i < 2 && nodes[i]; i++) {
			all[n] = calloc(1, sizeof(**all));
			all[n]->cpu = cpu;
			all[n]->node = nodes[i];
			pthread_create(&t, NULL, vcpu, all[n++]);
		}
	}
	for (i = 0; i < n; i++)
		while (!all[i]->count || !*all[i]->count)
			usleep(1000);
	printf("# %d guests run on %d CPUs: %s\n", n, CPU_COUNT(&set), how);
	fflush(stdout);
	sync();
	usleep(100000);
	if (!strcmp(how, "crash"))
		MUST(write(trigger, "c", 1));
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
		strcmp(how, "kexec") ? LINUX_REBOOT_CMD_RESTART : LINUX_REBOOT_CMD_KEXEC, NULL);
	perror(how);
	return 1;
}
