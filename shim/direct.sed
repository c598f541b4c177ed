# SPDX-License-Identifier: MIT
# From symbols.def: a macro for each name, which leads a call straight to libc.  (With clang and _FORTIFY_SOURCE some
# are macros of libc's.)  direct.h has the rest.
1 i\
/* Made from symbols.def by direct.sed. */
s/^SYMBOL([^,]*, \([A-Za-z0-9_]*\),.*/#undef \1\n#define \1(...) real.\1(__VA_ARGS__)/p
s/^ALIAS(\([A-Za-z0-9_]*\), \([A-Za-z0-9_]*\))/#undef \1\n#define \1(...) real.\2(__VA_ARGS__)/p
