// SPDX-License-Identifier: GPL-2.0-only
/*
 * exec.c - keel exec: a VMM opens /dev/kvm by name.  It gets a mount namespace of its own, in which keel's node is there,
 * and nobody else sees a difference.  Who is not root gets a user namespace with it, in which everybody is who they were;
 * the group that lets them open the node stays with them.
 *
 * Where the machine has no /dev/kvm to mount over, /dev becomes a tmpfs with all that was in it and the node.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/kvm.h>
#include "tool.h"

static bool write_file(const char *path, const char *fmt, unsigned int id)
{
	char text[64];
	int fd = open(path, O_WRONLY | O_CLOEXEC), n = snprintf(text, sizeof(text), fmt, id, id);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, n) == n;
	close(fd);
	return ok;
}

static int namespace_error(int err)
{
	if (err == EPERM || err == EACCES)
		return complain(EXIT_EXEC,
				"this system does not let its users have user namespaces (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), or this is a chroot: run it as root");
	if (err == ENOSPC || err == EUSERS)
		return complain(EXIT_EXEC, "no more user namespaces (sysctl user.max_user_namespaces): run it as root");
	return complain(EXIT_EXEC, "no namespace: %s", strerror(err));
}

static int enter_namespace(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (!unshare(CLONE_NEWNS))
		goto private;
	if (errno != EPERM || unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return namespace_error(errno);
	if (!write_file("/proc/self/setgroups", "deny", 0) || !write_file("/proc/self/uid_map", "%u %u 1", uid) ||
	    !write_file("/proc/self/gid_map", "%u %u 1", gid))
		return namespace_error(errno);
private:
	/* What is mounted elsewhere later still arrives here; what is mounted here stays here. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return complain(EXIT_EXEC, "the mount namespace cannot be made private: %s", strerror(errno));
	return 0;
}

/* One entry of /dev again, below @stage */
static int copy_entry(const char *stage, const char *name)
{
	char from[512], to[512], link[512];
	struct stat st;
	ssize_t n;
	int fd;

	snprintf(from, sizeof(from), "/dev/%s", name);
	snprintf(to, sizeof(to), "%s/%s", stage, name);
	if (lstat(from, &st))
		return 0;		/* gone by now */
	if (S_ISLNK(st.st_mode)) {
		n = readlink(from, link, sizeof(link) - 1);
		if (n < 0)
			return 0;
		link[n] = 0;
		return symlink(link, to);
	}
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(to, 0755))
			return -1;
	} else {
		fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0)
			return -1;
		close(fd);
	}
	if (!mount(from, to, NULL, MS_BIND | MS_REC, NULL))
		return 0;
	/* A socket's or a pipe's place may not be had so; nothing depends on it. */
	return S_ISDIR(st.st_mode) || S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? -1 : 0;
}

/* It is put together where nothing is lost by it, for a moment, and moved. */
static int private_dev(void)
{
	static const char stage[] = "/tmp";
	struct dirent *e;
	DIR *dev;
	int fd;

	if (mount("dev", stage, "tmpfs", MS_NOSUID, "mode=755,size=1m"))
		return complain(EXIT_EXEC, "no tmpfs: %s", strerror(errno));
	dev = opendir("/dev");
	while (dev && (e = readdir(dev)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && copy_entry(stage, e->d_name))
			return complain(EXIT_EXEC, "/dev/%s cannot be brought along: %s", e->d_name, strerror(errno));
	if (dev)
		closedir(dev);
	fd = open("/tmp/kvm", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	if (mount(stage, "/dev", NULL, MS_MOVE, NULL))
		return complain(EXIT_EXEC, "no private /dev: %s", strerror(errno));
	return 0;
}

static int make_vm(int node)
{
	int vm = ioctl(node, KVM_CREATE_VM, 0), err = errno;

	if (vm < 0)
		return -err;
	close(vm);
	return 0;
}

/*
 * Is it worth starting?  A VM is made and dropped, which says who has the hardware before a VMM says less.  When that is kvm,
 * it is shared.
 */
static int try_node(void)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC), err, share = 0;
	const char *holder;

	if (fd < 0)
		return node_error(errno), EXIT_EXEC;
	err = make_vm(fd);
	if (err == -EBUSY) {
		share = share_hand_over();
		if (!share)
			err = make_vm(fd);
	}
	close(fd);
	if (!err)
		return 0;
	/* Nobody says that it was kvm's. */
	if (share && share != -EOPNOTSUPP && share != -EBUSY)
		return share_error(share), EXIT_EXEC;
	if (err != -EBUSY)
		return complain(EXIT_EXEC, "no VM can be made: %s", strerror(-err));
	holder = virt_holder_now();
	return complain(EXIT_EXEC, "the CPU's virtualization is in use by %s, and cannot be shared; the kernel's log says why (dmesg)",
			holder ? holder : "another hypervisor (VirtualBox?)");
}

int cmd_exec(int argc, char **argv)
{
	int err;

	argv++, argc--;
	if (argc > 0 && !strcmp(argv[0], "--"))
		argv++, argc--;
	else if (argc > 0 && argv[0][0] == '-')
		return usage_of("exec"), EXIT_EXEC;
	if (argc < 1)
		return usage_of("exec"), EXIT_EXEC;
	err = try_node();
	if (!err)
		err = enter_namespace();
	if (!err && access(KVM_NODE, F_OK))
		err = private_dev();
	if (err)
		return err;
	if (mount(NODE, KVM_NODE, NULL, MS_BIND, NULL))
		return complain(EXIT_EXEC, NODE " cannot be mounted over " KVM_NODE ": %s", strerror(errno));
	execvp(argv[0], argv);
	return complain(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN, "%s: %s", argv[0], strerror(errno));
}
