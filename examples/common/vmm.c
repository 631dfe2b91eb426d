// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmm.c - see vmm.h.  The kernel is loaded by the x86 boot protocol's 64-bit entry (Documentation/arch/x86/boot.rst of the
 * kernel's source): pages mapped one to one, flat segments, RSI at the zero page.
 */
#include <asm/bootparam.h>
#include <asm/e820.h>
#include <errno.h>
#include <fcntl.h>
#include <libkeel.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vmm.h"

#define ZERO_PAGE	0x7000UL
#define GDT		0x6000UL
#define PAGE_TABLES	0x9000UL	/* PML4, PDPT, four page directories */
#define COMMAND_LINE	0x20000UL
#define LOW_END		0x9f000UL
#define KERNEL		0x1000000UL
#define MAX_SIZE	0xc0000000UL	/* the LAPIC's hole is above */
#define TSS_GPA		0xfffbd000UL	/* of Intel CPUs that run real mode as a task */

#define PORT_SERIAL	0x3f8

#define PTE_TABLE	0x3		/* present, writable */
#define PTE_LARGE	0x83
#define BOOT_CS		0x10
#define BOOT_DS		0x18

void vmm_die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

uint64_t vmm_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static int must(int r, const char *what)
{
	if (r < 0)
		vmm_die("%s: %s", what, strerror(errno));
	return r;
}
#define MUST(expr)	must(expr, #expr)

void vmm_memory(struct vmm *v, uint64_t gpa, void *memory, size_t size)
{
	struct kvm_userspace_memory_region r = {
		.slot = v->slots++, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)memory,
	};

	MUST(ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &r));
}

/* As the host's CPU */
static void set_cpuid(struct vmm *v)
{
	const unsigned int room = 256;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + room * sizeof(c->entries[0]));

	if (!c)
		vmm_die("no memory");
	c->nent = room;
	MUST(ioctl(v->node, KVM_GET_SUPPORTED_CPUID, c));
	MUST(ioctl(v->vcpu, KVM_SET_CPUID2, c));
	free(c);
}

static void open_node(struct vmm *v, const char *node)
{
	v->node = keel_open(node);
	if (v->node < 0)
		vmm_die("%s: %s", node, strerror(-v->node));
}

static void open_vcpu(struct vmm *v)
{
	v->vcpu = MUST(ioctl(v->vm, KVM_CREATE_VCPU, 0));
	v->run_size = MUST(ioctl(v->node, KVM_GET_VCPU_MMAP_SIZE, 0));
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
	if (v->run == MAP_FAILED)
		vmm_die("kvm_run: %s", strerror(errno));
}

void vmm_new(struct vmm *v, const char *node, size_t size)
{
	struct kvm_pit_config pit = { 0 };

	memset(v, 0, sizeof(*v));
	if (size < 2 * KERNEL || size > MAX_SIZE || size % 4096)
		vmm_die("a guest cannot have %zu bytes of memory", size);
	open_node(v, node);
	v->vm = MUST(ioctl(v->node, KVM_CREATE_VM, 0));
	MUST(ioctl(v->vm, KVM_SET_TSS_ADDR, TSS_GPA));
	MUST(ioctl(v->vm, KVM_CREATE_IRQCHIP, 0));
	MUST(ioctl(v->vm, KVM_CREATE_PIT2, &pit));
	v->size = size;
	v->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->memory == MAP_FAILED)
		vmm_die("no memory for the guest: %s", strerror(errno));
	madvise(v->memory, size, MADV_HUGEPAGE);
	vmm_memory(v, 0, v->memory, size);
	open_vcpu(v);
	set_cpuid(v);
}

/* The whole of a file at guest physical address @at, which must end at @end; answers its size */
static size_t load(struct vmm *v, int fd, const char *path, off_t from, uint64_t at, uint64_t end)
{
	struct stat st;
	size_t size, done = 0;
	ssize_t n;

	MUST(fstat(fd, &st));
	if (st.st_size <= from || (uint64_t)(st.st_size - from) > end - at)
		vmm_die("%s: %s", path, st.st_size <= from ? "nothing to load" : "does not fit into the guest's memory");
	size = st.st_size - from;
	while (done < size) {
		n = pread(fd, v->memory + at + done, size - done, from + done);
		if (n <= 0)
			vmm_die("%s: %s", path, n ? strerror(errno) : "is shorter than it was");
		done += n;
	}
	return size;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		vmm_die("%s: %s", path, strerror(errno));
	return fd;
}

/* 64-bit mode, with what the boot protocol wants in the segments */
static void start_at(struct vmm *v, uint64_t rip)
{
	struct kvm_segment code = { .selector = BOOT_CS, .limit = 0xffffffff, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .selector = BOOT_DS, .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = rip, .rsi = ZERO_PAGE, .rflags = 2 };
	uint64_t *gdt = (void *)(v->memory + GDT), *table = (void *)(v->memory + PAGE_TABLES);
	struct kvm_sregs s;
	unsigned int i;

	gdt[BOOT_CS / 8] = 0x00af9b000000ffff;
	gdt[BOOT_DS / 8] = 0x00cf93000000ffff;
	table[0] = (PAGE_TABLES + 4096) | PTE_TABLE;
	for (i = 0; i < 4; i++)
		table[512 + i] = (PAGE_TABLES + (2 + i) * 4096) | PTE_TABLE;
	for (i = 0; i < 4 * 512; i++)
		table[2 * 512 + i] = ((uint64_t)i << 21) | PTE_LARGE;
	MUST(ioctl(v->vcpu, KVM_GET_SREGS, &s));
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	s.gdt.base = GDT;
	s.gdt.limit = 4 * 8 - 1;
	s.cr3 = PAGE_TABLES;
	s.cr4 |= 1 << 5;			/* PAE */
	s.efer |= 1 << 8 | 1 << 10;		/* LME, LMA */
	s.cr0 |= 1U << 31 | 1;			/* PG, PE */
	MUST(ioctl(v->vcpu, KVM_SET_SREGS, &s));
	MUST(ioctl(v->vcpu, KVM_SET_REGS, &regs));
}

void vmm_linux(struct vmm *v, const char *kernel, const char *initrd, const char *command_line)
{
	struct boot_params *zero = (void *)(v->memory + ZERO_PAGE);
	struct setup_header h;
	uint64_t room, initrd_at;
	int fd = open_file(kernel);
	size_t size;
	struct stat st;
	off_t setup;

	if (pread(fd, &h, sizeof(h), offsetof(struct boot_params, hdr)) != sizeof(h) || h.header != 0x53726448 ||
	    h.version < 0x20c || !(h.xloadflags & XLF_KERNEL_64))
		vmm_die("%s: not a Linux kernel with a 64-bit entry", kernel);
	if (strlen(command_line) >= h.cmdline_size)
		vmm_die("the command line is too long");
	setup = ((h.setup_sects ? h.setup_sects : 4) + 1) * 512;
	load(v, fd, kernel, setup, KERNEL, v->size);
	close(fd);
	room = KERNEL + h.init_size;		/* it unpacks itself into that */

	fd = open_file(initrd);
	MUST(fstat(fd, &st));
	if ((uint64_t)st.st_size > v->size || room > v->size - st.st_size)
		vmm_die("kernel and initrd do not fit into the guest's memory");
	initrd_at = (v->size - st.st_size) & ~4095UL;
	if (initrd_at < room)
		vmm_die("kernel and initrd do not fit into the guest's memory");
	size = load(v, fd, initrd, 0, initrd_at, v->size);
	close(fd);

	strcpy((char *)v->memory + COMMAND_LINE, command_line);
	memset(zero, 0, sizeof(*zero));
	zero->hdr = h;
	zero->hdr.type_of_loader = 0xff;
	zero->hdr.cmd_line_ptr = COMMAND_LINE;
	zero->hdr.ramdisk_image = initrd_at;
	zero->hdr.ramdisk_size = size;
	zero->e820_entries = 2;
	zero->e820_table[0] = (struct boot_e820_entry){ .addr = 0, .size = LOW_END, .type = E820_RAM };
	zero->e820_table[1] = (struct boot_e820_entry){ .addr = 1 << 20, .size = v->size - (1 << 20), .type = E820_RAM };
	start_at(v, KERNEL + 0x200);
}

static void port(struct vmm *v)
{
	struct kvm_run *r = v->run;
	uint8_t *data = (uint8_t *)r + r->io.data_offset;
	size_t bytes = (size_t)r->io.size * r->io.count;

	if (r->io.direction == KVM_EXIT_IO_OUT) {
		if (r->io.port == PORT_SERIAL && v->console) {
			fwrite(data, 1, bytes, v->console);
			fflush(v->console);
		}
		return;
	}
	/* The line status says that the sender is empty; nothing else is there. */
	memset(data, r->io.port == PORT_SERIAL + 5 ? 0x60 : 0xff, bytes);
}

uint32_t vmm_call(const struct vmm *v)
{
	uint32_t what;

	memcpy(&what, v->run->mmio.data, sizeof(what));
	return what;
}

enum vmm_exit vmm_run(struct vmm *v)
{
	for (;;) {
		if (ioctl(v->vcpu, KVM_RUN, 0) < 0) {
			if (errno == EINTR)
				return VMM_INTERRUPTED;
			if (errno == EAGAIN)
				continue;
			fprintf(stderr, "KVM_RUN: %s\n", strerror(errno));
			return VMM_ERROR;
		}
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
			port(v);
			break;
		case KVM_EXIT_MMIO:
			if (v->run->mmio.phys_addr == CALL_GPA && v->run->mmio.is_write && v->run->mmio.len == 4)
				return VMM_CALL;
			if (!v->run->mmio.is_write)
				memset(v->run->mmio.data, 0xff, sizeof(v->run->mmio.data));
			break;
		case KVM_EXIT_SHUTDOWN:
		case KVM_EXIT_SYSTEM_EVENT:
			return VMM_SHUTDOWN;
		default:
			fprintf(stderr, "exit %u of the vCPU, of which this program knows nothing\n", v->run->exit_reason);
			return VMM_ERROR;
		}
	}
}

void vmm_settle(struct vmm *v)
{
	v->run->immediate_exit = 1;
	if (!ioctl(v->vcpu, KVM_RUN, 0) || errno != EINTR)
		vmm_die("KVM_RUN does not come back at once");
	v->run->immediate_exit = 0;
}

void vmm_freeze(struct vmm *v)
{
	int r;

	vmm_settle(v);
	r = keel_get_state(v->vm, KEEL_WITH_SETUP, &v->state, &v->state_size, NULL);
	if (r)
		vmm_die("KEEL_GET_STATE: %s", strerror(-r));
	/* A child would share it: it is the vCPU's, not memory. */
	MUST(madvise(v->run, v->run_size, MADV_DONTFORK));
}

void vmm_thaw(struct vmm *v, const char *node)
{
	struct keel_section bad;

	close(v->vcpu);
	close(v->vm);
	close(v->node);
	open_node(v, node);
	v->vm = keel_create_vm_from(v->node, v->state, v->state_size, KEEL_WITH_MEMSLOTS, &bad);
	if (v->vm < 0)
		vmm_die("KEEL_CREATE_VM_FROM: %s (section %u)", strerror(-v->vm), bad.id);
	open_vcpu(v);
}
