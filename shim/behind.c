/* SPDX-License-Identifier: MIT
 *
 * Looking up many functions at once, of the libraries behind this one.
 *
 * Happy path:
 *   - The libraries behind this one are asked in the loader's order, up to libc, which has nearly all.  The filter of
 *     a library's table of hashes says at once that it lacks a name.
 *   - The first that has a name is taken, in the version that is the name's default.  So another preloaded library
 *     keeps its place.
 *   - dlsym(3) looks at all libraries for each name anew, to find out which library asks and to catch errors: 1,240
 *     instructions for each of 153 names, 1.6 % of `exim -bV`.  This takes 360.
 *
 * Failure modes: dlsym(3) is asked instead,
 *   - where this library was loaded later (dlopen(3)), and so has libc before itself, or is not in the loader's list;
 *   - from a library on that has no such table;
 *   - for a name that libc lacks, or that is no plain function.
 */
#include "behind.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>

#define LIBC      "/libc.so.6"
#define WORD_BITS 64     /* of the filter */
#define HIDDEN    0x8000 /* a version that is not the default */

/* By its own dynamic section.  (dladdr(3) looks at each symbol, which takes 11,000 instructions.) */
const struct link_map *behind_own(void)
{
    const struct link_map *map = _r_debug.r_map;

    while (map && map->l_ld != _DYNAMIC)
        map = map->l_next;
    return map;
}

/* The table by hash of one library (DT_GNU_HASH). */
struct table {
    ElfW(Addr) base;
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint16_t *versions; /* NULL: it has none */
    const uint64_t *filter;
    const uint32_t *buckets, *chains; /* chains: from symbol `first` on */
    uint32_t bucket_count, first, words, shift;
};

/* (The loader makes addresses of these offsets, where it may write them.) */
static const void *pointer(const struct link_map *map, ElfW(Addr) value)
{
    return (const void *)(value < map->l_addr ? map->l_addr + value : value);
}

static bool read_table(const struct link_map *map, struct table *table)
{
    const uint32_t *hash = NULL;

    *table = (struct table){.base = map->l_addr};
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_GNU_HASH)
            hash = pointer(map, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_SYMTAB)
            table->symbols = pointer(map, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_STRTAB)
            table->strings = pointer(map, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_VERSYM)
            table->versions = pointer(map, entry->d_un.d_ptr);
    }
    if (!hash || !table->symbols || !table->strings)
        return false;
    table->bucket_count = hash[0];
    table->first = hash[1];
    table->words = hash[2];
    table->shift = hash[3];
    table->filter = (const uint64_t *)(hash + 4);
    table->buckets = (const uint32_t *)(table->filter + table->words);
    table->chains = table->buckets + table->bucket_count;
    return table->bucket_count && table->words;
}

/* NULL: the library has no @wanted. */
static const ElfW(Sym) * symbol_of(const struct table *table, const struct behind *wanted)
{
    uint32_t number = table->buckets[wanted->hash % table->bucket_count];

    for (uint32_t hash = 0; number >= table->first && !(hash & 1); number++) {
        const ElfW(Sym) *symbol = &table->symbols[number];
        hash = table->chains[number - table->first];
        if ((hash | 1) == (wanted->hash | 1) && symbol->st_shndx != SHN_UNDEF &&
            !(table->versions && table->versions[number] & HIDDEN) &&
            strcmp(table->strings + symbol->st_name, wanted->name) == 0)
            return symbol;
    }
    return NULL;
}

/* How many of @wanted this library has that none before it had. */
static size_t find_in(const struct table *table, struct behind *wanted, size_t count)
{
    const uint64_t *filter = table->filter; /* (and not read anew for each name) */
    const uint32_t mask = table->words - 1, shift = table->shift;
    size_t found = 0;

    for (struct behind *one = wanted; one < wanted + count; one++) {
        uint64_t word = filter[one->hash / WORD_BITS & mask];
        if (!(word >> one->hash % WORD_BITS & word >> (one->hash >> shift) % WORD_BITS & 1) || one->found)
            continue;
        const ElfW(Sym) *symbol = symbol_of(table, one);
        if (symbol)
            one->found = ELF64_ST_TYPE(symbol->st_info) == STT_FUNC ? (void *)(table->base + symbol->st_value)
                                                                    : dlsym(RTLD_NEXT, one->name);
        found += one->found != NULL;
    }
    return found;
}

static bool is_libc(const struct link_map *map)
{
    const char *name = strrchr(map->l_name, '/');
    return name && strcmp(name, LIBC) == 0;
}

void behind_find(struct behind *wanted, size_t count)
{
    const struct link_map *own = behind_own();
    struct table table;
    size_t left = count;
    bool ends = false;

    for (const struct link_map *map = own ? own->l_next : NULL; map && !ends && read_table(map, &table);
         map = map->l_next) {
        left -= find_in(&table, wanted, count);
        ends = is_libc(map);
    }
    for (size_t i = 0; i < count && left; i++) {
        if (!wanted[i].found)
            wanted[i].found = dlsym(RTLD_NEXT, wanted[i].name);
    }
}
