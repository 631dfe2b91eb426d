// SPDX-License-Identifier: GPL-2.0-only
/*
 * host.c - what can be learned about this machine without asking the module: CPU, firmware, modules, and which processes
 * have virtual machines, by the names of the files they have open.
 */
#include <ctype.h>
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "tool.h"

bool read_line(char *buf, size_t size, const char *fmt, ...)
{
	char path[256];
	va_list ap;
	FILE *f;
	bool ok;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	*buf = 0;
	f = fopen(path, "re");
	if (!f)
		return false;
	ok = fgets(buf, size, f) != NULL;
	fclose(f);
	buf[strcspn(buf, "\n")] = 0;
	return ok;
}

/* ---------------------------------------------------------------- CPU and firmware */

static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);
	const char *p = line;

	while ((p = strstr(p, word))) {
		if ((p == line || isspace(p[-1])) && (!p[n] || isspace(p[n])))
			return true;
		p += n;
	}
	return false;
}

static void read_cpuinfo(struct host *h)
{
	static const char *const matter[] = {
		"npt", "nrip_save", "vgif", "decodeassists", "flushbyasid", "tsc_scale", "avic",
		"ept", "vpid", "unrestricted_guest", "vnmi", "flexpriority", "pml", "tsc_scaling", "apicv", "posted_intr",
	};
	static char flags[1 << 14], line[1 << 14];
	FILE *f = fopen("/proc/cpuinfo", "re");
	unsigned int i;

	flags[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ':');

		if (line[0] == '\n')
			break;		/* the first CPU is like the others */
		if (!value)
			continue;
		value += value[1] ? 2 : 1;
		value[strcspn(value, "\n")] = 0;
		if (!strncmp(line, "vendor_id", 9))
			snprintf(h->vendor, sizeof(h->vendor), "%.15s", value);
		else if (!strncmp(line, "model name", 10))
			snprintf(h->model, sizeof(h->model), "%.127s", value);
		else if (!strncmp(line, "flags", 5) || !strncmp(line, "vmx flags", 9))
			snprintf(flags + strlen(flags), sizeof(flags) - strlen(flags), " %s", value);
	}
	if (f)
		fclose(f);
	h->offered = h->virt && has_word(flags, h->virt);
	for (i = 0; i < ARRAY_SIZE(matter); i++)
		if (has_word(flags, matter[i]))
			snprintf(h->features + strlen(h->features), sizeof(h->features) - strlen(h->features), "%s%s",
				 h->features[0] ? " " : "", matter[i]);
}

/* MSRs by which firmware turns virtualization off; read as root, with the module msr loaded. */
static bool read_msr(u32 msr, u64 *value)
{
	int fd = open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = pread(fd, value, sizeof(*value), msr) == sizeof(*value);
	close(fd);
	return ok;
}

#define MSR_FEAT_CTL		0x3a		/* bit 0: locked; bit 2: VMX outside SMX */
#define MSR_VM_CR		0xc0010114	/* bit 4: SVM disabled */

static const char *read_firmware(const struct host *h)
{
	u64 v;

	if (!h->virt)
		return "unknown";
	if (!strcmp(h->virt, "svm") && read_msr(MSR_VM_CR, &v))
		return v & 1 << 4 ? "off" : "on";
	if (!strcmp(h->virt, "vmx") && read_msr(MSR_FEAT_CTL, &v))
		return !(v & 1) || v & 1 << 2 ? "on" : "off";
	/* The kernel reads them as well, and takes the flag away when it finds it useless. */
	if (!h->offered)
		return "off";
	return !strcmp(h->virt, "vmx") ? "on" : "unknown";
}

void host_read(struct host *h)
{
	unsigned int a, b, c, d;
	struct utsname u;

	memset(h, 0, sizeof(*h));
	if (__get_cpuid(1, &a, &b, &c, &d) && c & 1 << 5)
		h->virt = "vmx";
	else if (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1 << 2)
		h->virt = "svm";
	read_cpuinfo(h);
	h->firmware = read_firmware(h);
	if (!uname(&u))
		snprintf(h->kernel, sizeof(h->kernel), "%s", u.release);
}

const char *host_refuses(const struct host *h)
{
	if (!h->virt)
		return "this CPU has neither AMD SVM nor Intel VMX, or a hypervisor below hides it";
	if (!strcmp(h->firmware, "off"))
		return !strcmp(h->virt, "svm") ? "the firmware has turned SVM off: look for \"SVM\" or \"virtualization\" in its setup" :
			"the firmware (or the kernel) has turned VMX off: look for \"VT-x\" or \"virtualization\" in its setup";
	return NULL;
}

/* ---------------------------------------------------------------- modules */

bool module_loaded(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

int module_users(const char *name)
{
	char line[32];

	return read_line(line, sizeof(line), "/sys/module/%s/refcnt", name) ? atoi(line) : -1;
}

/* ---------------------------------------------------------------- processes */

/* The node's number, as st_rdev has it; 0 without a node */
static dev_t node_number(void)
{
	unsigned int minor;
	char name[32];
	dev_t dev = 0;
	FILE *f = fopen("/proc/misc", "re");

	while (f && fscanf(f, "%u %31s", &minor, name) == 2)
		if (!strcmp(name, "keel"))
			dev = makedev(10, minor);
	if (f)
		fclose(f);
	return dev;
}

static void look_at_files(struct process *p, DIR *dir, dev_t node)
{
	struct dirent *e;
	struct stat st;

	while ((e = readdir(dir))) {
		char to[64];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, to, sizeof(to) - 1);

		if (n < 0)
			continue;
		to[n] = 0;
		if (!strcmp(to, "anon_inode:keel-vm"))
			p->keel_vms++;
		else if (!strcmp(to, "anon_inode:kvm-vm"))
			p->kvm_vms++;
		/* It may have been found under another name. */
		else if (node && !strncmp(to, "/dev/", 5) && !fstatat(dirfd(dir), e->d_name, &st, 0) &&
			 S_ISCHR(st.st_mode) && st.st_rdev == node)
			p->keel_nodes++;
	}
}

/*
 * Those of others may not even be there to be looked into: in a PID namespace of our own, or where /proc keeps them
 * from us.
 */
static bool some_are_not_listed(void)
{
	static const char first_pid_namespace[] = "pid:[4026531836]";
	char line[256] = "", dir[64], options[256];
	bool yes;
	FILE *f;

	yes = readlink("/proc/self/ns/pid", line, sizeof(line) - 1) < 0 || strcmp(line, first_pid_namespace);
	f = geteuid() ? fopen("/proc/self/mounts", "re") : NULL;
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %63s %*s %255s", dir, options) == 2 && !strcmp(dir, "/proc"))
			yes |= strstr(options, "hidepid=") != NULL;
	if (f)
		fclose(f);
	return yes;
}

void processes_read(struct processes *all)
{
	DIR *proc = opendir("/proc");
	dev_t node = node_number();
	struct dirent *e;

	memset(all, 0, sizeof(*all));
	all->hidden = some_are_not_listed();
	while (proc && (e = readdir(proc))) {
		struct process p = { .pid = atoi(e->d_name) };
		char path[64];
		DIR *dir;

		if (p.pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fd", p.pid);
		dir = opendir(path);
		if (!dir) {
			all->hidden += errno == EACCES || errno == EPERM;
			continue;
		}
		look_at_files(&p, dir, node);
		closedir(dir);
		if (!p.keel_nodes && !p.keel_vms && !p.kvm_vms)
			continue;
		all->list = need(realloc(all->list, (all->n + 1) * sizeof(p)));
		all->list[all->n++] = p;
	}
	if (proc)
		closedir(proc);
}

/* QEMU's -name, which is what people call the VM */
static bool vm_name(pid_t pid, char *buf, size_t size)
{
	static char args[1 << 16];
	char path[64], *p;
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	f = fopen(path, "re");
	if (f) {
		n = fread(args, 1, sizeof(args) - 1, f);
		fclose(f);
	}
	args[n] = 0;
	for (p = args; p < args + n; p += strlen(p) + 1)
		if (!strcmp(p, "-name") || !strcmp(p, "--name"))
			break;
	if (p >= args + n)
		return false;
	p += strlen(p) + 1;
	if (p >= args + n)
		return false;
	if (!strncmp(p, "guest=", 6))
		p += 6;
	snprintf(buf, size, "%.*s", (int)strcspn(p, ","), p);
	return buf[0];
}

/* How long the character at @p is in UTF-8, and which it is; 0: it is none, or its end is cut off. */
static unsigned int utf8(const unsigned char *p, u32 *c)
{
	static const u32 least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned int n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 0xe ? 3 : *p >> 3 == 0x1e ? 4 : 0, i;

	*c = n > 1 ? *p & 0x7f >> n : *p;
	for (i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		*c = *c << 6 | (p[i] & 0x3f);
	}
	return n && (n == 1 || (*c >= least[n] && *c <= 0x10ffff && *c >> 11 != 0x1b)) ? n : 0;
}

/*
 * It is somebody else's text, and goes to a terminal, or into JSON: no controls, nor what changes the direction of what
 * follows.
 */
static void make_printable(char *text)
{
	unsigned char *p = (void *)text;

	while (*p) {
		u32 c;
		unsigned int n = utf8(p, &c);
		bool bad = !n || c < ' ' || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
			   (c >= 0x2066 && c <= 0x2069);

		n = n ?: 1;
		if (bad)
			memset(p, '?', n);
		p += n;
	}
}

void process_name(pid_t pid, char *buf, size_t size)
{
	if (!vm_name(pid, buf, size) && !read_line(buf, size, "/proc/%d/comm", pid))
		snprintf(buf, size, "?");
	make_printable(buf);
}

void process_user(pid_t pid, char *buf, size_t size)
{
	char path[64];
	struct passwd *pw;
	struct stat st;

	snprintf(buf, size, "?");
	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (stat(path, &st))
		return;
	pw = getpwuid(st.st_uid);
	if (pw)
		snprintf(buf, size, "%s", pw->pw_name);
	else
		snprintf(buf, size, "%u", st.st_uid);
}

const char *virt_holder(const struct host *h, const struct processes *p)
{
	const char *kvm = h->virt && !strcmp(h->virt, "svm") ? "kvm_amd" : "kvm_intel";
	char line[8];
	unsigned int i;

	/* Handed over, or in use so. */
	if (read_line(line, sizeof(line), STATE "/token") && line[0] == '1')
		return kvm;
	for (i = 0; i < p->n; i++) {
		if (p->list[i].keel_vms)
			return "keel";
		if (p->list[i].kvm_vms)
			return kvm;
	}
	/* Newer ones take it when they are loaded, if they are not told otherwise. */
	if (module_loaded(kvm) && read_line(line, sizeof(line), "/sys/module/kvm/parameters/enable_virt_at_load") &&
	    line[0] == 'Y')
		return kvm;
	if (module_users(kvm) > 0)
		return kvm;
	if (module_users("vboxdrv") > 0)
		return "vboxdrv";
	if (module_users("vmmon") > 0)
		return "vmmon";
	return NULL;
}

const char *virt_holder_now(void)
{
	struct processes p;
	const char *holder;
	struct host h;

	host_read(&h);
	processes_read(&p);
	holder = virt_holder(&h, &p);
	free(p.list);
	return holder;
}

int node_error(int err)
{
	switch (err) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		if (module_loaded("keel"))
			return complain(EXIT_FAILED, "the module is loaded but " NODE " is not there: does udev run?");
		return complain(EXIT_NOT_LOADED, "the module is not loaded: keel load, as root");
	case EACCES:
	case EPERM:
		return complain(EXIT_NO_PERMISSION,
				"no access to " NODE ": it is for root and group kvm (as root: adduser USER kvm, then log in again)");
	default:
		return complain(EXIT_FAILED, NODE ": %s", strerror(err));
	}
}
