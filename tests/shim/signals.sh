#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `signals`; inside tests/system/namespace.sh, where the library is installed.  A process without a
# controlling terminal goes the way without system calls, one with a terminal the other; both are tried.
set -eu
program=$1
spool=/srv/signals
mkdir -p $spool/input
stride=29
[ -z "${FASTSPOOL_TEST_LONG:-}" ] || stride=1
"$program" $spool rules >/run/signals.stock
export FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M FASTSPOOL_VIEW=off
served="env LD_PRELOAD=libfastspool.so $program $spool"
setsid -w $served rules >/run/signals.rules
diff -u /run/signals.stock /run/signals.rules
setsid -w $served $stride
setsid -w script -qec "$served rules >/run/signals.rules" /dev/null
diff -u /run/signals.stock /run/signals.rules
setsid -w script -qec "$served $((3 * stride))" /dev/null
