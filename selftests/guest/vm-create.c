// SPDX-License-Identifier: GPL-2.0-only
/*
 * vm-create NODE [SECONDS]: create a VM with one vCPU on that node, keep it for a while; says how it went.
 * vm-create NODE cap N: what KVM_CHECK_EXTENSION answers for that capability.
 * vm-create NODE caps: what it answers of all numbers, those with 0 left out: asked of the node, of the VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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
	puts("ok");
	fflush(stdout);
	if (argc > 2)
		sleep(atoi(argv[2]));
	return 0;
}
