// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz.c - AFL's end of it: fuzz KERNEL INITRD [FILE [TIMES]].  For AFL this is a program that it starts once, asks by pipe to run
 * FILE, or standard input, again and again ("fork server"), and that answers with a process and what became of it.  There
 * is a virtual machine instead: booted once, put back to the moment before the input is parsed by KEEL_RESET.  Without AFL
 * it runs the input once, or that many times, and says what became of it and whether it was the same each time.
 *
 * In the environment: KEEL_FUZZ_NODE, /dev/keel; KEEL_FUZZ_STATS, a file that has the figures while it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libkeel.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fuzz.h"
#include "vmm.h"

#define AFL_ASKS	198	/* file descriptors of its protocol */
#define AFL_IS_TOLD	199
/* In the first word that it is told: the map has so many bytes, and not the 8 MiB that it would look at after each run. */
#define AFL_HAS_MAP_SIZE(n)	(0x80000001U | 0x40000000U | ((n) - 1) << 1)
#define MEMORY		(128UL << 20)
#define COMMAND_LINE	"quiet panic=-1 reboot=t pci=off acpi=off earlyprintk=ttyS0,keep nokaslr mitigations=off"
#define STATS_EACH	200	/* runs */

static struct vmm vmm;
static uint8_t *map;
static struct input *input;
static const char *file;	/* NULL: standard input */
static uint32_t snapshot;
static pid_t victim;

static struct {
	uint64_t runs, crashes, killed, pages, reset_ns, run_ns;
} sum;

static void must(int r, const char *what)
{
	if (r < 0)
		vmm_die("%s: %s", what, strerror(-r));
}

/* ---------------------------------------------------------------- what AFL kills when a run takes too long */

static void on_child(int sig)
{
	(void)sig;
}

/* KVM_RUN comes back when the victim dies, and nothing else does. */
static void take_signals(void)
{
	struct sigaction act = { .sa_handler = on_child };
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) in_guest = { .head.len = 8 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigaction(SIGCHLD, &act, NULL) || sigprocmask(SIG_BLOCK, &set, NULL) ||
	    ioctl(vmm.vcpu, KVM_SET_SIGNAL_MASK, &in_guest))
		vmm_die("signals: %s", strerror(errno));
}

static void new_victim(void)
{
	pid_t parent = getpid();

	victim = fork();
	if (victim < 0)
		vmm_die("fork: %s", strerror(errno));
	if (victim)
		return;
	close(AFL_ASKS);
	close(AFL_IS_TOLD);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

/* Has it been killed?  @status is what waitpid() says of it; a new one is there then. */
static bool victim_killed(int *status)
{
	static const struct timespec at_once;
	sigset_t set;

	/* Nobody else takes the signal, and KVM_RUN comes back as long as it waits. */
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigtimedwait(&set, NULL, &at_once);
	if (waitpid(victim, status, WNOHANG) != victim)
		return false;
	new_victim();
	return true;
}

/* ---------------------------------------------------------------- a run */

static int figures(char *s, size_t size)
{
	return snprintf(s, size, "runs %" PRIu64 "\ncrashes %" PRIu64 "\nkilled %" PRIu64
			"\npages_per_reset %.1f\nreset_us %.1f\nguest_us %.1f\n", sum.runs, sum.crashes, sum.killed,
			(double)sum.pages / sum.runs, sum.reset_ns / 1e3 / sum.runs, sum.run_ns / 1e3 / sum.runs);
}

static void write_stats(void)
{
	static int fd = -1;
	static bool tried;
	char line[256];
	int n;

	if (!tried && getenv("KEEL_FUZZ_STATS"))
		fd = open(getenv("KEEL_FUZZ_STATS"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	tried = true;
	if (fd < 0 || !sum.runs)
		return;
	n = figures(line, sizeof(line));
	if (pwrite(fd, line, n, 0) != n || ftruncate(fd, n))
		vmm_die("KEEL_FUZZ_STATS: %s", strerror(errno));
}

static void put_input(void)
{
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	static uint8_t buf[INPUT_MAX];
	ssize_t n = 1, size = 0;

	if (fd < 0)
		vmm_die("%s: %s", file, strerror(errno));
	/* AFL's file is the same each time; where it stands in it, AFL does not care. */
	if (!file)
		lseek(fd, 0, SEEK_SET);
	for (; n && size < INPUT_MAX; size += n) {
		n = read(fd, buf + size, INPUT_MAX - size);
		if (n < 0)
			vmm_die("%s: %s", file ? file : "standard input", strerror(errno));
	}
	if (file)
		close(fd);
	must(keel_mark_dirty(vmm.vm, INPUT_GPA, offsetof(struct input, data) + size, 0), "KEEL_MARK_DIRTY");
	input->size = size;
	memcpy(input->data, buf, size);
}

/* As waitpid() would have it of a process */
static int run(void)
{
	uint64_t began, pages, t;
	int status = 0;
	uint32_t call;

	/* At the start of a run, and not at its end: the map is among what is put back, and AFL looks at it in between. */
	began = vmm_now();
	must(keel_reset(vmm.vm, snapshot, 0, &pages), "KEEL_RESET");
	t = vmm_now();
	sum.reset_ns += t - began;
	sum.pages += pages;
	put_input();
	t = vmm_now();
	for (;;) {
		switch (vmm_run(&vmm)) {
		case VMM_INTERRUPTED:
			if (!victim || !victim_killed(&status))
				continue;
			sum.killed++;
			break;
		case VMM_CALL:
			call = vmm_call(&vmm);
			if (call != CALL_DONE && call & CALL_SIGNAL)
				status = call & 0x7f;
			else if (call != CALL_DONE)
				vmm_die("the target says %#x", call);
			break;
		case VMM_SHUTDOWN:	/* it took its kernel with it */
			status = SIGABRT;
			break;
		case VMM_ERROR:
			exit(1);
		}
		break;
	}
	sum.run_ns += vmm_now() - t;
	sum.runs++;
	sum.crashes += status && !WIFEXITED(status) && WTERMSIG(status) != SIGKILL;
	if (sum.runs % STATS_EACH == 0 || (status && WTERMSIG(status) == SIGKILL))
		write_stats();
	return status;
}

/* ---------------------------------------------------------------- to the moment before */

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		vmm_die("no memory: %s", strerror(errno));
	return p;
}

/* AFL's own map, if there is an AFL */
static void *coverage_map(void)
{
	const char *id = getenv("__AFL_SHM_ID");
	struct shmid_ds ds;
	void *p;

	if (!id)
		return memory(MAP_SIZE);
	if (shmctl(atoi(id), IPC_STAT, &ds) || ds.shm_segsz < MAP_SIZE)
		vmm_die("AFL's map is not there, or has less than %u bytes (AFL_MAP_SIZE)", MAP_SIZE);
	p = shmat(atoi(id), NULL, 0);
	if (p == (void *)-1)
		vmm_die("AFL's map: %s", strerror(errno));
	return p;
}

static void boot(const char *kernel, const char *initrd)
{
	const char *node = getenv("KEEL_FUZZ_NODE") ?: KEEL_NODE;
	uint64_t began = vmm_now();
	struct keel_info info;
	enum vmm_exit exit;

	vmm_new(&vmm, node, MEMORY);
	must(keel_info(vmm.node, &info), "KEEL_GET_INFO");
	if (!(info.features & KEEL_FEATURE_SNAPSHOT))
		vmm_die("no snapshots on this machine");
	vmm.console = stderr;
	map = coverage_map();
	input = memory(SHARED_SIZE - MAP_SIZE);
	vmm_memory(&vmm, SHARED_GPA, map, MAP_SIZE);
	vmm_memory(&vmm, INPUT_GPA, input, SHARED_SIZE - MAP_SIZE);
	vmm_linux(&vmm, kernel, initrd, COMMAND_LINE);
	do
		exit = vmm_run(&vmm);
	while (exit == VMM_INTERRUPTED);
	if (exit != VMM_CALL || vmm_call(&vmm) != CALL_READY)
		vmm_die("the guest does not get to where it parses");
	vmm_settle(&vmm);
	memset(map, 0, MAP_SIZE);
	must(keel_snapshot(vmm.vm, 0, &snapshot), "KEEL_SNAPSHOT");
	fprintf(stderr, "fuzz: booted in %.1f s\n", (vmm_now() - began) / 1e9);
}

static int alone(unsigned int times)
{
	static uint8_t first[MAP_SIZE];
	unsigned int i, edges = 0;
	int status = run();
	char text[256];

	memcpy(first, map, MAP_SIZE);
	for (i = 1; i < times; i++) {
		if (run() != status || memcmp(first, map, MAP_SIZE)) {
			printf("run %u is unlike the first\n", i);
			return 1;
		}
	}
	if (times > 1) {
		figures(text, sizeof(text));
		fputs(text, stdout);
	}
	for (i = 0; i < MAP_SIZE; i++)
		edges += map[i] != 0;
	if (status)
		printf("crashed: %s; %u edges\n", strsignal(WTERMSIG(status)), edges);
	else
		printf("ok; %u edges\n", edges);
	return status ? 128 + WTERMSIG(status) : 0;
}

int main(int argc, char **argv)
{
	uint32_t word = AFL_HAS_MAP_SIZE(MAP_SIZE);
	int status;

	if (argc < 3 || argc > 5) {
		fprintf(stderr, "usage: %s KERNEL INITRD [FILE [TIMES]]\n", argv[0]);
		return 2;
	}
	file = argv[3];
	boot(argv[1], argv[2]);
	/* Without AFL nobody has that file open. */
	if (write(AFL_IS_TOLD, &word, sizeof(word)) != sizeof(word))
		return alone(argc > 4 ? atoi(argv[4]) : 1);
	take_signals();
	/* A victim has no use for it, and a copy on write would cost every page once more. */
	if (madvise(vmm.memory, vmm.size, MADV_DONTFORK))
		vmm_die("MADV_DONTFORK: %s", strerror(errno));
	new_victim();
	while (read(AFL_ASKS, &word, sizeof(word)) == sizeof(word)) {
		/* One that AFL killed when its run was over already is no run's. */
		victim_killed(&status);
		word = victim;
		if (write(AFL_IS_TOLD, &word, sizeof(word)) != sizeof(word))
			break;
		word = run();
		if (write(AFL_IS_TOLD, &word, sizeof(word)) != sizeof(word))
			break;
	}
	write_stats();
	kill(victim, SIGKILL);
	return 0;
}
