// SPDX-License-Identifier: GPL-2.0-only
/*
 * stat.c - keel stat: the exits of all VMs as a table that lives, or once, or as CSV.
 *
 * Two samples make rows: what happened between them, added up by the keys that were asked for (VM, vCPU, reason).
 * Exits are timed as long as we hold debugfs keel/latency open; however we end, that ends too.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "tool.h"

enum { BY_VM = 1, BY_VCPU = 2, BY_REASON = 4 };

static const struct {
	const char *name;
	unsigned int by;
} groupings[] = {
	{ "reason", BY_REASON }, { "vm", BY_VM }, { "vcpu", BY_VM | BY_VCPU },
	{ "vm,reason", BY_VM | BY_REASON }, { "vcpu,reason", BY_VM | BY_VCPU | BY_REASON },
};

static const char *const sort_keys[] = { "rate", "total", "time", "avg", "p99", "name" };
enum { SORT_RATE, SORT_TOTAL, SORT_TIME, SORT_AVG, SORT_P99, SORT_NAME };

static struct {
	unsigned int grouping, sort;
	bool reverse, paused, help, utf8;
	u64 vm;			/* only this one, 0: all */
	double interval;
	int latency;		/* file, or -1 */
} view = { .interval = 1, .latency = -1 };

struct row {
	u64 vm;
	pid_t owner;
	unsigned int vcpu;
	const char *reason, *state;
	u64 total, count, ns, timed, memory;
	u32 bucket[BUCKETS];
	unsigned int p50, p99, max;	/* buckets */
};

struct table {
	struct row *row;
	unsigned int n;
	double seconds;
	u64 count, ns, fast, user, irqs;	/* of all rows */
	unsigned int vms, vcpus;
};

/* ---------------------------------------------------------------- rows */

static struct row *find_row(struct table *t, unsigned int by, const struct vm *vm, const struct vcpu *v, const char *reason)
{
	struct row *r;
	unsigned int i;

	for (i = 0; i < t->n; i++) {
		r = &t->row[i];
		if ((!(by & BY_VM) || r->vm == vm->serial) && (!(by & BY_VCPU) || r->vcpu == v->id) &&
		    (!(by & BY_REASON) || !strcmp(r->reason, reason)))
			return r;
	}
	t->row = need(realloc(t->row, (t->n + 1) * sizeof(*r)));
	r = &t->row[t->n++];
	memset(r, 0, sizeof(*r));
	r->vm = vm->serial;
	r->owner = vm->owner;
	r->vcpu = v->id;
	r->state = v->state;
	r->reason = reason;
	r->memory = vm->memory_pages << 12;
	return r;
}

static void add_exit(struct row *r, const struct exit_count *e, const struct exit_count *was)
{
	unsigned int i;

	r->total += e->count;
	r->count += e->count - (was ? was->count : 0);
	r->ns += e->ns - (was ? was->ns : 0);
	for (i = 0; i < BUCKETS; i++) {
		u32 n = e->bucket[i] - (was ? was->bucket[i] : 0);

		r->bucket[i] += n;
		r->timed += n;
	}
}

/* The bucket in which the one of so many lies */
static unsigned int percentile(const struct row *r, double part)
{
	u64 at = r->timed * part, sum = 0;
	unsigned int i;

	for (i = 0; i < BUCKETS - 1; i++) {
		sum += r->bucket[i];
		if (sum > at)
			break;
	}
	return i;
}

static double average(const struct row *r)
{
	return r->timed ? (double)r->ns / r->timed : 0;
}

static int compare(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	double d = 0;

	switch (view.sort) {
	case SORT_RATE:
		d = (double)y->count - (double)x->count;
		break;
	case SORT_TIME:
		d = (double)y->ns - (double)x->ns;
		break;
	case SORT_AVG:
		d = average(y) - average(x);
		break;
	case SORT_P99:
		d = (double)y->p99 - (double)x->p99;
		break;
	}
	if (!d && view.sort != SORT_NAME)
		d = (double)y->total - (double)x->total;
	if (!d)
		d = strcmp(x->reason, y->reason);
	if (!d)
		d = (double)x->vm - (double)y->vm ? (double)x->vm - (double)y->vm : (double)x->vcpu - (double)y->vcpu;
	d = view.reverse ? -d : d;
	return (d > 0) - (d < 0);
}

static void add_vcpu(struct table *t, unsigned int by, const struct vm *vm, const struct vcpu *v, const struct vcpu *was)
{
	unsigned int i;

	t->vcpus++;
	t->fast += v->fast_exits - (was ? was->fast_exits : 0);
	t->user += v->user_exits - (was ? was->user_exits : 0);
	t->irqs += v->injected_irqs - (was ? was->injected_irqs : 0);
	if (!(by & BY_REASON))
		find_row(t, by, vm, v, "");	/* also without an exit so far */
	for (i = 0; i < v->nr_exits; i++) {
		const struct exit_count *e = &v->exit[i];
		struct row *r = find_row(t, by, vm, v, by & BY_REASON ? e->name : "");

		add_exit(r, e, vcpu_exit(was, e->slot));
	}
}

static void make_table(struct table *t, const struct sample *before, const struct sample *after)
{
	unsigned int by = groupings[view.grouping].by, i, j;

	memset(t, 0, sizeof(*t));
	t->seconds = (after->ns - before->ns) / 1e9;
	for (i = 0; i < after->nr_vms; i++) {
		const struct vm *vm = &after->vm[i], *was = sample_vm(before, vm->serial);

		if (view.vm && vm->serial != view.vm)
			continue;
		t->vms++;
		for (j = 0; j < vm->nr_vcpus; j++)
			add_vcpu(t, by, vm, &vm->vcpu[j], vm_vcpu(was, vm->vcpu[j].id));
	}
	for (i = 0; i < t->n; i++) {
		struct row *r = &t->row[i];

		r->p50 = percentile(r, 0.5);
		r->p99 = percentile(r, 0.99);
		for (j = 0; j < BUCKETS; j++)
			r->max = r->bucket[j] ? j : r->max;
		t->count += r->count;
		t->ns += r->ns;
	}
	if (t->n)
		qsort(t->row, t->n, sizeof(*t->row), compare);
}

/* ---------------------------------------------------------------- text */

/* Lines longer than the terminal would break the picture. */
static char line[1024];
static int columns, lines_left;

static void put(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *fmt, ...)
{
	size_t n = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
}

static void end_line(void)
{
	int seen = 0;
	char *p;

	if (lines_left == 0) {
		line[0] = 0;
		return;
	}
	/* A character of UTF-8 is one column wide, an escape sequence none. */
	for (p = line; *p; p++) {
		if (*p == '\033') {
			p += strcspn(p, "m");
			continue;
		}
		if (((unsigned char)*p & 0xc0) == 0x80)
			continue;
		if (columns && seen == columns)
			break;
		seen++;
	}
	*p = 0;
	fputs(line, stdout);
	fputs(columns ? "\033[0m\033[K\r\n" : "\n", stdout);
	line[0] = 0;
	if (lines_left > 0)
		lines_left--;
}

static const char *time_text(double ns)
{
	static char text[8][16];
	static unsigned int next;
	char *s = text[next++ % 8];

	if (ns < 1e3)
		snprintf(s, 16, "%.0fns", ns);
	else if (ns < 1e6)
		snprintf(s, 16, "%.*fus", ns < 1e4 ? 1 : 0, ns / 1e3);
	else if (ns < 1e9)
		snprintf(s, 16, "%.*fms", ns < 1e7 ? 1 : 0, ns / 1e6);
	else
		snprintf(s, 16, "%.1fs", ns / 1e9);
	return s;
}

/* From less than half a microsecond to eight milliseconds and more, a column for each doubling */
#define SHAPE_FIRST	8
#define SHAPE_LAST	23

static const char *shape(const struct row *r)
{
	static const char *const bars[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	static const char plain[] = " .:-=+*#@";
	static char text[(SHAPE_LAST - SHAPE_FIRST + 1) * 4 + 1];
	u64 column[SHAPE_LAST - SHAPE_FIRST + 1] = { 0 }, most = 1;
	unsigned int i, at;

	for (i = 0; i < BUCKETS; i++) {
		at = (i < SHAPE_FIRST ? SHAPE_FIRST : i > SHAPE_LAST ? SHAPE_LAST : i) - SHAPE_FIRST;
		column[at] += r->bucket[i];
		most = column[at] > most ? column[at] : most;
	}
	text[0] = 0;
	for (i = 0; i < ARRAY_SIZE(column); i++) {
		at = (column[i] * 8 + most - 1) / most;
		if (view.utf8)
			strcat(text, bars[at]);
		else
			snprintf(text + i, 2, "%c", plain[at]);
	}
	return text;
}

static const char *bar(double part)
{
	static const char *const eighths[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
	static char text[64];
	unsigned int n = part * 80 + 0.5, i;

	text[0] = 0;
	for (i = 0; i < n / 8; i++)
		strcat(text, view.utf8 ? "█" : "#");
	if (view.utf8)
		strcat(text, eighths[n % 8]);
	return text;
}

static void put_rows(const struct table *t, bool color)
{
	unsigned int by = groupings[view.grouping].by, i;
	bool timed = view.latency >= 0;

	for (i = 0; i < t->n; i++)
		timed |= t->row[i].timed > 0;
	put("%s", color ? "\033[7m" : "");
	if (by & BY_VM)
		put("%4s %8s %-16s ", "VM", "PID", "NAME");
	if (by & BY_VCPU)
		put("%4s %-9s ", "VCPU", "STATE");
	if (by == BY_VM)
		put("%8s ", "MEM MB");
	if (by & BY_REASON)
		put("%-14s ", "REASON");
	put("%14s %12s %6s ", "TOTAL", "EXITS/S", "SHARE");
	if (timed)
		put("%6s %8s %8s %8s %8s  %-16s", "TIME", "AVG", "P50<", "P99<", "MAX<", "250ns  8us  8ms");
	end_line();
	for (i = 0; i < t->n; i++) {
		const struct row *r = &t->row[i];
		char name[64];

		put("%s", color && !r->count ? "\033[2m" : "");
		if (by & BY_VM) {
			process_name(r->owner, name, sizeof(name));
			put("%4llu %8d %-16.16s ", (unsigned long long)r->vm, r->owner, name);
		}
		if (by & BY_VCPU)
			put("%4u %-9.9s ", r->vcpu, r->state);
		if (by == BY_VM)
			put("%8llu ", (unsigned long long)r->memory >> 20);
		if (by & BY_REASON)
			put("%-14.14s ", r->reason);
		put("%14llu %12.0f %5.1f%% ", (unsigned long long)r->total, r->count / t->seconds,
		    t->count ? 100.0 * r->count / t->count : 0);
		if (timed && r->timed)
			put("%5.1f%% %8s %8s %8s %8s  %s%s", t->ns ? 100.0 * r->ns / t->ns : 0, time_text(average(r)),
			    time_text(1ull << r->p50), time_text(1ull << r->p99), time_text(1ull << r->max),
			    color ? "\033[32m" : "", shape(r));
		else if (!timed && color)
			put(" \033[32m%s", bar(t->count ? (double)r->count / t->count : 0));
		end_line();
	}
}

static void put_summary(const struct table *t)
{
	put("%u VM%s, %u vCPU%s: %.0f exits/s, %.1f%% answered in the fast loop, %.0f to userspace/s, %.0f interrupts/s",
	    t->vms, t->vms == 1 ? "" : "s", t->vcpus, t->vcpus == 1 ? "" : "s", t->count / t->seconds,
	    t->count ? 100.0 * t->fast / t->count : 0, t->user / t->seconds, t->irqs / t->seconds);
}

static void csv_text(const char *s)
{
	putchar('"');
	for (; *s; s++)
		printf(*s == '"' ? "\"\"" : "%c", *s);
	putchar('"');
}

static void put_csv(const struct table *t)
{
	unsigned int by = groupings[view.grouping].by, i;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	for (i = 0; i < t->n; i++) {
		const struct row *r = &t->row[i];
		char name[64];

		printf("%lld.%03ld,", (long long)now.tv_sec, now.tv_nsec / 1000000);
		if (by & BY_VM) {
			process_name(r->owner, name, sizeof(name));
			printf("%llu,%d,", (unsigned long long)r->vm, r->owner);
			csv_text(name);
		} else {
			printf(",,");
		}
		if (by & BY_VCPU)
			printf(",%u", r->vcpu);
		else
			putchar(',');
		printf(",%s,%llu,%.1f,", r->reason, (unsigned long long)r->total, r->count / t->seconds);
		if (r->timed)
			printf("%llu,%.0f,%llu,%llu,%llu\n", (unsigned long long)r->timed, average(r), 1ull << r->p50,
			       1ull << r->p99, 1ull << r->max);
		else
			printf("0,,,,\n");
	}
	fflush(stdout);
}

/* ---------------------------------------------------------------- the live picture */

static struct termios saved;
static volatile sig_atomic_t ended, resized;

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else
		ended = 1;
}

static void screen_on(void)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct termios raw;

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	sigaction(SIGWINCH, &act, NULL);
	tcgetattr(STDIN_FILENO, &saved);
	raw = saved;
	raw.c_lflag &= ~(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs("\033[?1049h\033[?25l", stdout);	/* a screen of our own, without a cursor */
}

static void screen_off(void)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static int latency_on(void)
{
	if (view.latency < 0)
		view.latency = open(DEBUGFS_KEEL "/latency", O_RDONLY | O_CLOEXEC);
	return view.latency < 0 ? -errno : 0;
}

static void latency_off(void)
{
	if (view.latency >= 0)
		close(view.latency);
	view.latency = -1;
}

static void draw(const struct table *t, const char *said)
{
	static const char *const help[] = {
		"", "  g        group by reason, VM, vCPU, or two of them", "  s r      sort by the next column; the other way round",
		"  Tab 0    one VM after the other; all of them", "  l        time the exits, or stop that (it costs each exit a little)",
		"  + -      longer, shorter intervals", "  Space    hold the picture", "  q        leave",
		"", "  TIME is from an exit to the next entry, with what userspace did or how long the vCPU slept in between;",
		"  P50 and P99 are upper bounds. The graph counts exits by their time, a column for each doubling.",
	};
	struct winsize ws = { 0 };
	unsigned int i;

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
	columns = ws.ws_col ? ws.ws_col : 80;
	lines_left = ws.ws_row ? ws.ws_row - 1 : 23;
	fputs("\033[H", stdout);
	put("\033[1mkeel stat\033[0m  ");
	put_summary(t);
	end_line();
	put("\033[2mby %s, sorted by %s%s, every %.1f s%s%s%s   h: help\033[0m", groupings[view.grouping].name,
	    sort_keys[view.sort], view.reverse ? " (reversed)" : "", view.interval, view.vm ? ", one VM" : "",
	    view.latency >= 0 ? ", timed" : "", view.paused ? ", HELD" : "");
	if (said)
		put("   \033[31m%s", said);
	end_line();
	if (view.help)
		for (i = 0; i < ARRAY_SIZE(help); i++) {
			put("%s", help[i]);
			end_line();
		}
	end_line();
	if (t->vms) {
		put_rows(t, true);
	} else {
		put("no VM runs on keel: keel exec -- qemu-system-x86_64 -accel kvm ...");
		end_line();
	}
	fputs("\033[J", stdout);
	fflush(stdout);
}

static void next_vm(const struct sample *s)
{
	unsigned int i;

	for (i = 0; i < s->nr_vms; i++)
		if (s->vm[i].serial > view.vm) {
			view.vm = s->vm[i].serial;
			return;
		}
	view.vm = 0;
}

static const char *on_key(char key, const struct sample *s)
{
	int err;

	switch (key) {
	case 'q':
		ended = 1;
		break;
	case 'h':
	case '?':
		view.help = !view.help;
		break;
	case 'g':
		view.grouping = (view.grouping + 1) % ARRAY_SIZE(groupings);
		break;
	case 's':
		view.sort = (view.sort + 1) % ARRAY_SIZE(sort_keys);
		break;
	case 'r':
		view.reverse = !view.reverse;
		break;
	case '\t':
		next_vm(s);
		break;
	case '0':
		view.vm = 0;
		break;
	case ' ':
		view.paused = !view.paused;
		break;
	case '+':
		view.interval = view.interval < 60 ? view.interval * 2 : view.interval;
		break;
	case '-':
		view.interval = view.interval > 0.2 ? view.interval / 2 : view.interval;
		break;
	case 'l':
		if (view.latency >= 0) {
			latency_off();
		} else {
			err = latency_on();
			if (err)
				return strerror(-err);
		}
		break;
	}
	return NULL;
}

/* Wait for the interval's end; a key is answered at once, with the numbers there are. */
static void live_wait(const struct sample *before, const struct sample *after)
{
	u64 until = now_ns() + view.interval * 1e9;
	const char *said = NULL;
	struct table t;

	while (!ended) {
		struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
		u64 now = now_ns();
		char key;

		make_table(&t, before, after);
		draw(&t, said);
		free(t.row);
		if (now >= until && !view.paused)
			return;
		if (poll(&in, 1, view.paused ? -1 : (int)((until - now) / 1000000 + 1)) > 0) {
			if (read(STDIN_FILENO, &key, 1) != 1)
				ended = 1;
			else
				said = on_key(key, after);
		} else if (!resized && !ended) {
			return;
		}
		resized = 0;
	}
}

static int live(struct sample *before)
{
	struct timespec first = { .tv_nsec = 200000000 };
	struct sample after;
	int err;

	nanosleep(&first, NULL);
	err = sample_take(&after);
	if (err)
		return sample_error(err);
	screen_on();
	while (!ended) {
		live_wait(before, &after);
		if (ended)
			break;
		sample_free(before);
		*before = after;
		err = sample_take(&after);
		if (err)
			break;
	}
	screen_off();
	return err ? sample_error(err) : EXIT_OK;
}

/* ---------------------------------------------------------------- one after the other */

static int plain(struct sample *before, bool csv, u64 times)
{
	u64 i;

	lines_left = -1;
	if (csv)
		puts("time,vm,pid,name,vcpu,reason,total,rate,timed,avg_ns,p50_below_ns,p99_below_ns,max_below_ns");
	for (i = 0; !times || i < times; i++) {
		struct timespec ts = {
			.tv_sec = view.interval, .tv_nsec = (view.interval - (long)view.interval) * 1e9,
		};
		struct sample after;
		struct table t;
		int err;

		nanosleep(&ts, NULL);
		err = sample_take(&after);
		if (err)
			return sample_error(err);
		make_table(&t, before, &after);
		if (csv) {
			put_csv(&t);
		} else {
			put_summary(&t);
			end_line();
			if (t.vms)
				put_rows(&t, false);
		}
		fflush(stdout);
		free(t.row);
		sample_free(before);
		*before = after;
	}
	return EXIT_OK;
}

static int choose(const char *word, unsigned int *choice, const char *(*name)(unsigned int), unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!strcmp(word, name(i))) {
			*choice = i;
			return 0;
		}
	complain(0, "\"%s\" is none of:", word);
	for (i = 0; i < n; i++)
		fprintf(stderr, "  %s\n", name(i));
	return -1;
}

static const char *grouping_name(unsigned int i)
{
	return groupings[i].name;
}

static const char *sort_name(unsigned int i)
{
	return sort_keys[i];
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{ "once", no_argument, NULL, 'o' }, { "csv", no_argument, NULL, 'c' },
		{ "by", required_argument, NULL, 'b' }, { "sort", required_argument, NULL, 's' },
		{ "vm", required_argument, NULL, 'v' }, { "latency", no_argument, NULL, 'l' },
		{ "interval", required_argument, NULL, 'i' }, { "count", required_argument, NULL, 'n' }, { 0 },
	};
	bool once = false, csv = false, by = false, latency = false;
	u64 times = 0;
	char *end;
	struct sample before;
	int c, err;

	setlocale(LC_CTYPE, "");
	view.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	while ((c = getopt_long(argc, argv, "b:s:v:i:n:l", options, NULL)) != -1) {
		switch (c) {
		case 'o':
			once = true;
			break;
		case 'c':
			csv = true;
			break;
		case 'b':
			by = true;
			if (choose(optarg, &view.grouping, grouping_name, ARRAY_SIZE(groupings)))
				return EXIT_USAGE;
			break;
		case 's':
			if (choose(optarg, &view.sort, sort_name, ARRAY_SIZE(sort_keys)))
				return EXIT_USAGE;
			break;
		case 'v':
			if (!number(optarg, &view.vm))
				return usage_of("stat");
			break;
		case 'l':
			latency = true;
			break;
		case 'i':
			view.interval = strtod(optarg, &end);
			if (*end || !(view.interval >= 0.05 && view.interval <= 3600))
				return complain(EXIT_USAGE, "an interval is from 0.05 to 3600 seconds long");
			break;
		case 'n':
			if (!number(optarg, &times))
				return usage_of("stat");
			break;
		default:
			return usage_of("stat");
		}
	}
	if (optind < argc)
		return usage_of("stat");
	if (csv && !by)
		view.grouping = ARRAY_SIZE(groupings) - 1;
	err = sample_take(&before);
	if (err)
		return sample_error(err);
	if (latency) {
		err = latency_on();
		if (err)
			return complain(EXIT_FAILED, DEBUGFS_KEEL "/latency: %s", strerror(-err));
	}
	if (once || csv || times || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		err = plain(&before, csv, once ? 1 : times ? times : csv ? 0 : 1);
	else
		err = live(&before);
	latency_off();
	sample_free(&before);
	return err;
}
