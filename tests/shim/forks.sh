#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `forks` with the library; inside tests/system/namespace.sh, where the library is installed.  What
# happens around a process's first touch is soon over: so that is tried in many processes.
set -eu
program=$1
spool=/srv/forks
mkdir -p $spool
export FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so
"$program" $spool listings
"$program" $spool handler
"$program" $spool files
"$program" $spool programs
"$program" $spool numbers
LD_PRELOAD= setsid -w env LD_PRELOAD=libfastspool.so "$program" $spool known
failed=0
for round in $(LD_PRELOAD= seq 10); do
    "$program" $spool first >/run/forks.out || failed=1
    [ $failed = 0 ] || break
done
cat /run/forks.out
exit $failed
