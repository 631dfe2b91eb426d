// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - the keel command.  Each subcommand is a file.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tool.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *args, *what;
} commands[] = {
	{ "status", cmd_status, "[--json]", "this machine, the module, who has the hardware, the VMs" },
	{ "load", cmd_load, "[--file KEEL.KO] [PARAMETER=VALUE...]", "load the module, or say why not" },
	{ "unload", cmd_unload, "", "unload it, or say who uses it" },
	{ "share", cmd_share, "[--off]", "have VMs run beside those of the kernel's own kvm, or do no more" },
	{ "exec", cmd_exec, "[--] COMMAND [ARG...]", "run a VMM that finds keel at /dev/kvm" },
	{ "stat", cmd_stat, "[--once] [--csv] [--by KEYS] [--sort KEY] [--vm N] [--latency] [-i SECONDS] [-n COUNT]",
	  "exits, live: how many, why, how long" },
	{ "snapshot", cmd_snapshot, "[--vm N]", "the snapshots that VMs have, and what they keep" },
	{ "selftest", cmd_selftest, "", "run a tiny guest and say what works" },
};

int complain(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("keel: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

void *need(void *p)
{
	if (!p)
		exit(complain(EXIT_FAILED, "out of memory"));
	return p;
}

bool number(const char *text, u64 *n)
{
	char *end;

	errno = 0;
	*n = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *n;
}

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static const struct command *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

int usage_of(const char *command)
{
	const struct command *c = find(command);

	fprintf(stderr, "usage: keel %s %s\n", c->name, c->args);
	return EXIT_USAGE;
}

static void help(FILE *f)
{
	unsigned int i;

	fputs("usage: keel COMMAND [ARGUMENT...]\n\n", f);
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, "  %-9s %s\n            keel %s %s\n", commands[i].name, commands[i].what, commands[i].name,
			commands[i].args);
	fputs("\nMore in keel(1), and about the module in keel(4).\n", f);
}

int main(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("keel " VERSION);
		return EXIT_OK;
	}
	c = find(argv[1]);
	if (!c)
		return complain(EXIT_USAGE, "no command \"%s\"; keel help lists them", argv[1]);
	return c->run(argc - 1, argv + 1);
}
