// SPDX-License-Identifier: GPL-2.0-only
/*
 * parse.c - what is fuzzed: a user of expat that keeps the names of the elements it is in.
 *
 * THE BUG, put here to be found: start() does not look whether there is room for one more name, so that elements nested
 * deeper than NAMES crash it.  An input that does it as shortly as can be has NAMES + 1 times "<a>".
 */
#include <expat.h>
#include <string.h>
#include "fuzz.h"

#define NAMES	4

const int names_max = NAMES;
void parse(const struct input *input, const char **names);

struct document {
	const char **names;
	int depth;
	unsigned long text;
};

static void start(void *arg, const char *name, const char **attributes)
{
	struct document *d = arg;

	d->names[d->depth++] = name;
	for (; *attributes; attributes += 2)
		d->text += strlen(attributes[1]);
}

static void end(void *arg, const char *name)
{
	struct document *d = arg;

	(void)name;
	d->names[--d->depth] = NULL;
}

static void text(void *arg, const char *s, int n)
{
	struct document *d = arg;

	(void)s;
	d->text += n;
}

void parse(const struct input *input, const char **names)
{
	struct document d = { .names = names };
	XML_Parser p = XML_ParserCreate(NULL);

	if (!p)
		return;
	XML_SetHashSalt(p, 1);		/* else it takes the time */
	XML_SetUserData(p, &d);
	XML_SetElementHandler(p, start, end);
	XML_SetCharacterDataHandler(p, text);
	XML_Parse(p, (const char *)input->data, input->size < INPUT_MAX ? input->size : INPUT_MAX, 1);
	XML_ParserFree(p);
}
