/* SPDX-License-Identifier: GPL-2.0-only */
/* trace.h - trace events: /sys/kernel/tracing/events/keel/. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM keel

#if !defined(KEEL_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define KEEL_TRACE_H

#include <linux/tracepoint.h>
#include "keel.h"

TRACE_EVENT(keel_entry,
	TP_PROTO(struct keel_vcpu *vcpu),
	TP_ARGS(vcpu),
	TP_STRUCT__entry(__field(u32, id) __field(u64, requests)),
	TP_fast_assign(__entry->id = vcpu->id; __entry->requests = vcpu->requests;),
	TP_printk("vcpu %u requests 0x%llx", __entry->id, __entry->requests)
);

TRACE_EVENT(keel_exit,
	TP_PROTO(struct keel_vcpu *vcpu, u32 slot, const char *name, u64 info1, u64 info2),
	TP_ARGS(vcpu, slot, name, info1, info2),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u32, slot)
		__field(u64, rip)
		__field(u64, info1)
		__field(u64, info2)
		__array(char, name, 20)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->slot = slot;
		__entry->rip = keel_reg(vcpu, KEEL_RIP);
		__entry->info1 = info1;
		__entry->info2 = info2;
		strscpy(__entry->name, name ?: "?", sizeof(__entry->name));
	),
	TP_printk("vcpu %u %s (%u) rip 0x%llx info 0x%llx 0x%llx", __entry->id, __entry->name, __entry->slot,
		  __entry->rip, __entry->info1, __entry->info2)
);

TRACE_EVENT(keel_page_fault,
	TP_PROTO(struct keel_vcpu *vcpu, u64 gpa, u64 error),
	TP_ARGS(vcpu, gpa, error),
	TP_STRUCT__entry(__field(u32, id) __field(u64, gpa) __field(u64, error)),
	TP_fast_assign(__entry->id = vcpu->id; __entry->gpa = gpa; __entry->error = error;),
	TP_printk("vcpu %u gpa 0x%llx error 0x%llx", __entry->id, __entry->gpa, __entry->error)
);

/* @shadow: of a linear page, in shadow paging's tables; else of a guest-physical one. */
TRACE_EVENT(keel_map,
	TP_PROTO(struct keel_vcpu *vcpu, u64 addr, unsigned int level, u64 pte, bool shadow),
	TP_ARGS(vcpu, addr, level, pte, shadow),
	TP_STRUCT__entry(__field(u32, id) __field(u8, level) __field(bool, shadow) __field(u64, addr) __field(u64, pte)),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->level = level;
		__entry->shadow = shadow;
		__entry->addr = addr;
		__entry->pte = pte;
	),
	TP_printk("vcpu %u %s 0x%llx level %u entry 0x%llx", __entry->id, __entry->shadow ? "gva" : "gpa",
		  __entry->addr, __entry->level, __entry->pte)
);

/*
 * Numbers, which perf and trace-cmd can read in the format: for names of an enum the kernel would go through the
 * formats of all its events each time that the module is loaded. trace.c has their meaning checked.
 */
TRACE_EVENT(keel_inject,
	TP_PROTO(struct keel_vcpu *vcpu, const struct keel_event *ev),
	TP_ARGS(vcpu, ev),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u8, type)
		__field(u8, vector)
		__field(bool, has_error)
		__field(u32, error)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->type = ev->type;
		__entry->vector = ev->vector;
		__entry->has_error = ev->has_error;
		__entry->error = ev->error;
	),
	TP_printk("vcpu %u %s vector %u%s error 0x%x", __entry->id,
		  __print_symbolic(__entry->type,
				   { 1, "interrupt" }, { 2, "nmi" }, { 3, "exception" }, { 4, "int n" }, { 5, "int3/into" }),
		  __entry->vector, __entry->has_error ? "" : " no", __entry->error)
);

TRACE_EVENT(keel_mmio,
	TP_PROTO(struct keel_vcpu *vcpu, u64 gpa, unsigned int len, bool write, const u8 *data),
	TP_ARGS(vcpu, gpa, len, write, data),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(unsigned int, len)
		__field(u64, gpa)
		__field(u64, val)
		__field(bool, write)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->len = len;
		__entry->gpa = gpa;
		__entry->val = 0;
		memcpy(&__entry->val, data, min(len, 8u));
		__entry->write = write;
	),
	TP_printk("vcpu %u %s gpa 0x%llx len %u val 0x%llx", __entry->id, __entry->write ? "write" : "read",
		  __entry->gpa, __entry->len, __entry->val)
);

TRACE_EVENT(keel_pio,
	TP_PROTO(struct keel_vcpu *vcpu, u16 port, unsigned int size, unsigned int count, bool write),
	TP_ARGS(vcpu, port, size, count, write),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(unsigned int, size)
		__field(unsigned int, count)
		__field(u16, port)
		__field(bool, write)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->size = size;
		__entry->count = count;
		__entry->port = port;
		__entry->write = write;
	),
	TP_printk("vcpu %u %s port 0x%x size %u count %u", __entry->id, __entry->write ? "out" : "in",
		  __entry->port, __entry->size, __entry->count)
);

TRACE_EVENT(keel_msr,
	TP_PROTO(struct keel_vcpu *vcpu, u32 msr, u64 val, bool write, bool fault),
	TP_ARGS(vcpu, msr, val, write, fault),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u32, msr)
		__field(u64, val)
		__field(bool, write)
		__field(bool, fault)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->msr = msr;
		__entry->val = val;
		__entry->write = write;
		__entry->fault = fault;
	),
	TP_printk("vcpu %u %s 0x%x = 0x%llx%s", __entry->id, __entry->write ? "wrmsr" : "rdmsr", __entry->msr,
		  __entry->val, __entry->fault ? " #GP" : "")
);

TRACE_EVENT(keel_cpuid,
	TP_PROTO(struct keel_vcpu *vcpu, u32 function, u32 index, u32 eax, u32 ebx, u32 ecx, u32 edx),
	TP_ARGS(vcpu, function, index, eax, ebx, ecx, edx),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u32, function)
		__field(u32, index)
		__field(u32, eax)
		__field(u32, ebx)
		__field(u32, ecx)
		__field(u32, edx)
	),
	TP_fast_assign(
		__entry->id = vcpu->id;
		__entry->function = function;
		__entry->index = index;
		__entry->eax = eax;
		__entry->ebx = ebx;
		__entry->ecx = ecx;
		__entry->edx = edx;
	),
	TP_printk("vcpu %u leaf 0x%x.%x = %x %x %x %x", __entry->id, __entry->function, __entry->index,
		  __entry->eax, __entry->ebx, __entry->ecx, __entry->edx)
);

TRACE_EVENT(keel_hypercall,
	TP_PROTO(struct keel_vcpu *vcpu, u64 nr, long ret),
	TP_ARGS(vcpu, nr, ret),
	TP_STRUCT__entry(__field(u32, id) __field(u64, nr) __field(long, ret)),
	TP_fast_assign(__entry->id = vcpu->id; __entry->nr = nr; __entry->ret = ret;),
	TP_printk("vcpu %u nr 0x%llx ret %ld", __entry->id, __entry->nr, __entry->ret)
);

TRACE_EVENT(keel_irq,
	TP_PROTO(u32 vcpu_id, u8 vector, u32 mode, bool level),
	TP_ARGS(vcpu_id, vector, mode, level),
	TP_STRUCT__entry(__field(u32, id) __field(u8, vector) __field(u32, mode) __field(bool, level)),
	TP_fast_assign(__entry->id = vcpu_id; __entry->vector = vector; __entry->mode = mode; __entry->level = level;),
	TP_printk("vcpu %u vector %u mode %u %s", __entry->id, __entry->vector, __entry->mode,
		  __entry->level ? "level" : "edge")
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
