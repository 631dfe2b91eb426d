# SPDX-License-Identifier: GPL-2.0-only
#
# make                  keel.ko for the running kernel (or, if that has no headers here, the newest Debian 6.1 one)
# make KVER=6.12.1-x    for that kernel; KDIR=DIR: for that kernel build tree
# make W=1 C=1          with more compiler warnings and sparse
# make deps             install what building and testing need (Debian packages; root or sudo); some targets below install more
# make demo             a guest Linux on keel, in the lab machine
# make check            the tests: units, ioctls, guests, on AMD and Intel machines; those below that take long, or more packages, are not in it
# make bench            what exits cost, beside the kernel's own kvm module, with mitigations and without, on 6.1 and 6.12 (root)
# make boots            the lab machine twenty times in a row, each with its own layout in memory (KASLR)
# make kvm-selftests    the kernel's own tests of KVM, on its module and on keel (RELEASE=sid: those of the newest kernel)
# make shell            a shell in the lab machine, keel loaded
# make tools            the command keel and the library libkeel, in build/tools and build/libkeel
# make examples         the programs in examples/, in build/examples
# make examples-test    runs them in the lab machine, and says what they cost
# make deb              Debian packages, in build/deb
# make package-test     installs, uses, upgrades and purges them in a Debian of their own (root)
# make libvirt-test     libvirt on keel, and live migration between two hosts (root)
# make matrix           builds for the kernels of three Debian releases and their flavours, and boots them where there is a machine for it (root)
# make qemus            the guests of check on the QEMUs of Debian's next releases, 10 and 11 (root)
# make stress           what takes long to be sure of: CPU hotplug, resets, guests beside kvm's, AMX, a large dirty log
# make docs             the pictures in docs/img, from the .dot files beside them (graphviz)
# make load / unload    the module, on this machine
# make install          the module, for this machine's kernel

# What other programs say is read, here and there; what is called without make says so itself.
export LC_ALL := C.UTF-8

top := $(CURDIR)
lab := selftests/lab

KVER ?= $(shell r=$$(uname -r); [ -e /lib/modules/$$r/build/Makefile ] && echo $$r || $(lab)/kernel-version)
KDIR ?= /lib/modules/$(KVER)/build

# Two builds in one directory spoil each other: the second waits.
kmake = mkdir -p build && flock build/.lock $(MAKE) -C $(KDIR) M=$(top)

.PHONY: all clean install load unload tools examples examples-test deb docs deps demo check bench kvm-selftests shell package-test libvirt-test matrix boots qemus stress
all:
	+@[ -e "$(KDIR)/Makefile" ] || { echo "no kernel build tree at '$(KDIR)': make deps, or give KVER= or KDIR="; exit 1; }
	+@$(kmake) modules

# One object or listing, to look at: make kmod/run.o, make kmod/run.s
kmod/%: FORCE
	+@$(kmake) $@
FORCE:

install: all
	+@$(kmake) modules_install
	depmod -a $(KVER)

load: all
	insmod keel.ko

unload:
	rmmod keel

clean:
	+@[ ! -e "$(KDIR)/Makefile" ] || $(kmake) clean
	rm -rf --one-file-system build
	+@for d in selftests selftests/unit; do [ ! -e $$d/Makefile ] || $(MAKE) -s -C $$d clean; done

tools:
	+@$(MAKE) -s -C tools
	+@$(MAKE) -s -C libkeel

examples:
	+@$(lab)/deps examples
	+@for d in examples/*/Makefile; do $(MAKE) -s -C $${d%/Makefile} || exit 1; done

examples-test: examples
	+@for d in examples/*/Makefile; do $(MAKE) -s -C $${d%/Makefile} demo || exit 1; done

docs: $(patsubst %.dot,%.svg,$(wildcard docs/img/*.dot))
%.svg: %.dot
	dot -Tsvg -o $@ $<

deb:
	+@debian/make-debs

deps demo check bench kvm-selftests shell package-test libvirt-test matrix boots qemus stress:
	+@$(lab)/$@
