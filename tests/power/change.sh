#!/bin/sh
# SPDX-License-Identifier: MIT
# Write INPUT, changed by a sed COMMAND, to OUTPUT:  change.sh COMMAND INPUT OUTPUT
# A command that changes nothing is an error: a mutant that is the original would be tested for nothing.
set -eu
sed "$1" "$2" >"$3"
if cmp -s "$2" "$3"; then
    rm -f "$3"
    echo "$0: nothing in $2 matches $1" >&2
    exit 1
fi
