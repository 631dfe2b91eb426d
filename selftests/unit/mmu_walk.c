// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk of a guest's page tables: each format and page size, who may do what, reserved bits, accessed and dirty
 * bits, and tables that change or are not there.
 */
#include <errno.h>
#include "mmu/walk.h"
#include "tap.h"

#define P	0x01ull
#define W	0x02ull
#define U	0x04ull
#define A	0x20ull
#define D	0x40ull
#define PS	0x80ull
#define NX	(1ull << 63)
#define ALL	(P | W | U)

#define LMA	0x400ull
#define NXE	0x800ull

#define E_P	0x01
#define E_W	0x02
#define E_U	0x04
#define E_RSVD	0x08
#define E_I	0x10
#define E_PK	0x20

/* ------------------------------------------------- a guest's memory */

#define MEM	0x40000
static u8 mem[MEM] __attribute__((aligned(4096)));
static unsigned int reads, read_limit;	/* reads after which -EAGAIN comes, 0: never */
static bool rom;			/* writes fail */
static bool cmpxchg_again;		/* -EAGAIN */
static u64 race_gpa, race_value;	/* changes under the first compare-and-exchange there */

int keel_vcpu_read(struct keel_vcpu *vcpu, u64 gpa, void *buf, unsigned int len)
{
	if (read_limit && ++reads > read_limit)
		return -EAGAIN;
	if (gpa > MEM || len > MEM - gpa)
		return -EFAULT;
	memcpy(buf, mem + gpa, len);
	return 0;
}

int keel_vcpu_cmpxchg(struct keel_vcpu *vcpu, u64 gpa, void *old, const void *new, unsigned int len)
{
	if (cmpxchg_again)
		return -EAGAIN;
	if (rom || gpa > MEM || len > MEM - gpa)
		return -EFAULT;
	if (race_gpa && race_gpa == gpa) {
		memcpy(mem + gpa, &race_value, len);
		race_gpa = 0;
	}
	if (memcmp(mem + gpa, old, len)) {
		memcpy(old, mem + gpa, len);
		return 1;
	}
	memcpy(mem + gpa, new, len);
	return 0;
}

static void put64(u64 gpa, u64 val)
{
	memcpy(mem + gpa, &val, 8);
}

static u64 get64(u64 gpa)
{
	u64 val;

	memcpy(&val, mem + gpa, 8);
	return val;
}

static void put32(u64 gpa, u32 val)
{
	memcpy(mem + gpa, &val, 4);
}

static u32 get32(u64 gpa)
{
	u32 val;

	memcpy(&val, mem + gpa, 4);
	return val;
}

/* ------------------------------------------------- the modes */

enum mode { M32, PAE, LA48, LA57 };
static const char *const mode_name[] = { "32-bit", "PAE", "4-level", "5-level" };

static struct mmu_walk_env env;

static void setup(enum mode mode)
{
	memset(mem, 0, sizeof(mem));
	reads = read_limit = 0;
	rom = cmpxchg_again = false;
	race_gpa = 0;
	env = (struct mmu_walk_env) {
		.cr0 = X86_CR0_PG | X86_CR0_PE | X86_CR0_WP,
		.cr3 = 0x1000,
		.cr4 = mode == M32 ? X86_CR4_PSE : X86_CR4_PAE,
		.efer = mode == M32 ? 0 : NXE,
		.maxphyaddr = 40,
		.gbpages = true,
	};
	if (mode >= LA48)
		env.efer |= LMA;
	if (mode == LA57)
		env.cr4 |= X86_CR4_LA57;
}

/* Where the entry for @gva stands when the table of level n is at n * 0x1000 below the top's 0x1000. */
static unsigned int levels(enum mode mode)
{
	return mode == M32 ? 2 : mode == PAE ? 3 : mode == LA48 ? 4 : 5;
}

static u64 table_of(enum mode mode, unsigned int level)
{
	return 0x1000 * (levels(mode) - level + 1);
}

static u64 entry_gpa(enum mode mode, unsigned int level, u64 gva)
{
	unsigned int bits = mode == M32 ? 10 : 9, size = mode == M32 ? 4 : 8;
	u64 index = gva >> (12 + (level - 1) * bits) & ((1u << bits) - 1);

	return table_of(mode, level) + index * size;
}

static void put(enum mode mode, unsigned int level, u64 gva, u64 entry)
{
	if (mode == M32)
		put32(entry_gpa(mode, level, gva), entry);
	else
		put64(entry_gpa(mode, level, gva), entry);
}

static u64 get(enum mode mode, unsigned int level, u64 gva)
{
	return mode == M32 ? get32(entry_gpa(mode, level, gva)) : get64(entry_gpa(mode, level, gva));
}

/* Tables down to @leaf with full rights, and the leaf @entry. */
static void map(enum mode mode, u64 gva, unsigned int leaf, u64 entry)
{
	unsigned int level;

	for (level = levels(mode); level > leaf; level--)
		put(mode, level, gva, table_of(mode, level - 1) | (mode == PAE && level == 3 ? P : ALL));
	put(mode, leaf, gva, entry);
}

static struct emul_fault fault;
static u64 gpa;

static int walk(u64 gva, u32 access)
{
	memset(&fault, 0xee, sizeof(fault));
	gpa = 0xdeadbeef;
	return mmu_walk(NULL, &env, gva, access, &gpa, &fault, NULL);
}

static bool leads(u64 gva, u32 access, u64 want)
{
	return walk(gva, access) == 0 && gpa == want;
}

static bool faults(u64 gva, u32 access, u32 error)
{
	return walk(gva, access) == 1 && fault.vector == 14 && fault.has_error && fault.cr2 == gva &&
	       fault.error == error;
}

#define is(cond, ...) tap_result(cond, __VA_ARGS__)

/* ------------------------------------------------- tests */

static void test_no_paging(void)
{
	setup(M32);
	env.cr0 = X86_CR0_PE;
	is(leads(0x12345678, MMU_ACC_WRITE | MMU_ACC_USER, 0x12345678), "without paging an address is itself");
}

static const u64 a_gva[] = { 0xbf123456, 0xbf123456, 0x7f8012345678, 0x00ff807012345678 };

static void test_small(enum mode mode)
{
	u64 gva = a_gva[mode], off = gva & 0xfff;
	unsigned int level;
	bool all = true;

	setup(mode);
	map(mode, gva, 1, 0x77000 | ALL);
	is(leads(gva, 0, 0x77000 | off), "%s: 4 KB page", mode_name[mode]);
	for (level = levels(mode); level; level--) {
		bool want = !(mode == PAE && level == 3);

		all &= !!(get(mode, level, gva) & A) == want;
		all &= !(get(mode, level, gva) & D);
	}
	is(all, "%s: a read sets accessed at each level, dirty nowhere", mode_name[mode]);
	is(leads(gva, MMU_ACC_WRITE, 0x77000 | off) && get(mode, 1, gva) & D && !(get(mode, 2, gva) & D),
	   "%s: a write sets dirty in the leaf alone", mode_name[mode]);

	setup(mode);
	map(mode, gva, 1, 0x77000 | ALL);
	is(leads(gva, MMU_ACC_WRITE | MMU_ACC_NOAD, 0x77000 | off) && get(mode, 1, gva) == (0x77000 | ALL),
	   "%s: no bits set when not wanted", mode_name[mode]);

	for (level = levels(mode); level; level--) {
		setup(mode);
		map(mode, gva, 1, 0x77000 | ALL);
		put(mode, level, gva, get(mode, level, gva) & ~P);
		is(faults(gva, 0, 0) && faults(gva, MMU_ACC_WRITE | MMU_ACC_USER, E_W | E_U),
		   "%s: level %u not present", mode_name[mode], level);
		is(!(get(mode, levels(mode), gva) & A) || mode == PAE,
		   "%s: level %u not present, nothing touched", mode_name[mode], level);
	}
	setup(mode);
	map(mode, gva, 1, 0x77000 | ALL);
	put(mode, 2, gva, 0x3ffff000 | ALL);
	is(faults(gva, 0, 0), "%s: a table where there is no memory", mode_name[mode]);
}

static void test_large(void)
{
	u64 g;

	setup(M32);
	g = 0x00712345;
	map(M32, g, 2, 0x02c00000 | PS | ALL);
	is(leads(g, MMU_ACC_WRITE, 0x02c00000 | (g & 0x3fffff)), "32-bit: 4 MB page");
	is((get(M32, 2, g) & (A | D)) == (A | D), "32-bit: 4 MB page, accessed and dirty");
	map(M32, g, 2, 0x02c00000 | PS | ALL | 0xa5 << 13);
	is(leads(g, 0, 0xa502c00000 | (g & 0x3fffff)), "32-bit: 4 MB page above 4 GB");
	env.maxphyaddr = 36;
	is(faults(g, 0, E_P | E_RSVD), "32-bit: 4 MB page above what there is");
	map(M32, g, 2, 0x02c00000 | PS | ALL | 0x05 << 13);
	is(leads(g, 0, 0x502c00000 | (g & 0x3fffff)), "32-bit: 4 MB page just below");
	map(M32, g, 2, 0x02c00000 | PS | ALL | 1 << 21);
	is(faults(g, 0, E_P | E_RSVD), "32-bit: 4 MB page, bit 21");
	map(M32, g, 2, 0x02c00000 | PS | ALL | 1 << 12);
	is(leads(g, 0, 0x02c00000 | (g & 0x3fffff)), "32-bit: 4 MB page, PAT bit is no address bit");

	setup(M32);
	env.cr4 = 0;
	map(M32, g, 1, 0x55000 | ALL);
	put(M32, 2, g, 0x2000 | ALL | PS);
	is(leads(g, 0, 0x55000 | (g & 0xfff)), "32-bit: PS means nothing without CR4.PSE");

	for (enum mode m = PAE; m <= LA57; m++) {
		g = a_gva[m];
		setup(m);
		map(m, g, 2, 0x12400000 | PS | ALL);
		is(leads(g, MMU_ACC_WRITE, 0x12400000 | (g & 0x1fffff)), "%s: 2 MB page", mode_name[m]);
		is((get(m, 2, g) & (A | D)) == (A | D), "%s: 2 MB page, accessed and dirty", mode_name[m]);
		map(m, g, 2, 0x12400000 | PS | ALL | 1 << 12);
		is(leads(g, 0, 0x12400000 | (g & 0x1fffff)), "%s: 2 MB page, PAT", mode_name[m]);
		for (unsigned int bit = 13; bit <= 20; bit++) {
			map(m, g, 2, 0x12400000 | PS | ALL | 1 << bit);
			if (!faults(g, 0, E_P | E_RSVD))
				break;
			if (bit == 20)
				is(true, "%s: 2 MB page, reserved address bits", mode_name[m]);
		}
	}
	for (enum mode m = LA48; m <= LA57; m++) {
		bool ok = true;

		g = a_gva[m];
		setup(m);
		map(m, g, 3, 0x1c0000000 | PS | ALL);
		is(leads(g, 0, 0x1c0000000 | (g & 0x3fffffff)), "%s: 1 GB page", mode_name[m]);
		for (unsigned int bit = 13; bit <= 29; bit++) {
			map(m, g, 3, 0x1c0000000 | PS | ALL | 1 << bit);
			ok &= faults(g, 0, E_P | E_RSVD);
		}
		is(ok, "%s: 1 GB page, reserved address bits", mode_name[m]);
		map(m, g, 3, 0x1c0000000 | PS | ALL);
		env.gbpages = false;
		is(faults(g, 0, E_P | E_RSVD), "%s: 1 GB page where there are none", mode_name[m]);
	}
}

static void test_reserved(void)
{
	for (enum mode m = PAE; m <= LA57; m++) {
		u64 g = a_gva[m];
		unsigned int level;

		for (level = levels(m); level; level--) {
			bool ok = true, nx;

			setup(m);
			for (unsigned int bit = env.maxphyaddr; bit < 52; bit++) {
				map(m, g, 1, 0x77000 | ALL);
				put(m, level, g, get(m, level, g) | 1ull << bit);
				ok &= faults(g, MMU_ACC_WRITE, E_P | E_RSVD | E_W);
			}
			is(ok, "%s: level %u, above maxphyaddr", mode_name[m], level);

			/* software's bits, but not in PAE */
			ok = true;
			for (unsigned int bit = 52; bit < 63; bit++) {
				map(m, g, 1, 0x77000 | ALL);
				put(m, level, g, get(m, level, g) | 1ull << bit);
				ok &= m == PAE ? faults(g, 0, E_P | E_RSVD) : leads(g, 0, 0x77000 | (g & 0xfff));
			}
			is(ok, "%s: level %u, bits 62..52", mode_name[m], level);

			map(m, g, 1, 0x77000 | ALL);
			put(m, level, g, get(m, level, g) | NX);
			nx = m == PAE && level == 3;
			is(nx ? faults(g, 0, E_P | E_RSVD) : leads(g, 0, 0x77000 | (g & 0xfff)),
			   "%s: level %u, NX with EFER.NXE", mode_name[m], level);
			env.efer &= ~NXE;
			is(faults(g, 0, E_P | E_RSVD), "%s: level %u, NX without", mode_name[m], level);
			env.efer |= NXE;
			if (level > 3 || (m == PAE && level == 3)) {
				map(m, g, 1, 0x77000 | ALL);
				put(m, level, g, get(m, level, g) | PS);
				is(faults(g, 0, E_P | E_RSVD), "%s: level %u, PS", mode_name[m], level);
			}
		}
	}
	setup(PAE);
	map(PAE, a_gva[PAE], 1, 0x77000 | ALL);
	put(PAE, 3, a_gva[PAE], get(PAE, 3, a_gva[PAE]) | W);
	is(faults(a_gva[PAE], 0, E_P | E_RSVD), "PAE: rights in a top entry");
	setup(LA48);
	map(LA48, a_gva[LA48], 1, 0x77000 | ALL | 1ull << 40);
	put(LA48, 2, a_gva[LA48], table_of(LA48, 1));
	is(faults(a_gva[LA48], 0, 0), "not present comes before reserved further down");
}

/* Who may: the rule is written here a second time, the long way, and all combinations compared. */
struct rule {
	u64 rights;		/* W, U, NX of the page */
	u32 access;
	bool wp, smep, smap, ac;
};

static bool allowed(const struct rule *r)
{
	if (r->access & MMU_ACC_USER) {
		if (!(r->rights & U))
			return false;
		if (r->access & MMU_ACC_WRITE)
			return r->rights & W;
		return !(r->access & MMU_ACC_FETCH && r->rights & NX);
	}
	if (r->access & MMU_ACC_FETCH) {
		if (r->rights & NX)
			return false;
		return !(r->rights & U && r->smep);
	}
	if (r->rights & U && r->smap) {
		if (r->access & MMU_ACC_SYSTEM)
			return false;
		if (!r->ac)
			return false;
	}
	if (r->access & MMU_ACC_WRITE)
		return r->rights & W || !r->wp;
	return true;
}

static u32 expected_error(const struct rule *r, enum mode mode)
{
	u32 err = E_P;

	if (r->access & MMU_ACC_WRITE)
		err |= E_W;
	if (r->access & MMU_ACC_USER)
		err |= E_U;
	if (r->access & MMU_ACC_FETCH && (mode != M32 || r->smep))
		err |= E_I;
	return err;
}

static void test_rights(enum mode mode)
{
	static const u32 accesses[] = {
		0, MMU_ACC_WRITE, MMU_ACC_FETCH, MMU_ACC_SYSTEM, MMU_ACC_SYSTEM | MMU_ACC_WRITE,
		MMU_ACC_USER, MMU_ACC_USER | MMU_ACC_WRITE, MMU_ACC_USER | MMU_ACC_FETCH,
	};
	unsigned int where, i, a, bad = 0, denied = 0;
	u64 g = a_gva[mode];

	/* the right is missing in the leaf, or a level further up */
	for (where = 1; where <= (mode == PAE ? 2 : levels(mode)); where++)
		for (i = 0; i < 128; i++)
			for (a = 0; a < sizeof(accesses) / sizeof(*accesses); a++) {
				struct rule r = {
					.rights = (i & 1 ? W : 0) | (i & 2 ? U : 0) | (i & 4 && mode != M32 ? NX : 0),
					.access = accesses[a],
					.wp = i & 8, .smep = i & 16, .smap = i & 32, .ac = i & 64,
				};
				u64 leaf = 0x77000 | ALL, e;
				bool ok;

				setup(mode);
				map(mode, g, 1, leaf);
				e = (get(mode, where, g) & ~(W | U)) | r.rights;
				put(mode, where, g, e);
				env.cr0 = X86_CR0_PE | X86_CR0_PG | (r.wp ? X86_CR0_WP : 0);
				env.cr4 |= (r.smep ? X86_CR4_SMEP : 0) | (r.smap ? X86_CR4_SMAP : 0);
				env.ac = r.ac;
				if (allowed(&r)) {
					ok = leads(g, r.access, 0x77000 | (g & 0xfff));
				} else {
					ok = faults(g, r.access, expected_error(&r, mode)) &&
					     get(mode, where, g) == e;
					denied++;
				}
				bad += !ok;
				/* whatever the rights, for those who only look */
				bad += !leads(g, r.access | MMU_ACC_ANY | MMU_ACC_NOAD, 0x77000 | (g & 0xfff));
			}
	is(!bad && denied, "%s: rights, %u refusals, %u wrong", mode_name[mode], denied, bad);
}

static void test_pkeys(void)
{
	u64 g = a_gva[LA48];

	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL | 5ull << 59);
	env.pkru = 1 << 10;
	is(leads(g, MMU_ACC_USER, 0x77000 | (g & 0xfff)), "pkeys: nothing without CR4.PKE");
	env.cr4 |= X86_CR4_PKE;
	is(faults(g, MMU_ACC_USER, E_P | E_U | E_PK), "pkeys: access disabled, user");
	is(faults(g, 0, E_P | E_PK), "pkeys: access disabled, supervisor on a user page");
	is(leads(g, MMU_ACC_USER | MMU_ACC_FETCH, 0x77000 | (g & 0xfff)), "pkeys: fetches go");
	env.pkru = 2 << 10;
	is(leads(g, MMU_ACC_USER, 0x77000 | (g & 0xfff)), "pkeys: write disabled, read");
	is(faults(g, MMU_ACC_USER | MMU_ACC_WRITE, E_P | E_U | E_W | E_PK), "pkeys: write disabled, write");
	is(faults(g, MMU_ACC_WRITE, E_P | E_W | E_PK), "pkeys: write disabled, supervisor with WP");
	env.cr0 &= ~X86_CR0_WP;
	is(leads(g, MMU_ACC_WRITE, 0x77000 | (g & 0xfff)), "pkeys: write disabled, supervisor without WP");
	env.pkru = ~(3u << 10);
	is(leads(g, MMU_ACC_USER | MMU_ACC_WRITE, 0x77000 | (g & 0xfff)), "pkeys: other keys do not matter");
	map(LA48, g, 1, 0x77000 | P | W | 5ull << 59);
	env.pkru = ~0u;
	is(leads(g, MMU_ACC_WRITE, 0x77000 | (g & 0xfff)), "pkeys: supervisor pages have none");
	is(faults(g, MMU_ACC_USER, E_P | E_U), "pkeys: of a refusal anyway, no sign on a supervisor page");
	map(LA48, g, 1, 0x77000 | P | U | 5ull << 59);
	is(faults(g, MMU_ACC_USER | MMU_ACC_WRITE, E_P | E_U | E_W | E_PK), "pkeys: both refuse");
}

static void test_changes(void)
{
	u64 g = a_gva[LA48];

	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL);
	race_gpa = entry_gpa(LA48, 1, g);
	race_value = 0x99000 | ALL;
	is(leads(g, MMU_ACC_WRITE, 0x99000 | (g & 0xfff)) && get(LA48, 1, g) == (0x99000 | ALL | A | D),
	   "an entry changed under the walk: the new one counts");
	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL);
	race_gpa = entry_gpa(LA48, 2, g);
	race_value = 0;
	is(faults(g, MMU_ACC_WRITE, E_W) && !get(LA48, 2, g) && !(get(LA48, 1, g) & A),
	   "a table unhooked under the walk: no bits in what it led to");
	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL);
	race_gpa = entry_gpa(LA48, 1, g);
	race_value = 0x77000 | P | U;
	is(faults(g, MMU_ACC_WRITE | MMU_ACC_USER, E_P | E_W | E_U), "a right taken under the walk");
	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL);
	rom = true;
	is(leads(g, MMU_ACC_WRITE, 0x77000 | (g & 0xfff)), "tables in read-only memory");
	rom = false;
	cmpxchg_again = true;
	is(walk(g, 0) == -EAGAIN, "bits that cannot be set now");
	cmpxchg_again = false;
	for (unsigned int i = 1; i < 4; i++) {
		reads = 0;
		read_limit = i;
		is(walk(g, 0) == -EAGAIN, "table %u not at hand", i + 1);
	}
	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL | A | D);
	for (unsigned int level = 2; level <= 4; level++)
		put(LA48, level, g, get(LA48, level, g) | A);
	cmpxchg_again = true;
	is(leads(g, MMU_ACC_WRITE, 0x77000 | (g & 0xfff)), "bits that are set are not set again");
}

static void test_cr3(void)
{
	u64 pdptrs[4];
	u64 g = a_gva[LA48];

	setup(LA48);
	map(LA48, g, 1, 0x77000 | ALL);
	env.cr3 |= 0xfff | 1ull << 63;
	is(leads(g, 0, 0x77000 | (g & 0xfff)), "CR3: PCID and bit 63 are no address");
	setup(PAE);
	/* four entries at a place that is only 32-byte aligned */
	env.cr3 = 0x1fe0 | 0x18;
	put64(0x1fe0 + 8 * 2, 0x2000 | P);
	put64(0x2000 + 8 * (0xbf123456 >> 21 & 511), 0x3000 | ALL);
	put64(0x3000 + 8 * (0xbf123456 >> 12 & 511), 0x66000 | ALL);
	is(leads(0xbf123456, 0, 0x66456), "CR3: PAE tables are 32-byte aligned");
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == 1, "PDPTEs: one present, valid");
	put64(0x1fe0, 2);
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == 1, "PDPTEs: what is not present may hold anything");
	put64(0x1fe0, P | 1ull << 40);
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == 0, "PDPTEs: above maxphyaddr");
	put64(0x1fe0, P | U);
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == 0, "PDPTEs: reserved bits");
	put64(0x1fe0, P | NX);
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == 0, "PDPTEs: NX");
	env.cr3 = 0xfffff000;
	is(mmu_walk_pdptrs(NULL, &env, pdptrs) == -EFAULT, "PDPTEs: no memory there");

	setup(PAE);
	map(PAE, 0x12345000, 1, 0x77000 | ALL);
	is(walk(0xffffffff12345678, 0) == 0 && gpa == 0x77678, "32-bit formats take 32 bits of address");
	setup(PAE);
	map(PAE, 0xbf123456, 1, 0x66000 | ALL);
	env.pdptrs = (u64[4]) { [2] = get(PAE, 3, 0xbf123456) };
	put(PAE, 3, 0xbf123456, 0);
	put(PAE, 3, 0x123456, table_of(PAE, 2) | P);
	is(leads(0xbf123456, 0, 0x66456), "PAE: a top entry in a register, not in memory");
	is(faults(0x123456, 0, 0), "PAE: a top entry in memory, not in a register");
	setup(M32);
	env.cr3 = 0x100001fff;
	map(M32, 0x12345000, 1, 0x77000 | ALL);
	is(leads(0x12345678, 0, 0x77678), "CR3: 32 bits of it");
}

static void test_fetch_error(void)
{
	u64 g = a_gva[LA48];

	setup(LA48);
	is(faults(g, MMU_ACC_FETCH, E_I), "fetch shows in the error code with NXE");
	env.efer &= ~NXE;
	is(faults(g, MMU_ACC_FETCH, 0), "not without");
	env.cr4 |= X86_CR4_SMEP;
	is(faults(g, MMU_ACC_FETCH, E_I), "with SMEP it does");
	setup(M32);
	env.efer = NXE;
	is(faults(0x1000, MMU_ACC_FETCH, 0), "NXE counts only with PAE");
}

int main(void)
{
	test_no_paging();
	for (enum mode m = M32; m <= LA57; m++) {
		test_small(m);
		test_rights(m);
	}
	test_large();
	test_reserved();
	test_pkeys();
	test_changes();
	test_cr3();
	test_fetch_error();
	tap_plan_done();
	return tap_exit();
}
