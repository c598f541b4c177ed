#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `surprises` with the library on a private spool; inside tests/system/namespace.sh, where the library is
# installed.  Then once without it, on a plain directory: the tests that the real file system passes too must pass there,
# so that they ask nothing that it doesn't do.
set -eu
program=$1
spool=/srv/surprises
mkdir -p $spool
chown Debian-exim $spool
chmod 755 $spool
FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M LD_PRELOAD=libfastspool.so "$program" $spool
[ -z "$(ls -A $spool/input)" ] || { echo "files were left in the real input/: $(ls $spool/input)"; exit 1; }
fastspool status --spool $spool
