#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `carriers` with the library on a private spool.  Needs tests/system/namespace.sh, which installs the
# library.
set -eu
program=$1
spool=/srv/carriers
mkdir -p $spool
export FASTSPOOL_SPOOL=$spool FASTSPOOL_MEMORY=64M
LD_PRELOAD=libfastspool.so "$program" $spool
