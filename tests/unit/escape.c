/* SPDX-License-Identifier: MIT
 *
 * Escaping: what a terminal or a shell is given is text, and means what it meant.
 */
#include "base/escape.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char *const paths[] = {
    "/srv/plain-1.2_3", "", "/srv/with a blank", "/srv/sender's", "/srv/$(touch x)`id`;#", "/srv/\"x\"",
    "/srv/\033[31m\n\t\x7f"
    "f",
    "/srv/\033'\\n'", "/srv/\xc2\x9b\xc3\xa4'\\", "/srv/\x9b", "/srv/back\\slash", "/srv/\xc3\xa4", "/srv/*?[a]~!",
    /* each of these alone, where a shell would make something else of it */
    "/*", "/us?", "/us[r]", "/{usr,bin}", "~", "#x", "/a$b", "/a&b", "/a(b", "/a)b", "/a;b", "/a<b", "/a>b", "/a`b",
    "/a|b"};
#define PATHS (sizeof(paths) / sizeof(*paths))

/* bash makes of the word the path that it was made of, and nothing else: one word. */
Test(escape, words_are_typed)
{
    for (size_t i = 0; i < PATHS; i++) {
        char word[ESCAPE_WORD_ROOM(64)], command[512], got[1024] = "", wanted[128];
        snprintf(command, sizeof(command),
                 "exec bash -c 'x=$(cat); eval \"set -- $x\"; printf %%s: $# \"$@\"' <<'END'\n%s\nEND\n",
                 escape_word(word, sizeof(word), paths[i]));
        snprintf(wanted, sizeof(wanted), "1:%s:", paths[i]);
        FILE *pipe = popen(command, "r");
        cr_assert(pipe && fread(got, 1, sizeof(got) - 1, pipe) > 0, "%s", word);
        pclose(pipe);
        cr_assert_str_eq(got, wanted, "%s", word);
        for (const char *at = word; *at; at++)
            cr_assert((unsigned char)*at >= ' ' && *at != 0x7f && *at != '\x9b', "a control character in %s", word);
    }
}

/* A path that needs no quotes gets none. */
Test(escape, plain_words_stay)
{
    char word[ESCAPE_WORD_ROOM(64)];

    cr_assert_str_eq(escape_word(word, sizeof(word), paths[0]), paths[0]);
}

/* A sentence keeps all but its control characters, also where it had some that are escaped already. */
Test(escape, sentences)
{
    char text[ESCAPE_ROOM(64)];

    cr_assert_str_eq(escape_controls(text, sizeof(text), "the spool /\xc3\xa4\033[1m\n \\x1b: \"no\""),
                     "the spool /\xc3\xa4\\x1b[1m\\n \\x1b: \"no\"");
    cr_assert_str_eq(escape_bytes(text, sizeof(text), "a\\\xc3\n", 4), "a\\\\\\xc3\\n");
    cr_assert_str_eq(escape_controls(text, sizeof(text), ""), "");
    /* U+009B, as it is, encoded in too many bytes, and cut off; and characters that have such a byte. */
    cr_assert_str_eq(escape_controls(text, sizeof(text), "\xc2\x9b[m \xe0\x82\x9b \x9b \xc2"),
                     "\\xc2\\x9b[m \\xe0\\x82\\x9b \\x9b \\xc2");
    static const char others[] = "\xc4\x9b \xe2\x82\xac \xf0\x9f\x93\xa7 \xc2\xa0";
    cr_assert_str_eq(escape_controls(text, sizeof(text), others), others);
    strcpy(text, "before");
    cr_assert_str_eq(escape_bytes(text, sizeof(text), "", 0), "");
}

/* What does not fit is cut between two characters, with all that follows, and nothing is written behind the room. */
Test(escape, cut)
{
    char text[8] = "1234567";

    cr_assert_str_eq(escape_controls(text, 6, "abc\033d"), "abc");
    cr_assert_str_eq(escape_controls(text, 6, "abcd\xc3\xa4"), "abcd");
    cr_assert_str_eq(escape_bytes(text, 6, "\033\033d", 3), "\\x1b");
    cr_assert_eq(text[7], '\0');
    cr_assert_str_eq(escape_word(text, 4, "a b"), "'a ");
}
