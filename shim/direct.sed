# SPDX-License-Identifier: MIT
# From symbols.def: a macro for each name, which leads a call straight to libc.  direct.h has the rest.
1 i\
/* Made from symbols.def by direct.sed. */
s/^SYMBOL([^,]*, \([A-Za-z0-9_]*\),.*/#define \1(...) real.\1(__VA_ARGS__)/p
s/^ALIAS(\([A-Za-z0-9_]*\), \([A-Za-z0-9_]*\))/#define \1(...) real.\2(__VA_ARGS__)/p
