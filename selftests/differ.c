// SPDX-License-Identifier: GPL-2.0-only
/*
 * What VMMs see of the kernel's own module and of keel, side by side: kvm_run, registers, return values, answers.  No
 * expectations stand here: scenarios (differ/) are played to both, one after the other, and any difference that
 * differ/meant.c does not have fails, as does a row of it that finds none.  As root, with kvm's module there or to be
 * loaded.
 *
 *	differ [SCENARIO...]		most, or those whose names match the patterns
 *	DIFFER_LONG=1			those that take long, too
 *	DIFFER_ALL=1			shows every difference, those that are meant, too
 *	DIFFER_BESIDE=1			keel's VMs beside kvm's (else only where keel has none of its own)
 */
#define _GNU_SOURCE
#include "lib/beside.h"
#include "differ/differ.h"

#include <fnmatch.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define MAX_FACTS	600000
#define SHOWN		60		/* differences of a scenario, and of one kind at one place */
#define SHOWN_HERE	3
#define LIMIT		30		/* seconds */

struct fact {
	const char *where, *what;
	u64 index, val;
	u32 step, seq;
	bool story;
};

static struct list {
	u32 nr;
	struct fact f[MAX_FACTS];
} *lists[2], *list;			/* of kvm, of keel; the one that is written */

static struct scenario scenarios[MAX_SCENARIOS];
static unsigned int nr_scenarios;
static const char *where = "";
static u32 step;
static bool story;

void add_scenario(const char *name, void (*play)(const struct scenario *s), const void *what)
{
	if (nr_scenarios == MAX_SCENARIOS)
		die("too many scenarios");
	scenarios[nr_scenarios++] = (struct scenario){ name, play, what };
}

/* What takes long and shows little that others do not: with DIFFER_LONG, or named.  On Intel generic code, too. */
static const struct {
	const char *pattern;
	int vendors;
} long_ones[] = {
	{ "mmio-breakpoints", BOTH }, { "insns-settled", BOTH }, { "pio-settled", BOTH },
	{ "pio-without-quirks", BOTH },
	{ "bits-sregs-prot", BOTH }, { "bits-events-irqchip", BOTH }, { "enable-vm-irqchip", BOTH },
	{ "calls-*", INTEL }, { "misplaced", INTEL }, { "enable-*", INTEL }, { "bits-lapic", INTEL },
	{ "bits-pic", INTEL },
	{ "bits-fpu", INTEL }, { "bits-events*", INTEL }, { "bits-sregs2", INTEL }, { "bits-msrs", INTEL },
	{ "states", INTEL },
	{ "*-stepped", INTEL }, { "rip-moved", INTEL }, { "insns-without-quirks", INTEL }, { "pio-synced", INTEL },
};

void at(const char *w, u32 s)
{
	where = w;
	step = s;
	story = false;
}

void at_step(const char *w, u32 s)
{
	at(w, s);
	story = true;
}

void put(const char *what, u64 index, u64 val)
{
	if (list->nr == MAX_FACTS)
		die("too many facts");
	list->f[list->nr] = (struct fact){ where, what, index, val, step, list->nr, story };
	list->nr++;
}

void put_bytes(const char *what, const void *p, size_t size)
{
	size_t i;

	for (i = 0; i < size; i += 8) {
		u64 word = 0;

		memcpy(&word, p + i, size - i < 8 ? size - i : 8);
		put(what, i, word);
	}
}

/* ------------------------------------------------------------- comparing */

/* Most are of the same place: its name is the same string, too */
static int in_words(const char *a, const char *b)
{
	return a == b ? 0 : strcmp(a, b);
}

static int same_step(const struct fact *a, const struct fact *b)
{
	int r = in_words(a->where, b->where);

	return r ? r : (a->step > b->step) - (a->step < b->step);
}

static int same_place(const struct fact *a, const struct fact *b)
{
	int r = same_step(a, b);

	if (!r)
		r = in_words(a->what, b->what);
	return r ? r : (a->index > b->index) - (a->index < b->index);
}

static int in_order(const void *x, const void *y)
{
	const struct fact *a = x, *b = y;
	int r = same_place(a, b);

	return r ? r : (a->seq > b->seq) - (a->seq < b->seq);
}

static u8 vendor;
static u16 version;
static bool show_all;
static unsigned int *uses;		/* of each row of meant[] */

static bool row_is_here(const struct meant *m)
{
	return (m->vendors & vendor) && (!m->from || version >= m->from) && (!m->before || version < m->before);
}

static int find_meant(const char *key, const struct fact *kvm, const struct fact *keel)
{
	unsigned int i;

	for (i = 0; i < nr_meant; i++) {
		const char *p = meant[i].pattern;

		if (!row_is_here(&meant[i]) || (meant[i].bits && (!kvm || !keel ||
			(kvm->val ^ keel->val) & ~meant[i].bits)))
			continue;
		/* Up to what may be anything first: that is quick, and enough for most */
		if (!strncmp(p, key, strcspn(p, "*?[")) && !fnmatch(p, key, 0))
			return i;
	}
	return -1;
}

static char *value(const struct fact *f, char *buf)
{
	if (!f)
		strcpy(buf, "-");
	else if ((long long)f->val < 0 && (long long)f->val > -4096)
		sprintf(buf, "%lld", (long long)f->val);
	else
		sprintf(buf, "%#llx", (unsigned long long)f->val);
	return buf;
}

static struct {
	const char *where, *what;
	unsigned int here, shown;
} so_far;				/* of a scenario's differences that are not meant */

/* Not too many, for somebody who reads them */
static bool to_show(const struct fact *f)
{
	if (so_far.where != f->where || so_far.what != f->what)
		so_far.here = 0;
	so_far.where = f->where;
	so_far.what = f->what;
	if (++so_far.here > SHOWN_HERE || so_far.shown == SHOWN)
		return false;
	so_far.shown++;
	return true;
}

/* The number of those that are not meant */
static unsigned int differs(const struct scenario *s, const struct fact *kvm, const struct fact *keel)
{
	const struct fact *f = kvm ? kvm : keel;
	char key[512], a[32], b[32];
	int row;

	snprintf(key, sizeof(key), "%s/%s/%u %s %#llx", s->name, f->where, f->step, f->what,
		(unsigned long long)f->index);
	row = find_meant(key, kvm, keel);
	if (row >= 0)
		uses[row]++;
	if (show_all || (row < 0 && to_show(f)))
		printf("# %s: kvm %s, keel %s%s%s\n", key, value(kvm, a), value(keel, b), row < 0 ? "" : ": ",
		       row < 0 ? "" : meant[row].why);
	return row < 0;
}

/* What a story goes on from: behind a step in which one of these differs it is another story, and compared no more. */
static const char *const course[] = {
	"KVM_RUN", "run.exit_reason", "r.rip", "run.io.count", "run.io.port", "run.mmio.phys_addr", "run.mmio.len",
	"run.mmio.is_write",
};
#define NR_ENDS	2	/* the first of them: how KVM_RUN came back.  Where that differs, all else does. */

static bool is_of(const struct fact *f, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(f->what, course[i]))
			return true;
	return false;
}

/* One place of the two lists: up to nr_a and nr_b facts */
struct place {
	const struct fact *a, *b;
	unsigned int nr_a, nr_b;
};

/* Each pair that differs is given to SEEN; the number of those of which it says yes. */
static unsigned int walk(const struct place *p, const struct scenario *s,
			 unsigned int (*seen)(const struct scenario *s, const struct fact *kvm,
			 	const struct fact *keel))
{
	const struct fact *a = p->a, *b = p->b, *a_end = a + p->nr_a, *b_end = b + p->nr_b;
	unsigned int n = 0;

	while (a < a_end || b < b_end) {
		int r = a == a_end ? 1 : b == b_end ? -1 : same_place(a, b);

		if (r || a->val != b->val)
			n += seen(s, r > 0 ? NULL : a, r < 0 ? NULL : b);
		a += r <= 0;
		b += r >= 0;
	}
	return n;
}

static unsigned int ends_differ(const struct scenario *s, const struct fact *kvm, const struct fact *keel)
{
	return is_of(kvm ?: keel, NR_ENDS);
}

static unsigned int course_differs(const struct scenario *s, const struct fact *kvm, const struct fact *keel)
{
	return is_of(kvm ?: keel, sizeof(course) / sizeof(course[0]));
}

static unsigned int only_ends(const struct scenario *s, const struct fact *kvm, const struct fact *keel)
{
	return ends_differ(s, kvm, keel) ? differs(s, kvm, keel) : 0;
}

/* How many facts of a list are at the place of F */
static unsigned int here(const struct fact *at, const struct fact *end, const struct fact *f)
{
	unsigned int n = 0;

	while (at + n < end && !in_words(at[n].where, f->where) && at[n].step == f->step)
		n++;
	return n;
}

static unsigned int compare(const struct scenario *s)
{
	const struct fact *a = lists[0]->f, *b = lists[1]->f, *a_end = a + lists[0]->nr, *b_end = b + lists[1]->nr;
	const char *ended = NULL;
	unsigned int n = 0;

	memset(&so_far, 0, sizeof(so_far));
	qsort(lists[0]->f, lists[0]->nr, sizeof(*a), in_order);
	qsort(lists[1]->f, lists[1]->nr, sizeof(*b), in_order);
	while (a < a_end || b < b_end) {
		const struct fact *first = a == a_end ? b : b == b_end || same_step(a, b) <= 0 ? a : b;
		struct place p = { a, b, here(a, a_end, first), here(b, b_end, first) };

		a += p.nr_a;
		b += p.nr_b;
		if (!first->story) {
			n += walk(&p, s, differs);
		} else if (!ended || strcmp(ended, first->where)) {
			n += walk(&p, s, walk(&p, s, ends_differ) ? only_ends : differs);
			ended = walk(&p, s, course_differs) ? first->where : NULL;
		}
	}
	if (n > so_far.shown && !show_all)
		printf("# %s: and %u more\n", s->name, n - so_far.shown);
	return n;
}

/* --------------------------------------------------------------- playing */

static const char *const nodes[2] = { "/dev/kvm", KEEL_NODE };

/* In a process of its own, which may end as it likes: that is a fact, too */
static void play(const struct scenario *s, int which)
{
	int status;
	pid_t pid;

	fflush(stdout);
	list = lists[which];
	list->nr = 0;
	pid = must(fork());
	if (!pid) {
		const char *scale = getenv("KEEL_TIME_SCALE");

		setenv("KEEL_DEV", nodes[which], 1);
		alarm(scale && atoi(scale) > 3 ? LIMIT * atoi(scale) / 3 : LIMIT);
		s->play(s);
		_exit(0);
	}
	must(waitpid(pid, &status, 0));
	at("", 0);
	put("ended", 0, status);
	if (status)
		printf("# %s: ended with status %#x on %s\n", s->name, status, nodes[which]);
}

static bool wanted(const char *name, int nr, char **patterns)
{
	unsigned int n;
	int i;

	for (i = 0; i < nr; i++)
		if (!fnmatch(patterns[i], name, 0))
			return true;
	if (nr)
		return false;
	for (n = 0; !getenv("DIFFER_LONG") && n < sizeof(long_ones) / sizeof(long_ones[0]); n++)
		if ((long_ones[n].vendors & vendor) && !fnmatch(long_ones[n].pattern, name, 0))
			return false;
	return true;
}

/* Were all scenarios played that a row is of? */
static bool had_its_chance(const struct meant *m)
{
	char of[64];
	unsigned int i;

	snprintf(of, sizeof(of), "%.*s", (int)strcspn(m->pattern, "/"), m->pattern);
	for (i = 0; i < nr_scenarios; i++)
		if (!scenarios[i].played && !fnmatch(strchr(m->pattern, '/') ? of : "*", scenarios[i].name, 0))
			return false;
	return true;
}

static int keel_can(int sys)
{
	int vm = xioctl(sys, KVM_CREATE_VM, 0);

	if (vm < 0)
		return vm;
	close(vm);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int i, n, bad = 0, total = 0, test = 0, played = 0;
	int sys = open(KEEL_NODE, O_RDWR | O_CLOEXEC), r;
	struct utsname name;
	unsigned int major = 0, minor = 0;
	u64 began = now_ns();

	show_all = getenv("DIFFER_ALL");
	if (sys < 0 || strcmp(node_path(), KEEL_NODE) || !kvm_load()) {
		printf("ok 1 differ # SKIP wants keel, and a kvm module to be loaded beside it\n");
		return 4;
	}
	vendor = guest_is_amd() ? AMD : INTEL;
	uname(&name);
	sscanf(name.release, "%u.%u", &major, &minor);
	version = major << 8 | minor;
	r = getenv("DIFFER_BESIDE") ? -EBUSY : keel_can(sys);
	if (r)
		r = hand_over(sys);
	if (r)
		die("no VM of keel's beside kvm's: %s", strerror(-r));
	for (i = 0; i < 2; i++) {
		lists[i] = mmap(NULL, sizeof(*list), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (lists[i] == MAP_FAILED)
			die("mmap");
	}
	uses = calloc(nr_meant, sizeof(*uses));
	add_system();
	add_guests();
	add_insns();
	add_bits();
	for (i = 0; i < nr_scenarios; i++) {
		struct scenario *s = &scenarios[i];
		u64 since = now_ns();

		if (!wanted(s->name, argc - 1, argv + 1))
			continue;
		s->played = true;
		play(s, 0);
		play(s, 1);
		total += lists[0]->nr;
		n = compare(s);
		played++;
		bad += !!n;
		printf("%sok %u differ.%s%s\n", n ? "not " : "", ++test, s->name,
			lists[0]->nr > 1 ? "" : " # SKIP nothing to see");
		if (show_all)
			printf("# %u facts, %u ms\n", lists[0]->nr, (unsigned int)((now_ns() - since) / 1000000));
	}
	for (i = 0; i < nr_meant; i++) {
		if (!row_is_here(&meant[i]) || uses[i] || !had_its_chance(&meant[i]))
			continue;
		printf("not ok %u differ: nothing differs at %s (%s)\n", ++test, meant[i].pattern, meant[i].why);
		bad++;
	}
	xioctl(sys, KEEL_BESIDE_KVM, -1);
	close(sys);
	module_delete(vendor_module());
	module_delete("kvm");
	printf("# %u scenarios, %u facts, %u ms\n", played, total, (unsigned int)((now_ns() - began) / 1000000));
	return bad ? 1 : 0;
}
