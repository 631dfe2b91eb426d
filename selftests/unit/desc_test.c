// SPDX-License-Identifier: GPL-2.0-only
/* The base of a 64-bit TSS descriptor, each bit of it alone and together, whatever else is in the descriptor. */
#include <string.h>
#include "vmx/desc.h"
#include "tap.h"

/* SDM 3A figure 7-4, byte by byte. */
static void make(u64 desc[2], u64 base, u8 other)
{
	u8 b[16];

	memset(b, other, sizeof(b));
	b[2] = base;
	b[3] = base >> 8;
	b[4] = base >> 16;
	b[7] = base >> 24;
	b[8] = base >> 32;
	b[9] = base >> 40;
	b[10] = base >> 48;
	b[11] = base >> 56;
	memcpy(desc, b, sizeof(b));
}

static bool same(u64 base)
{
	u64 clear[2], set[2];

	make(clear, base, 0);
	make(set, base, 0xff);
	return vmx_desc_base(clear) == base && vmx_desc_base(set) == base;
}

int main(void)
{
	/* Of CPU entry areas: where it is without KASLR, and with it, bit 31 clear and set. */
	static const u64 bases[] = { 0, ~0ull, 0xfffffe0000003000, 0xfffffe4a12345000, 0xfffffe4a92345000 };
	unsigned int i;
	bool ok = true;

	for (i = 0; i < sizeof(bases) / sizeof(*bases); i++)
		tap_result(same(bases[i]), "base %#llx", (unsigned long long)bases[i]);
	for (i = 0; i < 64; i++)
		ok &= same(1ull << i);
	tap_result(ok, "each bit of the base alone");
	tap_plan_done();
	return tap_exit();
}
