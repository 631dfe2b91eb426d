// SPDX-License-Identifier: GPL-2.0-only
/*
 * vm-create NODE [SECONDS]: create a VM with one vCPU on that node, keep it for a while; says how it went.
 * vm-create NODE cap N: what KVM_CHECK_EXTENSION answers for that capability.
 * vm-create NODE caps: what it answers of all numbers, those with 0 left out: asked of the node, of the VM.
 * vm-create NODE snapshots: a VM with a tree of three snapshots, 1 - 2 and 1 - 3, the first of which keeps five pages and the
 * last three; it is reset to that until it is killed, so that there is something to be seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <keel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int snapshots(int vm)
{
	struct kvm_userspace_memory_region slot = { .memory_size = 1 << 20 };
	struct keel_snapshot s[3] = { 0 };
	struct keel_range first = { .size = 5 * 4096 }, last = { .gpa = 0x10000, .size = 3 * 4096 };
	struct keel_reset back = { 0 };
	void *mem = mmap(NULL, slot.memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	slot.userspace_addr = (unsigned long)mem;
	if (mem == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) || ioctl(vm, KEEL_SNAPSHOT, &s[0]) ||
	    ioctl(vm, KEEL_MARK_DIRTY, &first))
		return 1;
	memset(mem, 1, first.size);
	back.id = s[0].id;
	if (ioctl(vm, KEEL_SNAPSHOT, &s[1]) || ioctl(vm, KEEL_RESET, &back) || ioctl(vm, KEEL_SNAPSHOT, &s[2]))
		return 1;
	puts("ok");
	fflush(stdout);
	do {
		usleep(1000);
		back = (struct keel_reset){ .id = s[2].id };
	} while (!ioctl(vm, KEEL_MARK_DIRTY, &last) && !ioctl(vm, KEEL_RESET, &back));
	return 1;
}

int main(int argc, char **argv)
{
	int node, vm;

	if (argc < 2)
		return 2;
	node = open(argv[1], O_RDWR | O_CLOEXEC);
	vm = node < 0 ? -1 : ioctl(node, KVM_CREATE_VM, 0);
	if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
		puts(strerrorname_np(errno));
		return 1;
	}
	if (argc > 3 && !strcmp(argv[2], "cap")) {
		printf("%d\n", ioctl(vm, KVM_CHECK_EXTENSION, atoi(argv[3])));
		return 0;
	}
	if (argc > 2 && !strcmp(argv[2], "caps")) {
		int n, of_node, of_vm;

		for (n = 0; n < 1024; n++) {
			of_node = ioctl(node, KVM_CHECK_EXTENSION, n);
			of_vm = ioctl(vm, KVM_CHECK_EXTENSION, n);
			if (of_node || of_vm)
				printf("%d %d %d\n", n, of_node, of_vm);
		}
		return 0;
	}
	if (argc > 2 && !strcmp(argv[2], "snapshots")) {
		int r = snapshots(vm);

		puts(strerrorname_np(errno));
		return r;
	}
	puts("ok");
	fflush(stdout);
	if (argc > 2)
		sleep(atoi(argv[2]));
	return 0;
}
