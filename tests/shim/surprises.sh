#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `surprises` with the library on a private spool; inside tests/system/namespace.sh, where the library is
# installed.  Then, on fresh spools, let several threads be the first to touch them: none may take the spool for a plain
# directory while another one attaches.
set -eu
program=$1
spool=/srv/surprises
mkdir -p $spool
chown Debian-exim $spool
chmod 755 $spool
FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $spool
[ -z "$(ls -A $spool/input)" ] || { echo "files were left in the real input/: $(ls $spool/input)"; exit 1; }
fastspool status --spool $spool
for round in 1 2 3 4 5 6 7 8; do
    fresh=$spool$round
    mkdir -p $fresh/input
    before=$(stat -c %y $fresh/input)
    FASTSPOOL_SPOOL=$fresh FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $fresh threads
    # Each file was made and removed: a real directory that they passed through has another time of change.
    [ "$(stat -c %y $fresh/input)" = "$before" ] || { echo "a thread used the real directory"; exit 1; }
done
