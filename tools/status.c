// SPDX-License-Identifier: GPL-2.0-only
/*
 * status.c - keel status: one look at everything, for people or, with --json, for programs.
 *
 * What is found is put into a tree of names and values first, and then printed in one of the two ways.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <libkmod.h>
#include "tool.h"

#define SAMPLE_MS	500	/* exits per second are counted for so long */

/* ---------------------------------------------------------------- JSON */

static bool json, json_comma;

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < ' ')
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void json_key(const char *key)
{
	if (json_comma)
		putchar(',');
	json_comma = true;
	if (key) {
		json_string(key);
		putchar(':');
	}
}

static void json_open(const char *key, char bracket)
{
	json_key(key);
	putchar(bracket);
	json_comma = false;
}

static void json_close(char bracket)
{
	putchar(bracket);
	json_comma = true;
}

static void json_text(const char *key, const char *value)
{
	json_key(key);
	if (value)
		json_string(value);
	else
		fputs("null", stdout);
}

static void json_number(const char *key, double value)
{
	json_key(key);
	printf("%.15g", value);
}

static void json_bool(const char *key, bool value)
{
	json_key(key);
	fputs(value ? "true" : "false", stdout);
}

/* ---------------------------------------------------------------- the machine */

static void show_host(const struct host *h)
{
	const char *what = !h->virt ? "none" : !strcmp(h->virt, "svm") ? "AMD SVM" : "Intel VMX";

	if (json) {
		json_open("cpu", '{');
		json_text("vendor", h->vendor);
		json_text("model", h->model);
		json_text("virtualization", h->virt);
		json_text("firmware", h->firmware);
		json_text("features", h->features);
		json_close('}');
		json_text("kernel", h->kernel);
		return;
	}
	printf("CPU          %s\n", h->model[0] ? h->model : "?");
	printf("             %s", what);
	if (h->virt)
		printf(", firmware: %s%s%s", h->firmware, h->features[0] ? "; " : "", h->features);
	putchar('\n');
	printf("kernel       %s\n", h->kernel);
}

#define VULNERABILITIES	"/sys/devices/system/cpu/vulnerabilities"

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* All of them for programs; people want to hear of those that are open, and of what an entry or exit costs. */
static void show_mitigations(void)
{
	struct dirent **list;
	int i, n = scandir(VULNERABILITIES, &list, NULL, by_name), open = 0, known = 0;
	char line[512];

	if (json)
		json_open("mitigations", '{');
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' && read_line(line, sizeof(line), VULNERABILITIES "/%s", list[i]->d_name)) {
			bool vulnerable = strstr(line, "Vulnerable") || strstr(line, "vulnerable");

			known++;
			open += vulnerable;
			if (json)
				json_text(list[i]->d_name, line);
			else if (vulnerable)
				printf("%s%s: %s\n", open == 1 ? "mitigations  " : "             ", list[i]->d_name, line);
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	if (json)
		json_close('}');
	else if (!open)
		printf("mitigations  %s\n", known ? "none of the known vulnerabilities is open (/sys/devices/system/cpu/vulnerabilities)" :
		       "the kernel does not say");
}

/* ---------------------------------------------------------------- the module */

static void show_parameters(void)
{
	struct dirent **list;
	int i, n = scandir("/sys/module/keel/parameters", &list, NULL, by_name);
	bool first = true;
	char value[64];

	if (json)
		json_open("parameters", '{');
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' &&
		    read_line(value, sizeof(value), "/sys/module/keel/parameters/%s", list[i]->d_name)) {
			if (json)
				json_text(list[i]->d_name, value);
			else
				printf("%s%s=%s", first ? "             " : " ", list[i]->d_name, value);
			first = false;
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	if (json)
		json_close('}');
	else if (!first)
		putchar('\n');
}

/* The module that keel load would take: its version, or NULL */
static const char *installed_version(void)
{
	static char version[64];
	struct kmod_ctx *ctx = kmod_new(NULL, NULL);
	struct kmod_list *info = NULL, *it;
	struct kmod_module *mod = NULL;
	bool found = false;

	if (ctx && !kmod_module_new_from_name(ctx, "keel", &mod) && kmod_module_get_path(mod) &&
	    kmod_module_get_info(mod, &info) >= 0) {
		found = true;
		snprintf(version, sizeof(version), "?");
		kmod_list_foreach(it, info)
			if (!strcmp(kmod_module_info_get_key(it), "version"))
				snprintf(version, sizeof(version), "%s", kmod_module_info_get_value(it));
		kmod_module_info_free_list(info);
	}
	if (mod)
		kmod_module_unref(mod);
	if (ctx)
		kmod_unref(ctx);
	return found ? version : NULL;
}

static void show_module(bool loaded)
{
	const char *installed = installed_version();
	char version[64];

	if (!loaded || !read_line(version, sizeof(version), "/sys/module/keel/version"))
		snprintf(version, sizeof(version), "?");
	if (json) {
		json_open("module", '{');
		json_bool("loaded", loaded);
		json_text("version", loaded ? version : NULL);
		json_text("installed", installed);
		json_bool("node", !access(NODE, F_OK));
		json_bool("access", !access(NODE, R_OK | W_OK));
		if (loaded)
			show_parameters();
		json_close('}');
		return;
	}
	if (loaded)
		printf("module       keel %s is loaded%s%s%s\n", version, installed ? "" : "; none is installed for this kernel",
		       installed && strcmp(installed, version) ? "; installed is " : "",
		       installed && strcmp(installed, version) ? installed : "");
	else if (installed)
		printf("module       not loaded; keel %s is installed for this kernel\n", installed);
	else
		printf("module       not loaded, and none is installed for this kernel (package keel-dkms)\n");
	if (!loaded)
		return;
	show_parameters();
	if (access(NODE, F_OK))
		printf("             " NODE " is not there: does udev run?\n");
	else if (access(NODE, R_OK | W_OK))
		printf("             " NODE " is there, but not for you: it is for root and group kvm\n");
}

static void show_holder(const struct host *h, const struct processes *p)
{
	const char *holder = virt_holder(h, p);
	char mode[16], token[8];
	bool first = true;
	unsigned int i;

	read_line(mode, sizeof(mode), STATE "/mode");
	read_line(token, sizeof(token), STATE "/token");
	if (json) {
		json_open("hardware", '{');
		json_text("holder", holder);
		json_text("mode", mode[0] ? mode : NULL);
		json_bool("sharable", token[0] == '1');
		json_bool("complete", !p->hidden);
		json_close('}');
		return;
	}
	printf("hardware     ");
	if (!holder) {
		printf("used by nobody%s\n",
		       p->hidden ? " that you may see from here (root, outside containers, sees everybody)" : "");
		return;
	}
	printf("used by %s", holder);
	for (i = 0; i < p->n; i++) {
		char name[64];

		if (!strcmp(holder, "keel") ? !p->list[i].keel_vms : !p->list[i].kvm_vms)
			continue;
		process_name(p->list[i].pid, name, sizeof(name));
		printf("%s%s (%d)", first ? ": " : ", ", name, p->list[i].pid);
		first = false;
	}
	printf("%s\n", !strcmp(mode, "shared") ? "; keel beside it" : token[0] == '1' ? "; keel may share it" : "");
}

/* ---------------------------------------------------------------- VMs */

/* Since @was; of a VM that was not there then, since it was made */
static void show_snapshots(const struct vm *vm, const struct vm *was, double seconds)
{
	double resets = vm->resets - (was ? was->resets : 0), bytes = vm_snapshot_bytes(vm);
	double pages = vm->reset_pages - (was ? was->reset_pages : 0), ns = vm->reset_ns - (was ? was->reset_ns : 0);

	if (json) {
		json_number("snapshots", vm->nr_snapshots);
		json_number("snapshot_pages", vm->snapshot_pages);
		json_number("snapshot_bytes", bytes);
		json_number("resets", vm->resets);
		json_number("resets_per_second", (long)(resets / seconds));
		return;
	}
	if (!vm->nr_snapshots)
		return;
	printf("       %u snapshot%s: %.1f MB kept", vm->nr_snapshots, vm->nr_snapshots == 1 ? "" : "s", bytes / 1048576);
	if (resets)
		printf("; %.0f resets/s, each %.1f pages and %.1f us", resets / seconds, pages / resets, ns / resets / 1000);
	putchar('\n');
}

static void show_vm(const struct vm *vm, const struct vm *was, double seconds)
{
	double rate = (vm_exits(vm) - vm_exits(was)) / seconds;
	char name[64], user[64];

	process_name(vm->owner, name, sizeof(name));
	process_user(vm->owner, user, sizeof(user));
	if (json) {
		json_open(NULL, '{');
		json_number("vm", vm->serial);
		json_number("pid", vm->owner);
		json_text("name", name);
		json_text("user", user);
		json_number("vcpus", vm->nr_vcpus);
		json_number("memory_bytes", (double)vm->memory_pages * 4096);
		json_number("mapped_bytes", vm_mapped_bytes(vm));
		json_number("exits", vm_exits(vm));
		json_number("exits_per_second", (long)rate);
		show_snapshots(vm, was, seconds);
		json_close('}');
		return;
	}
	printf("  %4llu %8d  %-20.20s %-12.12s %5u %8.0f %8.0f %10.0f\n", (unsigned long long)vm->serial, vm->owner, name, user,
	       vm->nr_vcpus, vm->memory_pages / 256.0, vm_mapped_bytes(vm) / 1048576.0, rate);
	show_snapshots(vm, was, seconds);
}

/* Root reads the counters; others see which of their processes have VMs. */
static void show_vms(const struct processes *p)
{
	const struct timespec sample = { .tv_nsec = SAMPLE_MS * 1000000 };
	struct sample before, after;
	int err = sample_take(&before);
	unsigned int i, n = 0;

	if (!err) {
		if (before.nr_vms)
			nanosleep(&sample, NULL);
		err = sample_take(&after);
	}
	for (i = 0; i < p->n; i++)
		n += p->list[i].keel_vms;
	if (json)
		json_bool("counters", !err);
	if (json)
		json_open("vms", '[');
	else if (!(err ? n : after.nr_vms))
		printf("VMs          none%s\n", err && p->hidden ? " of yours (root sees everybody's)" : "");
	else
		printf("VMs%s\n    VM      PID  NAME                 USER         VCPUS   MEM MB   MAPPED    EXITS/S\n",
		       err ? "          those of processes you may see; root sees how they do" : "");
	for (i = 0; !err && i < after.nr_vms; i++)
		show_vm(&after.vm[i], sample_vm(&before, after.vm[i].serial), (after.ns - before.ns) / 1e9);
	for (i = 0; err && i < p->n; i++) {
		char name[64], user[64];

		if (!p->list[i].keel_vms)
			continue;
		process_name(p->list[i].pid, name, sizeof(name));
		process_user(p->list[i].pid, user, sizeof(user));
		if (json) {
			json_open(NULL, '{');
			json_number("pid", p->list[i].pid);
			json_text("name", name);
			json_text("user", user);
			json_close('}');
		} else {
			printf("     ? %8d  %-20.20s %-12.12s\n", p->list[i].pid, name, user);
		}
	}
	if (json)
		json_close(']');
	if (!err) {
		sample_free(&before);
		sample_free(&after);
	}
}

int cmd_status(int argc, char **argv)
{
	struct processes processes;
	bool loaded = module_loaded("keel");
	const char *refuses;
	struct host host;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json")))
		return usage_of("status");
	json = argc == 2;
	host_read(&host);
	processes_read(&processes);
	refuses = loaded ? NULL : host_refuses(&host);
	if (json)
		json_open(NULL, '{');
	show_host(&host);
	show_mitigations();
	show_module(loaded);
	show_holder(&host, &processes);
	if (loaded)
		show_vms(&processes);
	if (json) {
		json_text("problem", refuses);
		json_close('}');
		putchar('\n');
	} else if (refuses) {
		printf("problem      %s\n", refuses);
	}
	free(processes.list);
	return loaded ? EXIT_OK : refuses ? EXIT_NO_HARDWARE : EXIT_NOT_LOADED;
}
