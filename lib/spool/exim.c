/* SPDX-License-Identifier: MIT
 *
 * Exim: the names of the directories and files in its spool.  No other file knows them.
 *
 * The directories of the table lie at the top of the spool and below each named queue.  Everything else (logs, pid
 * file, sockets, gnutls parameters) stays on the disk.
 */
#include "spool/exim.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define RULES(RULE)                                                                  \
    RULE("input", EXIM_STORE, "input")                                               \
    RULE("msglog", EXIM_STORE, "input")                                              \
    RULE("msglog.OLD", EXIM_STORE, NULL) /* logs of messages that are gone */        \
    RULE("Finput", EXIM_STORE, "Finput") /* frozen messages, moved out of the way */ \
    RULE("Fmsglog", EXIM_STORE, "Finput")                                            \
    RULE("db", EXIM_HINTS, NULL)                                                     \
    RULE("scan", EXIM_HINTS, NULL)

#define AS_ENTRY(name, policy, data) {name, sizeof(name) - 1, policy, data},
static const struct rule {
    const char *directory;
    size_t length; /* of its name: each path of the program is compared */
    enum exim_policy policy;
    const char *data; /* the directory of the -D files of the messages with a file here; NULL: no messages */
} rules[] = {RULES(AS_ENTRY)};

#define AS_COMPARISON(text, policy, data)                                        \
    if (length == sizeof(text) - 1 && memcmp(name, text, sizeof(text) - 1) == 0) \
        return rule;                                                             \
    rule++;

/* A set of letters, 64 of them apart. */
#define BIT(letter)                   (UINT64_C(1) << ((letter) % 64))
#define AS_LETTER(name, policy, data) | BIT((name)[0])

/* Skip slashes and "." at the start of *@path.  Returns the length of the first component. */
static size_t component(const char **path)
{
    while ((*path)[0] == '/' || ((*path)[0] == '.' && ((*path)[1] == '/' || (*path)[1] == '\0')))
        (*path)++;
    return (size_t)(strchrnul(*path, '/') - *path);
}

/* Each comparison is one of a known length. */
static const struct rule *look_up(const char *name, size_t length)
{
    const struct rule *rule = rules;

    RULES(AS_COMPARISON)
    return NULL;
}

/* Of most names the first letter is all that is looked at. */
static const struct rule *rule_of(const char *name, size_t length)
{
    return (0 RULES(AS_LETTER)) & BIT((unsigned char)*name) ? look_up(name, length) : NULL;
}

/* A named queue that is called "db" or "scan": it stays on the disk, and its mail is no hint. */
static bool is_queue(const char *below)
{
    size_t length = component(&below);
    const struct rule *rule = rule_of(below, length);

    return rule && rule->policy == EXIM_STORE;
}

/* The rule for @path.  *@directory: where the rule's directory begins in the path. */
static const struct rule *find(const char *path, const char **directory)
{
    size_t length = component(&path);
    const struct rule *rule = rule_of(path, length);

    if (!rule && length > 0 && path[0] != '.') { /* perhaps a named queue */
        path += length;
        length = component(&path);
        rule = rule_of(path, length);
        if (rule && rule->policy != EXIM_STORE)
            rule = NULL;
    } else if (rule && rule->policy == EXIM_HINTS && is_queue(path + length)) {
        rule = NULL;
    }
    *directory = path;
    return rule;
}

enum exim_policy exim_policy(const char *path)
{
    const char *directory;
    const struct rule *rule = find(path, &directory);

    return rule ? rule->policy : EXIM_DISK;
}

bool exim_is_directory(const char *name, size_t length)
{
    return rule_of(name, length) != NULL;
}

const char *exim_telling(const char *path)
{
    for (const char *at = *path == '/' ? path : strchrnul(path, '/'), *end; *at; at = end) {
        end = strchrnul(at + 1, '/');
        if (rule_of(at + 1, (size_t)(end - (at + 1))))
            return at;
    }
    return NULL;
}

bool exim_is_top(const char *path)
{
    const char *directory;
    const struct rule *rule = find(path, &directory);

    if (!rule)
        return false;
    directory += rule->length;
    return component(&directory) == 0;
}

bool exim_is_place(const char *path)
{
    size_t length = strlen(path);

    return exim_is_top(path) && exim_policy(path) == EXIM_STORE && path[0] != '/' && path[0] != '.' &&
           path[length - 1] != '/' && !strstr(path, "//") && !strstr(path, "/.");
}

/* Not by isalnum(3): its table is a page of libc that the child of a fork mostly needs for nothing else. */
static bool is_base62(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        char letter = text[i] | 0x20;
        if ((text[i] < '0' || text[i] > '9') && (letter < 'a' || letter > 'z'))
            return false;
    }
    return true;
}

/* The length of the message id at the start of @name, 0: none.  An id has 6-6-2 characters up to Exim 4.96, and 6-11-4
 * since. */
static size_t message_id(const char *name)
{
    static const struct {
        size_t middle, last;
    } forms[] = {{6, 2}, {11, 4}};
    size_t length = strlen(name);

    for (int i = 0; i < 2; i++) {
        size_t whole = 6 + 1 + forms[i].middle + 1 + forms[i].last;
        const char *middle = name + 7, *last = middle + forms[i].middle + 1;
        if (length >= whole && (name[whole] == '\0' || name[whole] == '-') && is_base62(name, 6) && name[6] == '-' &&
            is_base62(middle, forms[i].middle) && middle[forms[i].middle] == '-' && is_base62(last, forms[i].last))
            return whole;
    }
    return 0;
}

bool exim_family(const char *path, char data[PATH_MAX])
{
    const char *directory, *name = strrchr(path, '/');
    const struct rule *rule = find(path, &directory);

    if (!rule || !rule->data || !name)
        return false;
    const char *id = strncmp(name + 1, "hdr.", 4) == 0 ? name + 5 : name + 1;
    size_t id_length = message_id(id);
    const char *below = directory + rule->length;
    if (id_length == 0 || below > name)
        return false;
    size_t before = (size_t)(directory - path), place = strlen(rule->data), between = (size_t)(name + 1 - below);
    if (before + place + between + id_length + sizeof("-D") > PATH_MAX)
        return false;
    memcpy(data, path, before);
    memcpy(data + before, rule->data, place);
    memcpy(data + before + place, below, between);
    memcpy(data + before + place + between, id, id_length);
    memcpy(data + before + place + between + id_length, "-D", sizeof("-D"));
    return true;
}

bool exim_member(const char *data, unsigned n, char path[PATH_MAX])
{
    static const struct {
        const char *prefix, *suffix;
        bool log;
    } forms[] = {{"", "-H", false}, {"", "-D", false}, {"", "-J", false}, {"hdr.", "", false}, {"", "", true}};
    const char *directory, *name = strrchr(data, '/');
    const struct rule *rule = find(data, &directory);

    size_t id_length = name ? message_id(name + 1) : 0;
    if (n >= sizeof(forms) / sizeof(*forms) || !rule || !rule->data || strcmp(rule->data, rule->directory) != 0 ||
        id_length == 0 || strcmp(name + 1 + id_length, "-D") != 0)
        return false;
    const char *top = rule->directory, *below = directory + strlen(top);
    for (size_t i = 0; forms[n].log && i < sizeof(rules) / sizeof(*rules); i++) {
        if (rules[i].data && &rules[i] != rule && strcmp(rules[i].data, rule->data) == 0)
            top = rules[i].directory;
    }
    return snprintf(path, PATH_MAX, "%.*s%s%.*s%s%.*s%s", (int)(directory - data), data, top, (int)(name + 1 - below),
                    below, forms[n].prefix, (int)id_length, name + 1, forms[n].suffix) < PATH_MAX;
}

bool exim_is_file_of_message(const char *name)
{
    size_t id_length = message_id(name);

    return id_length > 0 && (strcmp(name + id_length, "-H") == 0 || strcmp(name + id_length, "-D") == 0);
}

bool exim_shows(const char *name)
{
    size_t id_length = message_id(name);

    return id_length > 0 && strcmp(name + id_length, "-H") == 0;
}

bool exim_is_message(const char *path)
{
    const char *directory, *name = strrchr(path, '/');

    if (!name || !exim_shows(name + 1))
        return false;
    const struct rule *rule = find(path, &directory);
    if (!rule || strcmp(rule->directory, "input") != 0)
        return false;
    const char *below = directory + rule->length;
    return name == below || (name == below + 2 && below[1] != '.');
}
