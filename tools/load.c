// SPDX-License-Identifier: GPL-2.0-only
/*
 * load.c - keel load and keel unload.  What the kernel refuses with a number is told in words, with what the module itself
 * said in the kernel's log.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <libkmod.h>
#include "tool.h"

/* ---------------------------------------------------------------- the kernel's log */

/* At its end: what comes behind is about us. */
static int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* The last line since then with that in it, without what stands before it; "" if there is none. */
static const char *log_find(int fd, const char *what)
{
	static char line[8192], log[1 << 16], found[512];
	const char *text, *next;
	static size_t have;
	ssize_t n;

	while (fd >= 0 && ((n = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE)) {
		if (n <= 0)
			continue;	/* overwritten before it was read */
		line[n] = 0;
		text = strchr(line, ';');
		if (!text)
			continue;
		/* Behind the message may be lines with what devices it is about. */
		n = strcspn(++text, "\n");
		/* Of a kernel that has much to say the older half is forgotten. */
		if (have + n + 2 > sizeof(log)) {
			have -= sizeof(log) / 2;
			memmove(log, log + sizeof(log) / 2, have);
		}
		memcpy(log + have, text, n);
		have += n;
		log[have++] = '\n';
		log[have] = 0;
	}
	found[0] = 0;
	for (next = log; (next = strstr(next, what)) != NULL; ) {
		next += strlen(what);
		snprintf(found, sizeof(found), "%.*s", (int)strcspn(next, "\n"), next);
	}
	return found;
}

/* ---------------------------------------------------------------- load */

static int load_error(int err, int log)
{
	static const char ubuntu_mok[] = "/var/lib/shim-signed/mok/MOK.der";
	const char *refuses, *said;
	struct host h;

	host_read(&h);
	refuses = host_refuses(&h);
	/* The kernel, of a module of another build: as errno it has ENOENT, or EINVAL. */
	if (log_find(log, "keel: Unknown symbol ")[0] || log_find(log, "keel: disagrees about version ")[0])
		return complain(EXIT_FAILED, "the module is for another kernel than %s: dkms autoinstall", h.kernel);
	switch (err) {
	case ENOENT:
		return complain(EXIT_NOT_LOADED, "no module keel for kernel %s: install keel-dkms and linux-headers-%s",
				h.kernel, h.kernel);
	case EPERM:
		if (geteuid())
			return complain(EXIT_NO_PERMISSION, "loading a module takes root");
		return complain(EXIT_NO_PERMISSION,
				"the kernel does not let modules be loaded (lockdown, kernel.modules_disabled, or a container)");
	case ENOKEY:
	case EKEYREJECTED:
		return complain(EXIT_NO_PERMISSION,
				"Secure Boot: the module's signature is not one the kernel knows; enrol DKMS's key "
				"(mokutil --import %s)",
				access(ubuntu_mok, F_OK) ? "/var/lib/dkms/mok.pub" : ubuntu_mok);
	case ENOEXEC:
		return complain(EXIT_FAILED, "the module is for another kernel than %s: dkms autoinstall", h.kernel);
	}
	said = log_find(log, "keel: not loaded: ");
	if (said[0])
		return complain(err == EINVAL ? EXIT_FAILED : err == EBUSY ? EXIT_BUSY : EXIT_NO_HARDWARE, "%s", said);
	if (refuses && (err == ENODEV || err == EOPNOTSUPP))
		return complain(EXIT_NO_HARDWARE, "%s", refuses);
	if (err == EINVAL)
		return complain(EXIT_FAILED, "the module does not take these parameters (modinfo keel lists what there is)");
	return complain(EXIT_FAILED, "%s; the kernel's log may say more (dmesg)", strerror(err));
}

/* What the kernel decided about L1TF, which from Linux 6.19 on it tells kvm_intel alone */
static const char *l1d_flush_choice(void)
{
	static const char *const choices[] = { "never", "cond", "always" };
	char choice[32] = "";
	unsigned int i;

	read_line(choice, sizeof(choice), "/sys/module/kvm_intel/parameters/vmentry_l1d_flush");
	for (i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		if (!strcmp(choice, choices[i]))
			return choices[i];
	return NULL;
}

/* What else would keep the first VM from starting */
static int share_with_others(void)
{
	const char *holder = virt_holder_now();
	int err;

	if (!holder || !strcmp(holder, "keel"))
		return EXIT_OK;
	err = strncmp(holder, "kvm", 3) ? -EBUSY : share_hand_over();
	if (err)
		complain(0, "%s has the CPU's virtualization: until its VMs have ended (or it is unloaded) keel's cannot start", holder);
	else
		printf("%s has the CPU's virtualization: keel shares it\n", holder);
	return EXIT_OK;
}

int cmd_load(int argc, char **argv)
{
	const char *file = NULL, *l1d_flush = l1d_flush_choice();
	struct kmod_module *mod;
	struct kmod_ctx *ctx;
	char given[512] = "", options[sizeof(given) + 32], version[64];
	int i, err, log;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--file") && i + 1 < argc) {
			file = argv[++i];
			continue;
		}
		if (argv[i][0] == '-' || !strchr(argv[i], '='))
			return usage_of("load");
		if (strlen(given) + strlen(argv[i]) + 2 > sizeof(given))
			return complain(EXIT_USAGE, "too many parameters");
		strcat(strcat(given, given[0] ? " " : ""), argv[i]);
	}
	/* What comes later counts. */
	snprintf(options, sizeof(options), "%s%s %s", l1d_flush ? "l1d_flush=" : "", l1d_flush ?: "", given);
	if (module_loaded("keel")) {
		printf("keel is loaded already\n");
		return given[0] || file ? complain(EXIT_BUSY, "keel unload comes first") : share_with_others();
	}
	ctx = need(kmod_new(NULL, NULL));
	log = log_open();
	if (file) {
		err = kmod_module_new_from_path(ctx, file, &mod);
		if (!err)
			err = kmod_module_insert_module(mod, 0, options);
		if (err == -ENOENT && access(file, F_OK))
			return complain(EXIT_NOT_LOADED, "%s: %s", file, strerror(ENOENT));
	} else {
		err = kmod_module_new_from_name(ctx, "keel", &mod);
		if (!err && !kmod_module_get_path(mod))
			err = -ENOENT;
		/* With what modprobe.d says, as modprobe does it. */
		if (!err) {
			const char *configured = kmod_module_get_options(mod), *all = options;

			if (configured && strstr(configured, "l1d_flush="))
				all = given;
			err = kmod_module_probe_insert_module(mod, KMOD_PROBE_FAIL_ON_LOADED, all, NULL, NULL, NULL);
		}
	}
	if (err)
		return load_error(err < 0 ? -err : EIO, log);
	kmod_module_unref(mod);
	kmod_unref(ctx);
	read_line(version, sizeof(version), "/sys/module/keel/version");
	printf("keel %s is loaded: %s\n", version, log_find(log, "keel: "));
	return share_with_others();
}

/* ---------------------------------------------------------------- unload */

static int busy(void)
{
	struct processes p;
	unsigned int i;

	complain(0, "not unloaded, it is in use%s", "");
	processes_read(&p);
	for (i = 0; i < p.n; i++) {
		const struct process *q = &p.list[i];
		char name[64], user[64];

		if (!q->keel_vms && !q->keel_nodes)
			continue;
		process_name(q->pid, name, sizeof(name));
		process_user(q->pid, user, sizeof(user));
		if (q->keel_vms)
			fprintf(stderr, "  %s (%d) of %s has %d VM%s\n", name, q->pid, user, q->keel_vms,
				q->keel_vms == 1 ? "" : "s");
		else
			fprintf(stderr, "  %s (%d) of %s has " NODE " open\n", name, q->pid, user);
	}
	free(p.list);
	return EXIT_BUSY;
}

int cmd_unload(int argc, char **argv)
{
	struct kmod_module *mod;
	struct kmod_ctx *ctx;
	int err;

	(void)argv;
	if (argc > 1)
		return usage_of("unload");
	if (!module_loaded("keel")) {
		printf("keel is not loaded\n");
		return EXIT_OK;
	}
	ctx = need(kmod_new(NULL, NULL));
	err = kmod_module_new_from_name(ctx, "keel", &mod);
	if (!err)
		err = kmod_module_remove_module(mod, KMOD_REMOVE_NOLOG);
	switch (-err) {
	case 0:
		kmod_module_unref(mod);
		kmod_unref(ctx);
		printf("keel is unloaded\n");
		return EXIT_OK;
	case EPERM:
		return complain(EXIT_NO_PERMISSION, "unloading a module takes root");
	case EAGAIN:
	case EBUSY:
		return busy();
	default:
		return complain(EXIT_FAILED, "not unloaded: %s", strerror(-err));
	}
}
