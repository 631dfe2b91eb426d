// SPDX-License-Identifier: GPL-2.0-only
/*
 * init.c - the guest's init.  Up to CALL_READY it is the template's; from there on it is that of one VM, which runs one
 * program and ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/random.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "sandbox.h"

#define PROGRAM		"/run/program"
#define GENERATION	"/run/generation"
#define NOBODY		65534
#define PROCESSES	64	/* that the program may have at a time */
#define FILES		256
#define SMALL_DISK	"mode=1777,size=32m,nr_inodes=4096"

static void write_file(const char *path, const void *data, size_t size, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t done = 0;
	ssize_t n;

	guest_must(fd >= 0, path);
	for (; done < size; done += n) {
		n = write(fd, (const char *)data + done, size - done);
		guest_must(n > 0, path);
	}
	close(fd);
}

/* How many processes the kernel has killed for their memory */
static unsigned long oom_kills(void)
{
	FILE *f = fopen("/proc/vmstat", "re");
	unsigned long n = 0;
	char line[128];

	guest_must(f != NULL, "/proc/vmstat");
	while (fgets(line, sizeof(line), f) && sscanf(line, "oom_kill %lu", &n) != 1)
		;
	fclose(f);
	return n;
}

/* ---------------------------------------------------------------- the program */

static void become_nobody(void)
{
	const struct rlimit processes = { PROCESSES, PROCESSES }, files = { FILES, FILES }, none = { 0, 0 };

	guest_must(!setrlimit(RLIMIT_NPROC, &processes) && !setrlimit(RLIMIT_NOFILE, &files) && !setrlimit(RLIMIT_CORE, &none),
		   "setrlimit");
	guest_must(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY), "setuid");
}

static pid_t start(int out)
{
	static char *const env[] = { "PATH=/bin", "HOME=/tmp", "LANG=C", NULL };
	char *const program[] = { PROGRAM, NULL }, *const script[] = { "/bin/sh", PROGRAM, NULL };
	pid_t pid = fork();
	int null;

	guest_must(pid >= 0, "fork");
	if (pid)
		return pid;
	null = open("/dev/null", O_RDONLY);
	guest_must(null >= 0 && dup2(null, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2, "standard files");
	if (null > 2)
		close(null);
	guest_must(setsid() >= 0 && !chdir("/tmp"), "/tmp");
	become_nobody();
	execve(PROGRAM, program, env);
	/* A script that does not say whose, as every shell takes it */
	if (errno == ENOEXEC)
		execve(script[0], script, env);
	dprintf(2, "%s\n", strerror(errno));
	_exit(126);
}

/* What there is to be read of its output; false: and that was more than there is room for */
static bool take_output(struct job *job, int out)
{
	uint8_t one;
	ssize_t n;

	while (job->output_size < OUTPUT_MAX) {
		n = read(out, job->output + job->output_size, OUTPUT_MAX - job->output_size);
		if (n <= 0)
			return true;
		job->output_size += n;
	}
	return read(out, &one, 1) <= 0;
}

static void run(struct job *job)
{
	unsigned long killed = oom_kills();
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };
	int out[2], status = 0;
	bool ended = false;
	pid_t pid;

	write_file(PROGRAM, job->program, job->size, 0555);
	job->end = END_RAN;
	job->output_size = 0;
	guest_must(!pipe2(out, O_CLOEXEC) && !fcntl(out[0], F_SETFL, O_NONBLOCK), "pipe");
	pid = start(out[1]);
	close(out[1]);
	p[0].fd = out[0];
	p[1].fd = syscall(SYS_pidfd_open, pid, 0);
	guest_must(p[1].fd >= 0, "pidfd_open");
	/* It is over when the program is, whoever else still has the pipe's end. */
	while (!ended) {
		guest_must(poll(p, 2, -1) > 0, "poll");
		ended = p[1].revents;
		if (!take_output(job, out[0])) {
			job->end = END_OUTPUT;
			break;
		}
		if (p[0].revents & POLLHUP)
			p[0].fd = -1;
	}
	if (ended)
		guest_must(waitpid(pid, &status, 0) == pid, "waitpid");
	if (job->end == END_RAN && oom_kills() != killed)
		job->end = END_MEMORY;
	job->status = status;
	close(p[1].fd);
	close(out[0]);
}

/* ---------------------------------------------------------------- one VM of many */

/* All VMs of a template have the same random numbers ahead of them, and its time of day. */
static void renew(struct job *job)
{
	struct {
		struct rand_pool_info head;
		uint8_t data[sizeof(job->entropy)];
	} pool = { .head = { .entropy_count = 8 * sizeof(pool.data), .buf_size = sizeof(pool.data) } };
	struct timespec now = { .tv_sec = job->seconds, .tv_nsec = job->ns };
	char text[2 * sizeof(job->generation) + 2];
	unsigned int i;
	int fd;

	memcpy(pool.head.buf, job->entropy, sizeof(job->entropy));
	explicit_bzero(job->entropy, sizeof(job->entropy));
	fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	/* Into the pool, and from there into the generator, whose key is another then for each CPU */
	guest_must(fd >= 0 && !ioctl(fd, RNDADDENTROPY, &pool) && !ioctl(fd, RNDRESEEDCRNG), "/dev/urandom");
	close(fd);
	explicit_bzero(&pool, sizeof(pool));
	for (i = 0; i < sizeof(job->generation); i++)
		sprintf(text + 2 * i, "%02x", job->generation[i]);
	strcat(text, "\n");
	write_file(GENERATION, text, strlen(text), 0444);
	guest_must(!clock_settime(CLOCK_REALTIME, &now), "clock_settime");
}

int main(void)
{
	static const char warm[] = "echo warm | awk '{ print $1 }' > /tmp/warm && cat /tmp/warm && rm /tmp/warm";
	static struct job first = { .size = sizeof(warm) - 1 };
	struct job *job = guest_memory(SHARED_GPA, JOB_SIZE);

	guest_must(!mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "/proc");
	guest_must(!mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"), "/run");
	guest_must(!mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, SMALL_DISK), "/tmp");
	/* What each program needs is there before the first. */
	memcpy(first.program, warm, sizeof(warm));
	run(&first);
	guest_must(first.end == END_RAN && !first.status && first.output_size == 5 && !memcmp(first.output, "warm\n", 5), "a shell");

	guest_call(CALL_READY);
	renew(job);
	guest_call(CALL_STARTS);
	run(job);
	guest_call(CALL_DONE);
	guest_must(0, "the host has let it go on");
	return 1;
}
