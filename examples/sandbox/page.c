// SPDX-License-Identifier: GPL-2.0-only
/*
 * page.c - the server's figures, as a page with a plot and as text.  Nothing in them comes from a request.
 */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sandbox.h"

#define KEPT	1024		/* the last so many of each figure */
#define SHOWN	240		/* and so many in the plot */
#define CODES	600

static const struct {
	const char *name, *colour, *what;	/* @colour: it is in the plot */
} figure[FIGURES] = {
	[FIGURE_FORK] = { "fork", "#1b7f5c", "from before fork(2) until the child has its own VM" },
	[FIGURE_FIRST] = { "first_run", "#c2571a", "then in the guest, until it has taken its own entropy and starts the program" },
	[FIGURE_PROGRAM] = { "program", NULL, "then until the program has ended" },
	[FIGURE_WHOLE] = { "whole", "#4a4fb5", "from the end of the request until the answer is there" },
	[FIGURE_REAP] = { "reap", NULL, "from the answer until the child is gone, and its memory free" },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint64_t ns[KEPT];	/* a ring */
	uint64_t count;
} times[FIGURES];
static uint64_t statuses[CODES], requests, started, ended;
static const struct config *config;
static uint64_t boot_ns;

void page_setup(const struct config *cfg, uint64_t boot)
{
	config = cfg;
	boot_ns = boot;
}

void count_status(unsigned int status)
{
	pthread_mutex_lock(&lock);
	requests++;
	statuses[status % CODES]++;
	pthread_mutex_unlock(&lock);
}

void count_start(void)
{
	pthread_mutex_lock(&lock);
	started++;
	pthread_mutex_unlock(&lock);
}

static void add(enum figure f, uint64_t ns)
{
	times[f].ns[times[f].count++ % KEPT] = ns;
}

void count_times(const uint64_t ns[FIGURE_WHOLE + 1])
{
	unsigned int f;

	pthread_mutex_lock(&lock);
	for (f = 0; f <= FIGURE_WHOLE; f++)
		add(f, ns[f]);
	pthread_mutex_unlock(&lock);
}

void count_end(uint64_t reap_ns)
{
	pthread_mutex_lock(&lock);
	ended++;
	add(FIGURE_REAP, reap_ns);
	pthread_mutex_unlock(&lock);
}

/* ---------------------------------------------------------------- of the lock's holder, from here on */

static unsigned int kept(enum figure f)
{
	return times[f].count < KEPT ? times[f].count : KEPT;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The least that so many per cent of them do not exceed */
static uint64_t percentile(enum figure f, unsigned int percent)
{
	uint64_t sorted[KEPT];
	unsigned int n = kept(f);

	if (!n)
		return 0;
	memcpy(sorted, times[f].ns, n * sizeof(sorted[0]));
	qsort(sorted, n, sizeof(sorted[0]), compare);
	return sorted[(n * percent + 99) / 100 - 1];
}

static void stats(FILE *o)
{
	unsigned int i;

	fprintf(o, "requests %" PRIu64 "\nstarted %" PRIu64 "\nreaped %" PRIu64 "\n", requests, started, ended);
	for (i = 0; i < CODES; i++)
		if (statuses[i])
			fprintf(o, "status_%u %" PRIu64 "\n", i, statuses[i]);
	fprintf(o, "boot_ms %.0f\n", boot_ns / 1e6);
	for (i = 0; i < FIGURES; i++)
		fprintf(o, "%s_p50_us %.0f\n%s_p99_us %.0f\n", figure[i].name, percentile(i, 50) / 1e3,
			figure[i].name, percentile(i, 99) / 1e3);
}

/* ---------------------------------------------------------------- the plot: time, in powers of ten, of the last requests */

#define WIDTH	760
#define HEIGHT	300
#define LEFT	64
#define RIGHT	12
#define TOP	12
#define BOTTOM	34

static int decade_from, decade_to;	/* of nanoseconds */

static double y_of(double ns)
{
	double at = (log10(ns > 1 ? ns : 1) - decade_from) / (decade_to - decade_from);

	return HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM);
}

static void scale(void)
{
	uint64_t least = UINT64_MAX, most = 0, ns;
	unsigned int f, i;

	for (f = 0; f < FIGURES; f++) {
		for (i = 0; figure[f].colour && i < kept(f); i++) {
			ns = times[f].ns[i];
			least = ns < least ? ns : least;
			most = ns > most ? ns : most;
		}
	}
	decade_from = most && least ? floor(log10(least)) : 5;
	decade_to = most ? ceil(log10(most)) : 9;
	if (decade_to <= decade_from)
		decade_to = decade_from + 1;
}

static void line(FILE *o, enum figure f, unsigned int percent, const char *dashes)
{
	double y = y_of(percentile(f, percent));

	fprintf(o, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='%s' stroke-dasharray='%s' stroke-opacity='.8'/>\n",
		LEFT, WIDTH - RIGHT, y, y, figure[f].colour, dashes);
}

static void dots(FILE *o, enum figure f)
{
	unsigned int n = kept(f) < SHOWN ? kept(f) : SHOWN, i;
	uint64_t first = times[f].count - n;

	if (!n)
		return;
	line(o, f, 50, "none");
	line(o, f, 99, "2 4");
	fprintf(o, "<g fill='%s'>", figure[f].colour);
	for (i = 0; i < n; i++)
		fprintf(o, "<circle cx='%.1f' cy='%.1f' r='1.8'/>",
			WIDTH - RIGHT - 4 - (n - 1 - i) * (double)(WIDTH - LEFT - RIGHT - 8) / SHOWN,
			y_of(times[f].ns[(first + i) % KEPT]));
	fprintf(o, "</g>\n");
}

static void plot(FILE *o)
{
	static const char *const unit[] = { "ns", "µs", "ms", "s" };
	unsigned int f, x = LEFT;
	int d;

	scale();
	fprintf(o, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' font-family='sans-serif' "
		"font-size='12' role='img' aria-label='time of the last %u requests'>\n"
		"<rect width='100%%' height='100%%' fill='#fff'/>\n", WIDTH, HEIGHT, WIDTH, HEIGHT, SHOWN);
	for (d = decade_from; d <= decade_to; d++) {
		double y = y_of(pow(10, d));

		fprintf(o, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='#ddd'/>"
			"<text x='%d' y='%.1f' text-anchor='end' fill='#555'>%.0f %s</text>\n", LEFT, WIDTH - RIGHT, y, y,
			LEFT - 8, y + 4, pow(10, d % 3), unit[d / 3 < 3 ? d / 3 : 3]);
	}
	for (f = 0; f < FIGURES; f++) {
		if (!figure[f].colour)
			continue;
		dots(o, f);
		fprintf(o, "<circle cx='%u' cy='%d' r='4' fill='%s'/><text x='%u' y='%d' fill='#333'>%s</text>\n", x + 6, HEIGHT - 14,
			figure[f].colour, x + 16, HEIGHT - 10, figure[f].name);
		x += 90;
	}
	fprintf(o, "<text x='%d' y='%d' text-anchor='end' fill='#555'>the last %u requests, the newest to the right; lines: p50, dotted p99</text>\n"
		"</svg>\n", WIDTH - RIGHT, HEIGHT - 10, SHOWN);
}

/* ---------------------------------------------------------------- the page */

/* What it shows is taken anew each second, without the rest of it, which has a field that one may be writing in. */
static const char head[] =
	"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>keel: a sandbox</title>\n"
	"<noscript><meta http-equiv='refresh' content='2'></noscript>\n"
	"<style>\n"
	"body { font: 15px/1.45 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; color: #222 }\n"
	"table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .2em .9em .2em 0; text-align: left }\n"
	"td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } tr { border-bottom: 1px solid #ddd }\n"
	"textarea { width: 100%; box-sizing: border-box; font: 13px monospace } svg { max-width: 100%; height: auto }\n"
	"pre { background: #f4f4f4; padding: .6em; overflow: auto; max-height: 20em }\n"
	"</style></head><body>\n"
	"<h1>A sandbox</h1>\n"
	"<p>Each request is a program that runs in a virtual machine of its own: a fork of one that has booted.</p>\n"
	"<div id='figures'>\n";
static const char tail[] =
	"</div>\n"
	"<h2>Try it</h2>\n"
	"<p><textarea id='program' rows='5' spellcheck='false'>uname -a; id; cat /run/generation\nps | wc -l\n</textarea></p>\n"
	"<p><button id='run'>Run</button></p><pre id='output' hidden></pre>\n"
	"<script>\n"
	"const get = id => document.getElementById(id);\n"
	"setInterval(async () => {\n"
	"  const r = await fetch('/figures').catch(() => null);\n"
	"  if (r && r.ok) get('figures').innerHTML = await r.text();\n"
	"}, 1000);\n"
	"get('run').onclick = async () => {\n"
	"  const r = await fetch('/run', { method: 'POST', body: get('program').value }).catch(() => null);\n"
	"  get('output').hidden = false;\n"
	"  get('output').textContent = r ? r.status + ' ' + (r.headers.get('X-Sandbox-End') || '') + '\\n' + await r.text() : 'no server';\n"
	"};\n"
	"</script></body></html>\n";

static void figures(FILE *o)
{
	const char *between = "<br>Answers: ";
	unsigned int f, i;

	fprintf(o, "<p>%" PRIu64 " requests; %" PRIu64 " virtual machines, of which %" PRIu64 " run now, of %u that may; booted once, in %.1f s.",
		requests, started, started - ended, config->at_once, boot_ns / 1e9);
	for (i = 0; i < CODES; i++) {
		if (!statuses[i])
			continue;
		fprintf(o, "%s%u: %" PRIu64, between, i, statuses[i]);
		between = ", ";
	}
	fprintf(o, "</p>\n<table><tr><th></th><th class='n'>p50</th><th class='n'>p99</th><th></th></tr>\n");
	for (f = 0; f < FIGURES; f++)
		fprintf(o, "<tr><td>%s</td><td class='n'>%.3f ms</td><td class='n'>%.3f ms</td><td>%s</td></tr>\n", figure[f].name,
			percentile(f, 50) / 1e6, percentile(f, 99) / 1e6, figure[f].what);
	fprintf(o, "</table>\n");
	plot(o);
}

static void page(FILE *o)
{
	fputs(head, o);
	figures(o);
	fputs(tail, o);
}

static char *text_of(void (*write)(FILE *))
{
	char *text = NULL;
	size_t size;
	FILE *o = open_memstream(&text, &size);

	if (!o)
		return NULL;
	pthread_mutex_lock(&lock);
	write(o);
	pthread_mutex_unlock(&lock);
	if (!fclose(o))
		return text;
	free(text);
	return NULL;
}

char *page_html(void)
{
	return text_of(page);
}

char *page_figures(void)
{
	return text_of(figures);
}

char *page_plot(void)
{
	return text_of(plot);
}

char *page_stats(void)
{
	return text_of(stats);
}
