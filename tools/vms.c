// SPDX-License-Identifier: GPL-2.0-only
/*
 * vms.c - what debugfs keel/vms says, in structures.  Its format is in keel(4).
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tool.h"

/* Lines "name number" that are kept */
struct field {
	const char *name;
	size_t offset;
};

static const struct field vm_fields[] = {
#define F(name)	{ #name, offsetof(struct vm, name) }
	F(memory_pages), F(pages_4k), F(pages_2m), F(pages_1g), F(table_pages),
	F(snapshot_pages), F(resets), F(reset_pages), F(reset_ns),
#undef F
};

static const struct field vcpu_fields[] = {
#define F(name)	{ #name, offsetof(struct vcpu, name) }
	F(exits), F(fast_exits), F(user_exits), F(irq_exits), F(halt_exits), F(injected_irqs),
#undef F
};

static void set_field(void *object, const struct field *fields, unsigned int n, const char *name, u64 value)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!strcmp(fields[i].name, name))
			*(u64 *)((char *)object + fields[i].offset) = value;
}

/* "exit_NAME_SLOT COUNT", "latency_NAME_SLOT NS BUCKET:COUNT..." */
static void parse_exit(struct vcpu *v, char *word, const char *rest)
{
	bool latency = word[0] == 'l';
	char *name = strchr(word, '_') + 1, *slot = strrchr(name, '_');
	struct exit_count *e;

	if (!slot)
		return;
	*slot++ = 0;
	if (!latency) {
		v->exit = need(realloc(v->exit, (v->nr_exits + 1) * sizeof(*e)));
		e = &v->exit[v->nr_exits++];
		memset(e, 0, sizeof(*e));
		snprintf(e->name, sizeof(e->name), "%.31s", name);
		e->slot = atoi(slot);
		e->count = strtoull(rest, NULL, 10);
		return;
	}
	if (!v->nr_exits)
		return;
	e = &v->exit[v->nr_exits - 1];		/* its count comes before */
	e->ns = strtoull(rest, NULL, 10);
	while ((rest = strchr(rest, ' '))) {
		unsigned int bucket, count;

		rest++;
		if (sscanf(rest, "%u:%u", &bucket, &count) == 2 && bucket < BUCKETS)
			e->bucket[bucket] = count;
	}
}

/* "snapshot ID parent ID children N pages N delta N state N", and words */
static void parse_snapshot(struct vm *vm, const char *rest)
{
	struct snapshot s = { 0 };
	unsigned long long id, parent, pages, delta, state;

	if (sscanf(rest, "%llu parent %llu children %*u pages %llu delta %llu state %llu", &id, &parent, &pages, &delta, &state) != 5)
		return;
	s.id = id;
	s.parent = parent;
	s.pages = pages;
	s.delta = delta;
	s.state = state;
	s.current = strstr(rest, " current");
	s.broken = strstr(rest, " broken");
	vm->snapshot = need(realloc(vm->snapshot, (vm->nr_snapshots + 1) * sizeof(s)));
	vm->snapshot[vm->nr_snapshots++] = s;
}

static void parse_line(struct sample *s, char *line)
{
	struct vm *vm = s->nr_vms ? &s->vm[s->nr_vms - 1] : NULL;
	struct vcpu *v = vm && vm->nr_vcpus ? &vm->vcpu[vm->nr_vcpus - 1] : NULL;
	char *rest = strchr(line, ' ');

	if (!rest)
		return;
	*rest++ = 0;
	if (!strcmp(line, "vm")) {
		s->vm = need(realloc(s->vm, (s->nr_vms + 1) * sizeof(*vm)));
		vm = &s->vm[s->nr_vms++];
		memset(vm, 0, sizeof(*vm));
		vm->serial = strtoull(rest, NULL, 10);
	} else if (!vm) {
		return;
	} else if (!strcmp(line, "owner")) {
		vm->owner = atoi(rest);
	} else if (!strcmp(line, "snapshot")) {
		parse_snapshot(vm, rest);
	} else if (!strcmp(line, "vcpu")) {
		vm->vcpu = need(realloc(vm->vcpu, (vm->nr_vcpus + 1) * sizeof(*v)));
		v = &vm->vcpu[vm->nr_vcpus++];
		memset(v, 0, sizeof(*v));
		v->id = atoi(rest);
	} else if (!v) {
		set_field(vm, vm_fields, ARRAY_SIZE(vm_fields), line, strtoull(rest, NULL, 10));
	} else if (!strcmp(line, "thread")) {
		v->thread = atoi(rest);
	} else if (!strcmp(line, "cpu")) {
		v->cpu = atoi(rest);
	} else if (!strcmp(line, "state")) {
		snprintf(v->state, sizeof(v->state), "%.15s", rest);
	} else if (!strncmp(line, "exit_", 5) || !strncmp(line, "latency_", 8)) {
		parse_exit(v, line, rest);
	} else {
		set_field(v, vcpu_fields, ARRAY_SIZE(vcpu_fields), line, strtoull(rest, NULL, 10));
	}
}

int sample_take(struct sample *s)
{
	char line[1024];
	FILE *f;

	memset(s, 0, sizeof(*s));
	f = fopen(DEBUGFS_KEEL "/vms", "re");
	if (!f)
		return -errno;
	s->ns = now_ns();
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		parse_line(s, line);
	}
	fclose(f);
	return 0;
}

void sample_free(struct sample *s)
{
	unsigned int i, j;

	for (i = 0; i < s->nr_vms; i++) {
		for (j = 0; j < s->vm[i].nr_vcpus; j++)
			free(s->vm[i].vcpu[j].exit);
		free(s->vm[i].vcpu);
		free(s->vm[i].snapshot);
	}
	free(s->vm);
	memset(s, 0, sizeof(*s));
}

const struct vm *sample_vm(const struct sample *s, u64 serial)
{
	unsigned int i;

	for (i = 0; i < s->nr_vms; i++)
		if (s->vm[i].serial == serial)
			return &s->vm[i];
	return NULL;
}

const struct vcpu *vm_vcpu(const struct vm *vm, unsigned int id)
{
	unsigned int i;

	for (i = 0; vm && i < vm->nr_vcpus; i++)
		if (vm->vcpu[i].id == id)
			return &vm->vcpu[i];
	return NULL;
}

const struct exit_count *vcpu_exit(const struct vcpu *v, unsigned int slot)
{
	unsigned int i;

	for (i = 0; v && i < v->nr_exits; i++)
		if (v->exit[i].slot == slot)
			return &v->exit[i];
	return NULL;
}

u64 vm_exits(const struct vm *vm)
{
	unsigned int i;
	u64 n = 0;

	for (i = 0; vm && i < vm->nr_vcpus; i++)
		n += vm->vcpu[i].exits;
	return n;
}

u64 vm_mapped_bytes(const struct vm *vm)
{
	return (vm->pages_4k << 12) + (vm->pages_2m << 21) + (vm->pages_1g << 30);
}

int sample_error(int err)
{
	if (!module_loaded("keel"))
		return complain(EXIT_NOT_LOADED, "the module is not loaded: keel load, as root");
	if (err == -EACCES || err == -EPERM)
		return complain(EXIT_NO_PERMISSION, "the counters are in " DEBUGFS ", which root may read");
	if (access(DEBUGFS_KEEL, F_OK))
		return complain(EXIT_FAILED, "no " DEBUGFS_KEEL ": mount -t debugfs debugfs " DEBUGFS);
	return complain(EXIT_FAILED, DEBUGFS_KEEL "/vms: %s", strerror(-err));
}
