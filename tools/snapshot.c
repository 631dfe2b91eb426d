// SPDX-License-Identifier: GPL-2.0-only
/*
 * snapshot.c - keel snapshot: the trees of snapshots that virtual machines have, and what they keep.
 *
 * It shows.  To take one, to reset to it and to drop it take the virtual machine's file, which its VMM has: libkeel.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "tool.h"

u64 vm_snapshot_bytes(const struct vm *vm)
{
	u64 bytes = vm->snapshot_pages << 12;
	unsigned int i;

	for (i = 0; i < vm->nr_snapshots; i++)
		bytes += vm->snapshot[i].state;
	return bytes;
}

/* The children of @parent, and theirs.  A child's number is above its parent's: what is read while it changes ends as well. */
static void show_children(const struct vm *vm, u64 parent, int depth)
{
	unsigned int i;

	for (i = 0; i < vm->nr_snapshots; i++) {
		const struct snapshot *s = &vm->snapshot[i];

		if (s->parent != parent || s->id <= parent)
			continue;
		printf("  %*s%-*llu %8llu %10llu %10llu%s%s\n", 2 * depth, "", 24 - 2 * depth > 1 ? 24 - 2 * depth : 1,
		       (unsigned long long)s->id, (unsigned long long)s->pages, (unsigned long long)s->delta,
		       (unsigned long long)s->state, s->current ? "  current" : "", s->broken ? "  broken" : "");
		show_children(vm, s->id, depth + 1);
	}
}

int cmd_snapshot(int argc, char **argv)
{
	static const struct option options[] = { { "vm", required_argument, NULL, 'v' }, { 0 } };
	unsigned int i, shown = 0;
	struct sample now;
	u64 only = 0;
	char name[64];
	int c, err;

	while ((c = getopt_long(argc, argv, "v:", options, NULL)) != -1) {
		if (c != 'v' || !number(optarg, &only))
			return usage_of("snapshot");
	}
	if (optind < argc)
		return usage_of("snapshot");
	err = sample_take(&now);
	if (err)
		return sample_error(err);
	for (i = 0; i < now.nr_vms; i++) {
		const struct vm *vm = &now.vm[i];

		if (!vm->nr_snapshots || (only && vm->serial != only))
			continue;
		process_name(vm->owner, name, sizeof(name));
		printf("%sVM %llu, %s (%d): %u snapshot%s, %llu bytes; %llu resets\n", shown++ ? "\n" : "",
		       (unsigned long long)vm->serial, name, vm->owner, vm->nr_snapshots, vm->nr_snapshots == 1 ? "" : "s",
		       (unsigned long long)vm_snapshot_bytes(vm), (unsigned long long)vm->resets);
		printf("  %-24s %8s %10s %10s\n", "SNAPSHOT", "PAGES", "DELTA", "STATE");
		show_children(vm, 0, 0);
	}
	if (!shown)
		printf("no snapshots\n");
	sample_free(&now);
	return EXIT_OK;
}
