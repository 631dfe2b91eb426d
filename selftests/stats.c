// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters of each VM and vCPU in debugfs: keel/vms tells the truth about who is there, also while VMs come and go, and
 * exits are timed while keel/latency is open and at no other time.
 */
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "test.h"
#include <keel.h>

#define DIR	"/sys/kernel/debug/keel/"

static char text[1 << 20];

static void read_vms(void)
{
	int fd = open(DIR "vms", O_RDONLY);
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		die("no %svms: %s", DIR, strerror(errno));
	while ((r = must(read(fd, text + n, sizeof(text) - 1 - n))) > 0)
		n += r;
	text[n] = 0;
	close(fd);
}

/* The part of the text about one VM of this process: the nth, made in this order; "" if there is none */
static const char *my_vm(unsigned int nth)
{
	static char part[1 << 16];
	char *at = text;
	int owner, len;

	while (at && *at) {
		char *next = strstr(at, "\nvm ");

		if (sscanf(at, "vm %*u owner %d", &owner) != 1)
			die("odd text: %.40s", at);
		len = next ? next + 1 - at : (int)strlen(at);
		if (owner == getpid() && !nth--) {
			snprintf(part, sizeof(part), "%.*s", len, at);
			return part;
		}
		at = next ? next + 1 : NULL;
	}
	return "";
}

/* Of the line "NAME value" or "NAME_slot value", from @at on; -1 if there is none */
static long value(const char *at, const char *name, char *rest, size_t size)
{
	size_t n = strlen(name);
	const char *p;

	for (p = at; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : p) {
		long v;

		if (strncmp(p, name, n) || (p[n] != ' ' && p[n] != '_'))
			continue;
		if (sscanf(p + n, p[n] == ' ' ? "%ld" : "_%*u %ld", &v) != 1)
			continue;
		if (rest)
			snprintf(rest, size, "%.*s", (int)strcspn(p, "\n"), p);
		return v;
	}
	return -1;
}

static long number(const char *at, const char *name)
{
	return value(at, name, NULL, 0);
}

#define LOOPS	500

static void cpuid_guest(u64 n)
{
	for (;;) {
		u64 i;

		for (i = 0; i < n; i++) {
			u32 a = 0, c = 0;

			asm volatile("cpuid" : "+a"(a), "+c"(c) : : "ebx", "edx");
		}
		guest_sync(0);
	}
}

static bool have_debugfs(void)
{
	return !access(DIR "vms", R_OK) && !strcmp(node_path(), "/dev/keel");
}

#define NEED_DEBUGFS()							\
	if (!have_debugfs())						\
		SKIP(return, "no debugfs, or another module's node")

TEST(vms_tell_what_is_there)
{
	struct vm *vm;
	struct vcpu *v;
	const char *mine, *first, *second;

	NEED_DEBUGFS();
	read_vms();
	EXPECT_STREQ("", my_vm(0));
	vm = vm_new(VM_IRQCHIP);
	vm_image(vm);
	v = vcpu_new(vm, 0);
	vcpu_new(vm, 7);
	vcpu_long(v, cpuid_guest, LOOPS);
	vcpu_sync(v);
	read_vms();
	mine = my_vm(0);
	EXPECT_EQ((long)MEM_SIZE / 4096, number(mine, "memory_pages"));
	first = strstr(mine, "\nvcpu 0\n");
	second = strstr(mine, "\nvcpu 7\n");
	ASSERT_NE(NULL, first);
	ASSERT_NE(NULL, second);
	EXPECT_LT(first, second);
	EXPECT_EQ(getpid(), number(first + 8, "thread"));
	EXPECT_EQ(0, number(second + 8, "thread"));
	EXPECT_LE(LOOPS, number(first, "exit_cpuid"));
	EXPECT_GT(LOOPS + 100, number(first, "exit_cpuid"));
	EXPECT_LE(LOOPS + 1, number(first, "exits"));
	EXPECT_EQ((long)vcpu_stat(v, "exits"), number(first, "exits"));
	EXPECT_EQ(0, number(second, "exits"));
	EXPECT_EQ(-1, number(second, "exit_cpuid"));
	EXPECT_NE(NULL, strstr(first, "\nstate userspace\n"));
	EXPECT_NE(NULL, strstr(second, "\nstate offline\n"));
	vcpu_free(v);
	vm_free(vm);
}

/* Writes as many pages as it is told */
static volatile u32 pages_to_write;

static void writing_guest(u64 me)
{
	for (;;) {
		u32 i;

		for (i = 0; i < pages_to_write; i++)
			*(volatile u64 *)(HEAP_GPA + i * 4096) += 1;
		guest_sync(0);
	}
}

/* One line of the tree; false: there is none */
static bool tree_line(const char *mine, u32 id, u32 *parent, u32 *children, long *pages, long *delta, char *rest)
{
	char name[32];
	const char *at;
	long state;

	snprintf(name, sizeof(name), "\nsnapshot %u ", id);
	at = strstr(mine, name);
	*rest = 0;
	return at && sscanf(at + strlen(name), "parent %u children %u pages %ld delta %ld state %ld%31[^\n]", parent, children, pages,
			    delta, &state, rest) >= 5 && state > 0;
}

TEST(snapshots_are_shown)
{
	u32 parent, children, id[3], i;
	struct keel_snapshot snap = { 0 };
	struct keel_reset r = { 0 };
	long pages, delta, before;
	struct vcpu *v;
	char rest[32];
	struct vm *vm;

	NEED_DEBUGFS();
	vm = vm_new(VM_PLAIN);
	v = vcpu_new(vm, 0);
	vcpu_long(v, writing_guest, 0);
	memset(gpa_hva(vm, HEAP_GPA), 1, 100 * 4096);
	for (i = 0; i < 3; i++) {
		snap.id = 0;
		must(ioctl(vm->fd, KEEL_SNAPSHOT, &snap));
		id[i] = snap.id;
		guest_var(vm, pages_to_write) = 20 + 20 * i;
		vcpu_sync(v);
		vcpu_settle(v);
	}
	read_vms();
	ASSERT_TRUE(tree_line(my_vm(0), id[0], &parent, &children, &pages, &delta, rest));
	EXPECT_EQ(0, parent);
	EXPECT_EQ(1, children);
	EXPECT_LE(20, pages);
	EXPECT_EQ(0, delta);
	EXPECT_STREQ("", rest);
	before = pages;
	ASSERT_TRUE(tree_line(my_vm(0), id[1], &parent, &children, &pages, &delta, rest));
	EXPECT_EQ(id[0], parent);
	EXPECT_EQ(before, delta);
	ASSERT_TRUE(tree_line(my_vm(0), id[2], &parent, &children, &pages, &delta, rest));
	EXPECT_EQ(0, children);
	EXPECT_LE(60, pages);
	EXPECT_STREQ(" current", rest);

	EXPECT_EQ(0, number(my_vm(0), "reset_ns"));
	r.id = id[2];
	must(ioctl(vm->fd, KEEL_RESET, &r));
	read_vms();
	EXPECT_EQ(1, number(my_vm(0), "resets"));
	EXPECT_EQ((long)r.pages, number(my_vm(0), "reset_pages"));
	EXPECT_LT((long)r.pages * 4096, number(my_vm(0), "reset_bytes"));
	EXPECT_LT(0, number(my_vm(0), "reset_ns"));
	EXPECT_EQ((u64)number(my_vm(0), "reset_ns"), fd_stat(vm->fd, "reset_ns"));
	must(ioctl(vm->fd, KEEL_DROP, id[2]));
	read_vms();
	EXPECT_FALSE(tree_line(my_vm(0), id[2], &parent, &children, &pages, &delta, rest));
	ASSERT_TRUE(tree_line(my_vm(0), id[1], &parent, &children, &pages, &delta, rest));
	EXPECT_STREQ(" current", rest);
	vm_free(vm);
}

TEST(vms_are_told_apart)
{
	struct vm *vm[3];
	long serial[3], i;

	NEED_DEBUGFS();
	for (i = 0; i < 3; i++)
		vm[i] = vm_new(VM_PLAIN);
	read_vms();
	for (i = 0; i < 3; i++)
		serial[i] = number(my_vm(i), "vm");
	EXPECT_LT(serial[0], serial[1]);
	EXPECT_LT(serial[1], serial[2]);
	vm_free(vm[1]);
	read_vms();
	EXPECT_EQ(serial[0], number(my_vm(0), "vm"));
	EXPECT_EQ(serial[2], number(my_vm(1), "vm"));
	EXPECT_STREQ("", my_vm(2));
	vm_free(vm[0]);
	vm_free(vm[2]);
	read_vms();
	EXPECT_STREQ("", my_vm(0));
}

/* A reader never meets a VM that is being taken apart. */
TEST(reading_while_vms_come_and_go)
{
	pid_t pid;
	int i, status;

	NEED_DEBUGFS();
	pid = must(fork());
	if (!pid) {
		for (i = 0; i < 300; i++) {
			struct vm *vm = vm_new(VM_IRQCHIP);
			int n;

			for (n = 0; n < 4; n++)
				vcpu_new(vm, n);
			for (n = 0; n < 4; n++)
				vcpu_free(vm->vcpu[n]);
			vm_free(vm);
		}
		_exit(0);
	}
	for (i = 0; !must(waitpid(pid, &status, WNOHANG)); i++) {
		FILE *f = fopen(DIR "stats", "r");

		while (f && fgets(text, sizeof(text), f))
			;
		if (f)
			fclose(f);
		read_vms();
	}
	EXPECT_EQ(0, status);
	EXPECT_LT(10, i);
}

/* Sum of the buckets in a latency line, and a check that they and the total time fit each other */
static long buckets(const char *line)
{
	unsigned long ns, low = 0, high = 0, sum = 0;
	const char *p = strchr(line, ' ');

	if (!p || sscanf(p, "%lu", &ns) != 1)
		return -1;
	while ((p = strchr(p + 1, ' '))) {
		unsigned int bucket, count;

		if (sscanf(p, " %u:%u", &bucket, &count) != 2 || bucket > 31)
			return -1;
		low += bucket ? (unsigned long)count << (bucket - 1) : 0;
		high += (unsigned long)count << bucket;
		sum += count;
	}
	return ns < low || ns > high ? -1 : (long)sum;
}

/* Time is taken while the file is open, for each exit, and never else. */
TEST(latency_while_it_is_wanted)
{
	struct vm *vm;
	struct vcpu *v;
	char line[1024];
	int fd, again;
	long before;

	NEED_DEBUGFS();
	vm = vm_new(VM_PLAIN);
	vm_image(vm);
	v = vcpu_new(vm, 0);
	vcpu_long(v, cpuid_guest, LOOPS);
	vcpu_sync(v);
	read_vms();
	EXPECT_EQ(-1, number(my_vm(0), "latency_cpuid"));

	fd = must(open(DIR "latency", O_RDONLY));
	vcpu_sync(v);
	read_vms();
	ASSERT_LT(0, value(my_vm(0), "latency_cpuid", line, sizeof(line)));
	EXPECT_EQ(LOOPS, buckets(line));
	/* The exit to userspace and the time there, which is as long as we like */
	vcpu_sync(v);
	sleep_ms(20);
	vcpu_sync(v);
	read_vms();
	EXPECT_LT(20 * 1000000, value(my_vm(0), "latency_io", line, sizeof(line)));
	EXPECT_LE(2, buckets(line));

	again = must(open(DIR "latency", O_RDONLY));
	close(fd);
	vcpu_sync(v);
	read_vms();
	value(my_vm(0), "latency_cpuid", line, sizeof(line));
	EXPECT_EQ(4 * LOOPS, buckets(line));

	close(again);
	vcpu_sync(v);
	read_vms();
	value(my_vm(0), "latency_cpuid", line, sizeof(line));
	EXPECT_EQ(4 * LOOPS, buckets(line));
	/* What was begun before and goes on when it is measured again is nobody's time. */
	before = value(my_vm(0), "latency_io", line, sizeof(line));
	sleep_ms(1000);
	fd = must(open(DIR "latency", O_RDONLY));
	vcpu_sync(v);
	close(fd);
	read_vms();
	EXPECT_GT(before + 1000 * 1000000, value(my_vm(0), "latency_io", line, sizeof(line)));
	vcpu_free(v);
	vm_free(vm);
}

TEST(latency_is_not_for_everybody)
{
	struct stat st;
	char c;
	int fd;

	NEED_DEBUGFS();
	ASSERT_EQ(0, stat(DIR "latency", &st));
	EXPECT_EQ(0400, st.st_mode & 0777);
	fd = must(open(DIR "latency", O_RDONLY));
	EXPECT_EQ(-1, read(fd, &c, 1));
	close(fd);
}

TEST_HARNESS_MAIN
