// SPDX-License-Identifier: GPL-2.0-only
/*
 * server.c - HTTP, on 127.0.0.1 alone: sandbox [-v] [-p PORT] [-n AT_ONCE] [-t SECONDS] [-d NODE] KERNEL INITRD.  What is
 * posted to /run is a program, and its output is the answer; / shows how long that takes.  With -v guests' kernels may
 * write to standard error.  HTTP itself is libmicrohttpd's, with a thread for each connection.
 */
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <keel.h>
#include "sandbox.h"
#include "vmm.h"

#define CONNECTIONS	64
#define IDLE_SECONDS	30
#define DROPPED_AFTER	(16 * PROGRAM_MAX)	/* of a program that is too large, whose end nobody waits for */

static struct config config = { .node = KEEL_NODE, .at_once = 4, .limit_ms = 2000 };
static int control;

/* Of each child that there is */
struct place {
	uint64_t job;		/* its number; 0: none */
	uint64_t answered;	/* when; 0: not yet */
};

static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER;
static struct place *places;	/* config.at_once */
static uint64_t jobs;

/* What is sent, made of malloc()'s */
struct answer {
	unsigned int status;
	const char *type;
	char *text;
	size_t size;
	char end[32];		/* how the program ended; "": there was none */
};

struct request {
	const struct page *page;
	struct answer answer;	/* that is known before the program is there */
	uint8_t *program;
	size_t size;		/* that came, with what was not kept */
};

struct page {
	const char *url, *method;
	const char *type;
	char *(*text)(void);
};

static const struct page pages[] = {
	{ "/run", MHD_HTTP_METHOD_POST, "text/plain; charset=utf-8", NULL },
	{ "/", MHD_HTTP_METHOD_GET, "text/html; charset=utf-8", page_html },
	{ "/figures", MHD_HTTP_METHOD_GET, "text/html; charset=utf-8", page_figures },
	{ "/plot.svg", MHD_HTTP_METHOD_GET, "image/svg+xml", page_plot },
	{ "/stats", MHD_HTTP_METHOD_GET, "text/plain; charset=utf-8", page_stats },
};

static void __attribute__((format(printf, 3, 4))) say(struct answer *a, unsigned int status, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vasprintf(&a->text, format, ap);
	va_end(ap);
	if (n < 0)
		a->text = NULL;
	a->status = status;
	a->size = n < 0 ? 0 : n;
	a->type = "text/plain; charset=utf-8";
}

static void say_too_large(struct answer *a)
{
	say(a, MHD_HTTP_CONTENT_TOO_LARGE, "a program has %u bytes at most\n", PROGRAM_MAX);
}

/* ---------------------------------------------------------------- places */

static struct place *find_place(uint64_t job)
{
	struct place *p;

	for (p = places; p < places + config.at_once; p++)
		if (p->job == job)
			return p;
	return NULL;
}

/* The new job's number; 0: there are as many as may be */
static uint64_t take_place(void)
{
	struct place *p;
	uint64_t job = 0;

	pthread_mutex_lock(&places_lock);
	p = find_place(0);
	if (p) {
		job = ++jobs;
		*p = (struct place){ .job = job };
		count_start();
	}
	pthread_mutex_unlock(&places_lock);
	return job;
}

static void has_answered(uint64_t job)
{
	struct place *p;

	pthread_mutex_lock(&places_lock);
	p = find_place(job);
	if (p)
		p->answered = vmm_now();
	pthread_mutex_unlock(&places_lock);
}

/* A place is free when its child is gone, whether its client has heard the answer by then or not. */
static void leave_place(uint64_t job)
{
	struct place *p;

	pthread_mutex_lock(&places_lock);
	p = find_place(job);
	if (p) {
		count_end(p->answered ? vmm_now() - p->answered : 0);
		p->job = 0;
	}
	pthread_mutex_unlock(&places_lock);
}

/* ---------------------------------------------------------------- a job */

/* The program, in a socket, and the socket's other end to the template: answers ours, or an errno as a negative number */
static int send_job(uint64_t job, const struct request *r)
{
	char room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec part = { .iov_base = &job, .iov_len = sizeof(job) };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int s[2], error = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s))
		return -errno;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &s[1], sizeof(int));
	if (send(s[0], r->program, r->size, MSG_NOSIGNAL) < 0 || sendmsg(control, &m, MSG_NOSIGNAL) < 0)
		error = errno;
	close(s[1]);
	if (!error)
		return s[0];
	close(s[0]);
	return -error;
}

static void decode_verdict(struct answer *a, const struct verdict *v)
{
	if (v->error)
		say(a, MHD_HTTP_SERVICE_UNAVAILABLE, "no process for one more: %s\n", strerror(v->error));
	else if (v->late)
		say(a, MHD_HTTP_GATEWAY_TIMEOUT, "the program was not done in %.1f s\n", config.limit_ms / 1e3);
	else if (WIFSIGNALED(v->status))
		say(a, MHD_HTTP_BAD_GATEWAY, "the virtual machine monitor died: %s\n", strsignal(WTERMSIG(v->status)));
	else
		say(a, MHD_HTTP_BAD_GATEWAY, "the virtual machine monitor gave up (its standard error says why)\n");
}

static void decode_reply(struct answer *a, const struct reply *r, const uint8_t *output, size_t size)
{
	switch (r->end) {
	case END_RAN:
		if (WIFSIGNALED(r->status))
			snprintf(a->end, sizeof(a->end), "signal %d", WTERMSIG(r->status));
		else
			snprintf(a->end, sizeof(a->end), "exit %d", WEXITSTATUS(r->status));
		a->status = MHD_HTTP_OK;
		a->type = "text/plain; charset=utf-8";
		a->text = malloc(size + 1);
		a->size = a->text ? size : 0;
		if (a->text)
			memcpy(a->text, output, size);
		return;
	case END_OUTPUT:
		say(a, MHD_HTTP_CONTENT_TOO_LARGE, "the program's output has more than %u bytes\n", OUTPUT_MAX);
		return;
	case END_MEMORY:
		say(a, MHD_HTTP_INSUFFICIENT_STORAGE, "the program wanted more memory than there is\n");
		return;
	default:
		say(a, MHD_HTTP_BAD_GATEWAY, "the guest has ended\n");
	}
}

static void run(struct request *r, struct answer *a)
{
	struct {
		union {
			struct reply reply;
			struct verdict verdict;
			uint32_t what;
		};
		uint8_t output[OUTPUT_MAX];
	} *message;
	uint64_t began = vmm_now(), ns[FIGURE_WHOLE + 1];
	uint64_t job;
	ssize_t n;
	int s;

	if (!r->size) {
		say(a, MHD_HTTP_BAD_REQUEST, "no program\n");
		return;
	}
	if (r->size > PROGRAM_MAX) {
		say_too_large(a);
		return;
	}
	job = take_place();
	if (!job) {
		say(a, MHD_HTTP_SERVICE_UNAVAILABLE, "%u programs run, and no more may\n", config.at_once);
		return;
	}
	message = malloc(sizeof(*message));
	s = message ? send_job(job, r) : -ENOMEM;
	if (s < 0) {
		leave_place(job);
		say(a, MHD_HTTP_SERVICE_UNAVAILABLE, "no process for one more: %s\n", strerror(-s));
		free(message);
		return;
	}
	do
		n = recv(s, message, sizeof(*message), 0);
	while (n < 0 && errno == EINTR);
	close(s);
	has_answered(job);
	if (n >= (ssize_t)sizeof(message->reply) && message->what == IS_REPLY) {
		decode_reply(a, &message->reply, message->output, n - sizeof(message->reply));
		if (a->status == MHD_HTTP_OK) {
			ns[FIGURE_FORK] = message->reply.fork_ns;
			ns[FIGURE_FIRST] = message->reply.first_ns;
			ns[FIGURE_PROGRAM] = message->reply.program_ns;
			ns[FIGURE_WHOLE] = vmm_now() - began;
			count_times(ns);
		}
	} else if (n == sizeof(message->verdict) && message->what == IS_VERDICT) {
		decode_verdict(a, &message->verdict);
	} else {
		say(a, MHD_HTTP_BAD_GATEWAY, "no answer\n");
	}
	free(message);
}

/* ---------------------------------------------------------------- HTTP */

static bool is_here(const char *host)
{
	static const char *const names[] = { "127.0.0.1", "localhost" };
	unsigned int i;
	size_t n;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		n = strlen(names[i]);
		if (!strncmp(host, names[i], n) && (!host[n] || host[n] == ':'))
			return true;
	}
	return false;
}

/*
 * A browser on this machine is asked for things by all sorts of pages: those are not this server's, and not to be
 * served; nor are those of other servers on this machine, which are called by another port.
 */
static bool is_strangers(struct MHD_Connection *c)
{
	static const char scheme[] = "http://";
	const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
	const char *origin = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);

	return (host && !is_here(host)) ||
	       (origin && (!host || strncmp(origin, scheme, strlen(scheme)) || strcmp(origin + strlen(scheme), host)));
}

static const struct page *find_page(struct MHD_Connection *c, const char *url, const char *method, struct answer *a)
{
	const struct page *p;

	if (is_strangers(c)) {
		say(a, MHD_HTTP_FORBIDDEN, "this server is 127.0.0.1\n");
		return NULL;
	}
	for (p = pages; strcmp(p->url, url); p++) {
		if (p == pages + sizeof(pages) / sizeof(pages[0]) - 1) {
			say(a, MHD_HTTP_NOT_FOUND, "there is /, /run, /stats and /plot.svg\n");
			return NULL;
		}
	}
	if (strcmp(method, p->method) && (strcmp(method, MHD_HTTP_METHOD_HEAD) || strcmp(p->method, MHD_HTTP_METHOD_GET)))
		say(a, MHD_HTTP_METHOD_NOT_ALLOWED, "%s is for %s\n", p->url, p->method);
	return p;
}

static void show(const struct page *p, struct answer *a)
{
	a->status = MHD_HTTP_OK;
	a->type = p->type;
	a->text = p->text();
	a->size = a->text ? strlen(a->text) : 0;
}

static enum MHD_Result send_answer(struct MHD_Connection *c, const struct page *p, struct answer *a)
{
	struct MHD_Response *response = NULL;
	enum MHD_Result r;

	if (a->text)
		response = MHD_create_response_from_buffer(a->size, a->text, MHD_RESPMEM_MUST_FREE);
	if (!response)
		return MHD_NO;
	a->text = NULL;		/* the response's from now on */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (a->end[0])
		MHD_add_response_header(response, "X-Sandbox-End", a->end);
	if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, p->method);
	if (a->status == MHD_HTTP_SERVICE_UNAVAILABLE)
		MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
	r = MHD_queue_response(c, a->status, response);
	MHD_destroy_response(response);
	if (p == pages || a->status != MHD_HTTP_OK)	/* who looks at the figures is none of them */
		count_status(a->status);
	return r;
}

static void completed(void *cls, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode code)
{
	struct request *r = *context;

	(void)cls, (void)c, (void)code;
	if (r) {
		free(r->answer.text);
		free(r->program);
	}
	free(r);
	*context = NULL;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
			      const char *data, size_t *size, void **context)
{
	struct request *r = *context;
	const char *length;

	(void)cls, (void)version;
	if (!r) {		/* the header is there */
		r = *context = calloc(1, sizeof(*r));
		if (!r)
			return MHD_NO;
		r->page = find_page(c, url, method, &r->answer);
		length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
		if (!r->answer.status && length && strtoull(length, NULL, 10) > DROPPED_AFTER) {
			say_too_large(&r->answer);
			return send_answer(c, r->page, &r->answer);
		}
		return MHD_YES;
	}
	if (*size) {		/* and some of the rest; who is refused is told when all is read, or might not hear it */
		if (!r->program)
			r->program = malloc(PROGRAM_MAX);
		if (!r->program)
			return MHD_NO;
		if (r->size <= PROGRAM_MAX && *size <= PROGRAM_MAX - r->size)
			memcpy(r->program + r->size, data, *size);
		r->size += *size;
		*size = 0;
		return r->size <= DROPPED_AFTER ? MHD_YES : MHD_NO;
	}
	if (r->answer.status)
		;
	else if (r->page->text)
		show(r->page, &r->answer);
	else
		run(r, &r->answer);
	return send_answer(c, r->page, &r->answer);
}

/* ---------------------------------------------------------------- */

static unsigned long number(const char *text, unsigned long most, const char *what)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (!*text || *end || n > most)
		vmm_die("%s: not a number up to %lu: %s", what, most, text);
	return n;
}

/* As the template says that children are gone; until a signal comes */
static void free_places(int signals)
{
	struct pollfd p[2] = { { .fd = control, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	uint64_t job;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			vmm_die("poll: %s", strerror(errno));
		if (p[1].revents)
			return;
		if (!p[0].revents)
			continue;
		if (recv(control, &job, sizeof(job), 0) != sizeof(job))
			vmm_die("the template has ended");
		leave_place(job);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const union MHD_DaemonInfo *info;
	struct MHD_Daemon *daemon;
	unsigned int port = 8080;
	uint64_t boot_ns;
	sigset_t set;
	pid_t child;
	int o, signals;

	while ((o = getopt(argc, argv, "vp:n:t:d:")) != -1) {
		switch (o) {
		case 'v':
			config.verbose = true;
			break;
		case 'p':
			port = number(optarg, 65535, "port");
			break;
		case 'n':
			config.at_once = number(optarg, 256, "at once");
			break;
		case 't':
			config.limit_ms = 1000 * number(optarg, 3600, "seconds");
			break;
		case 'd':
			config.node = optarg;
			break;
		default:
			optind = argc;
		}
	}
	if (argc - optind != 2 || !config.at_once || !config.limit_ms) {
		fprintf(stderr, "usage: %s [-v] [-p PORT] [-n AT_ONCE] [-t SECONDS] [-d NODE] KERNEL INITRD\n", argv[0]);
		return 2;
	}
	config.kernel = argv[optind];
	config.initrd = argv[optind + 1];
	/* Before there are threads, and requests of which it could have a copy */
	child = template_start(&config, &control);
	if (recv(control, &boot_ns, sizeof(boot_ns), 0) != sizeof(boot_ns))
		return 1;	/* it has said why */
	page_setup(&config, boot_ns);
	places = calloc(config.at_once, sizeof(*places));
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);		/* the threads', too */
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (!places || signals < 0)
		vmm_die("the server: %s", strerror(errno));
	here.sin_port = htons(port);
	daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ERROR_LOG, port,
				  NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &here, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
				  MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
	if (!daemon)
		vmm_die("127.0.0.1:%u: %s", port, strerror(errno));
	info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
	printf("booted in %.1f s; http://127.0.0.1:%u/\n", boot_ns / 1e9, info ? info->port : port);
	fflush(stdout);
	free_places(signals);
	MHD_stop_daemon(daemon);
	close(control);		/* at which it ends */
	return waitpid(child, NULL, 0) == child ? 0 : 1;
}
