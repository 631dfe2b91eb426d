// SPDX-License-Identifier: GPL-2.0-only
/*
 * template.c - a process that boots a guest once, and forks a child for each job.  The child makes a VM of its own of what
 * fork(2) has copied (vmm_thaw()), runs one program in it, answers and ends.
 *
 * Programs and answers do not come by here: the socket in which they are is handed on.  So a child has nothing of other
 * jobs.  What the template knows of its children is in memory that they do not get.
 */
#include <errno.h>
#include <fcntl.h>
#include <libkeel.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "sandbox.h"
#include "vmm.h"

#define MEMORY		(128UL << 20)
/* Nothing is in the guest's kernel that its one program should not know: it has no use for mitigations. */
#define COMMAND_LINE	"quiet panic=-1 reboot=t pci=off acpi=off earlyprintk=ttyS0,keep mitigations=off"

static struct vmm vmm;
static struct job *job;
static const struct config *config;
static int control;	/* a socket, to the server */

struct child {
	pid_t pid;		/* 0: none */
	uint64_t job;
	int socket;
	bool late;
	uint64_t deadline;
};

static struct child *children;	/* config->at_once */

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		vmm_die("no memory: %s", strerror(errno));
	return p;
}

/* ---------------------------------------------------------------- a child */

#define SOCKET	3	/* its files, beside the three of everybody */
#define VCPU	4

static void move_fd(int from, int to)
{
	if (dup2(from, to) != to)
		vmm_die("dup2: %s", strerror(errno));
}

/* Of the template's files, and of other jobs' sockets among them, none is left. */
static void keep_files(int socket)
{
	int s = fcntl(socket, F_DUPFD, 64), v = fcntl(vmm.vcpu, F_DUPFD, 64);

	if (s < 0 || v < 0)
		vmm_die("files: %s", strerror(errno));
	move_fd(s, SOCKET);
	move_fd(v, VCPU);
	vmm.vcpu = VCPU;
	if (close_range(VCPU + 1, ~0U, 0))
		vmm_die("close_range: %s", strerror(errno));
}

/* Run the vCPU, answer, complain, look at the clock, end.  Who gets from the guest into this process gets no further. */
static void keep_calls(void)
{
#define LOAD(field)	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(value, yes, no)	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RESULT(what)	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##what)
#define MAY(nr)		IF(nr, 0, 1), RESULT(ALLOW)
	static struct sock_filter filter[] = {
		LOAD(arch), IF(AUDIT_ARCH_X86_64, 1, 0), RESULT(KILL_PROCESS),
		LOAD(nr), MAY(SYS_sendmsg), MAY(SYS_write), MAY(SYS_clock_gettime), MAY(SYS_exit_group),
		IF(SYS_ioctl, 0, 3), LOAD(args[1]), MAY(KVM_RUN),
		RESULT(KILL_PROCESS),
	};
	const struct sock_fprog prog = { .len = sizeof(filter) / sizeof(filter[0]), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0))
		vmm_die("seccomp: %s", strerror(errno));
}

/* The program, and what no other guest has */
static void fill_job(void)
{
	struct timespec t;
	ssize_t n;

	n = recv(SOCKET, job->program, sizeof(job->program), 0);
	if (n < 0)
		vmm_die("no program: %s", strerror(errno));
	job->size = n;
	if (getrandom(job->entropy, sizeof(job->entropy), 0) != sizeof(job->entropy) ||
	    getrandom(job->generation, sizeof(job->generation), 0) != sizeof(job->generation))
		vmm_die("getrandom: %s", strerror(errno));
	clock_gettime(CLOCK_REALTIME, &t);
	job->seconds = t.tv_sec;
	job->ns = t.tv_nsec;
}

/* The job is the guest's memory by now: what it says of sizes is not believed. */
static void answer(const struct reply *reply)
{
	struct iovec part[2] = {
		{ .iov_base = (void *)reply, .iov_len = sizeof(*reply) },
		{ .iov_base = job->output, .iov_len = job->output_size < OUTPUT_MAX ? job->output_size : OUTPUT_MAX },
	};
	const struct msghdr m = { .msg_iov = part, .msg_iovlen = reply->end == END_GUEST ? 1 : 2 };

	/* If nobody wants it any more, so be it. */
	sendmsg(SOCKET, &m, MSG_NOSIGNAL);
}

static void __attribute__((noreturn)) run_child(pid_t parent, int socket, uint64_t began)
{
	struct reply reply = { .what = IS_REPLY };
	uint64_t t;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(1);
	vmm_thaw(&vmm, config->node);
	t = vmm_now();
	reply.fork_ns = t - began;
	keep_files(socket);
	fill_job();
	keep_calls();
	t = vmm_now();
	while (!reply.end) {
		switch (vmm_run(&vmm)) {
		case VMM_INTERRUPTED:
			break;
		case VMM_CALL:
			if (vmm_call(&vmm) == CALL_STARTS) {
				reply.first_ns = vmm_now() - t;
			} else if (vmm_call(&vmm) == CALL_DONE) {
				reply.end = job->end;
				reply.status = job->status;
				reply.program_ns = vmm_now() - t - reply.first_ns;
				if (reply.end < END_RAN || reply.end > END_MEMORY)
					reply.end = END_GUEST;
			}
			break;
		case VMM_SHUTDOWN:
			reply.end = END_GUEST;
			break;
		case VMM_ERROR:
			_exit(1);
		}
	}
	answer(&reply);
	_exit(0);
}

/* ---------------------------------------------------------------- children come and go */

static struct child *free_place(void)
{
	unsigned int i;

	for (i = 0; i < config->at_once; i++)
		if (!children[i].pid)
			return &children[i];
	return NULL;
}

/* There is no such child, or no more: say so to who waits for its answer, and to who counts. */
static void end_job(const struct child *c, int error, int status)
{
	const struct verdict v = { .what = IS_VERDICT, .late = c->late, .error = error, .status = status };

	/* Not to be held up by a child that has sent what nobody reads */
	send(c->socket, &v, sizeof(v), MSG_DONTWAIT | MSG_NOSIGNAL);
	if (c->socket >= 0)
		close(c->socket);
	if (send(control, &c->job, sizeof(c->job), MSG_NOSIGNAL) != sizeof(c->job))
		exit(0);	/* the server is gone */
}

static void start(struct child *c, uint64_t job, int socket)
{
	uint64_t began = vmm_now();
	pid_t parent = getpid(), pid = -1;

	if (socket >= 0)
		pid = fork();
	else
		errno = EMFILE;
	if (!pid)
		run_child(parent, socket, began);
	*c = (struct child){
		.pid = pid, .job = job, .socket = socket, .deadline = began + config->limit_ms * 1000000ULL,
	};
	if (pid < 0) {
		end_job(c, errno, 0);
		c->pid = 0;
	}
}

static void reap(void)
{
	unsigned int i;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < config->at_once && children[i].pid != pid; i++)
			;
		if (i == config->at_once)
			continue;
		end_job(&children[i], 0, status);
		children[i].pid = 0;
	}
}

/* Kills those whose time is over; answers in how many ms the next one's is, or -1. */
static int look_at_clock(void)
{
	uint64_t now = vmm_now(), next = UINT64_MAX;
	struct child *c;

	for (c = children; c < children + config->at_once; c++) {
		if (!c->pid || c->late)
			continue;
		if (c->deadline <= now) {
			c->late = true;
			kill(c->pid, SIGKILL);
		} else if (c->deadline < next) {
			next = c->deadline;
		}
	}
	return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000 + 1);
}

/* The next job's number, and socket, -1 if there are too many files; false: the server is gone */
static bool next_job(uint64_t *job, int *socket)
{
	char room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec part = { .iov_base = job, .iov_len = sizeof(*job) };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *c;

	if (recvmsg(control, &m, MSG_CMSG_CLOEXEC) != sizeof(*job))
		return false;
	c = CMSG_FIRSTHDR(&m);
	*socket = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(socket, CMSG_DATA(c), sizeof(*socket));
	return true;
}

static void serve(void)
{
	struct pollfd p[2] = { { .fd = control }, { .events = POLLIN } };
	struct signalfd_siginfo info;
	sigset_t set;
	uint64_t job;
	int socket;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		vmm_die("sigprocmask: %s", strerror(errno));
	p[1].fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (p[1].fd < 0)
		vmm_die("signalfd: %s", strerror(errno));
	for (;;) {
		p[0].events = free_place() ? POLLIN : 0;
		if (poll(p, 2, look_at_clock()) < 0) {
			if (errno != EINTR)
				vmm_die("poll: %s", strerror(errno));
			continue;
		}
		if (p[1].revents && read(p[1].fd, &info, sizeof(info)) < 0)
			vmm_die("signalfd: %s", strerror(errno));
		reap();
		if (p[0].revents) {
			if (!next_job(&job, &socket))
				exit(0);	/* and all children with it */
			start(free_place(), job, socket);
		}
	}
}

/* ---------------------------------------------------------------- the guest, once */

static void boot(void)
{
	struct keel_info info;
	enum vmm_exit exit;
	int r;

	vmm_new(&vmm, config->node, MEMORY);
	r = keel_info(vmm.node, &info);
	if (r)
		vmm_die("KEEL_GET_INFO: %s", strerror(-r));
	if (!(info.features & KEEL_FEATURE_CREATE_FROM))
		vmm_die("no VMs are made from a state on this machine");
	vmm.console = stderr;
	job = memory(JOB_SIZE);
	vmm_memory(&vmm, SHARED_GPA, job, JOB_SIZE);
	vmm_linux(&vmm, config->kernel, config->initrd, COMMAND_LINE);
	do
		exit = vmm_run(&vmm);
	while (exit == VMM_INTERRUPTED);
	if (exit != VMM_CALL || vmm_call(&vmm) != CALL_READY)
		vmm_die("the guest does not get to where it runs a program");
	vmm_freeze(&vmm);
	if (!config->verbose)
		vmm.console = NULL;
}

pid_t template_start(const struct config *cfg, int *server)
{
	uint64_t began = vmm_now(), took;
	int s[2], null;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s))
		vmm_die("socketpair: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		vmm_die("fork: %s", strerror(errno));
	if (pid) {
		close(s[1]);
		*server = s[0];
		return pid;
	}
	close(s[0]);
	control = s[1];
	config = cfg;
	/* It ends when the server does, and not by a terminal's signal before. */
	signal(SIGINT, SIG_IGN);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		vmm_die("/dev/null: %s", strerror(errno));
	move_fd(null, 0);
	move_fd(null, 1);
	children = memory(config->at_once * sizeof(*children));
	if (madvise(children, config->at_once * sizeof(*children), MADV_DONTFORK))
		vmm_die("MADV_DONTFORK: %s", strerror(errno));
	boot();
	took = vmm_now() - began;
	if (send(control, &took, sizeof(took), MSG_NOSIGNAL) < 0)
		exit(0);
	serve();
	exit(1);
}
