/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sandbox.h - who tells whom what: the server (server.c), the template (template.c), its children, and the guest (init.c).
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest.h"

#define PROGRAM_MAX	(128 << 10)	/* as large as a message of a socket may be */
#define OUTPUT_MAX	(128 << 10)

/* How a program ended */
enum end {
	END_RAN = 1,		/* and has a status */
	END_OUTPUT,		/* it had more than OUTPUT_MAX to say */
	END_MEMORY,		/* the guest had no more memory, and killed something for it */
	END_GUEST,		/* the guest ended, and has not said how it did */
};

/* ---------------------------------------------------------------- a guest and its VMM: at SHARED_GPA, each VM's own */

struct job {
	/* The host's, written before the guest goes on: what tells it from others made of the same template */
	uint8_t entropy[64];
	uint8_t generation[16];
	uint64_t seconds;	/* the time of day */
	uint32_t ns;
	uint32_t size;
	uint8_t program[PROGRAM_MAX];
	/* The guest's, which it writes before CALL_DONE */
	uint32_t end;		/* enum end */
	uint32_t status;	/* as waitpid() has it */
	uint32_t output_size;
	uint8_t output[OUTPUT_MAX];
};

#define JOB_SIZE	((sizeof(struct job) + 4095) & ~4095UL)

/* Calls of its init's */
#define CALL_READY	1	/* all that it does after that is of one job */
#define CALL_STARTS	2	/* it has taken its own entropy: next is the program */
#define CALL_DONE	3

/* ---------------------------------------------------------------- the server, the template and its children, by sockets
 *
 * The server sends the template each job's number, and one end of a socket in which the program is, one message.  The template
 * forks; the child answers there with one message: struct reply, and the output.  Once it is gone, however it went, the
 * template sends a struct verdict behind that, which has another first word, and the number back to the server.
 */
enum { IS_REPLY = 0x7265706c, IS_VERDICT = 0x76657264 };

struct reply {
	uint32_t what;		/* IS_REPLY */
	uint32_t end;		/* enum end */
	uint32_t status;
	uint32_t reserved;
	uint64_t fork_ns;	/* from before fork(2) until the child has its VM */
	uint64_t first_ns;	/* then until CALL_STARTS */
	uint64_t program_ns;	/* then until CALL_DONE */
};

struct verdict {
	uint32_t what;		/* IS_VERDICT */
	uint32_t late;		/* it was killed, since its time was over */
	int32_t error;		/* an errno: there was no child */
	int32_t status;		/* the child's, as waitpid() has it */
};

struct config {
	const char *node, *kernel, *initrd;
	unsigned int at_once;	/* children */
	unsigned int limit_ms;	/* that each may take */
	bool verbose;		/* guests' consoles are heard */
};

/* Starts the template's process; *@server is the socket to it.  The first message from there are the ns that it took to boot. */
pid_t template_start(const struct config *config, int *server);

/* ---------------------------------------------------------------- figures and the page (page.c) */

enum figure { FIGURE_FORK, FIGURE_FIRST, FIGURE_PROGRAM, FIGURE_WHOLE, FIGURE_REAP, FIGURES };

void count_status(unsigned int status);
void count_start(void);
void count_times(const uint64_t ns[FIGURE_WHOLE + 1]);	/* of one job: all but FIGURE_REAP, which comes later */
void count_end(uint64_t reap_ns);

/* Text of malloc()'s; NULL: no memory */
char *page_html(void);
char *page_figures(void);
char *page_plot(void);
char *page_stats(void);
void page_setup(const struct config *config, uint64_t boot_ns);

#endif
