#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `surprises` with the library on a private spool.  Needs tests/system/namespace.sh, which installs the
# library.  Then again in a process with many descriptors.  Then several threads at once are the first to touch fresh spools: no thread must take the spool for a plain
# directory while another one attaches.
set -eu
program=$1
spool=/srv/surprises
mkdir -p $spool
chown Debian-exim $spool
chmod 755 $spool
FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $spool
[ -z "$(ls -A $spool/input)" ] || { echo "files were left in the real input/: $(ls $spool/input)"; exit 1; }
FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $spool many
fastspool status --spool $spool
for round in 1 2 3 4 5 6 7 8; do
    fresh=$spool$round
    mkdir -p $fresh/input
    before=$(stat -c %y $fresh/input)
    FASTSPOOL_SPOOL=$fresh FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $fresh threads
    # The threads made and removed files.  Had they done so in the real directory, its mtime would have changed.
    [ "$(stat -c %y $fresh/input)" = "$before" ] || { echo "a thread used the real directory"; exit 1; }
done
