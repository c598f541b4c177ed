#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `pointers`, and count the system calls that look at the memory of its names (shim/pointers.c): an
# rt_sigprocmask with an operation that does not exist.  Needs tests/system/namespace.sh, which installs the library.
set -eu
program=$1
spool=/srv/pointers
mkdir -p $spool/input
export FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M FASTSPOOL_VIEW=off
LD_PRELOAD=libfastspool.so touch $spool/input/name
strace -o /srv/looks -E LD_PRELOAD=libfastspool.so -e trace=rt_sigprocmask "$program" $spool/input/name
good=$(grep -c "rt_sigprocmask(0xffffffff.* EINVAL" /srv/looks || true)
bad=$(grep -c "rt_sigprocmask(0xffffffff.* EFAULT" /srv/looks || true)
echo "$good looks at three pages in 300 calls and at a mapped one in 10, none at a constant in 10, $bad at none in 10"
[ "$good" -ge 11 ] && [ "$good" -le 13 ] && [ "$bad" -ge 10 ]
