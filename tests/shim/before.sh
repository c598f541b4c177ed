#!/bin/sh
# SPDX-License-Identifier: MIT
# Another library stands before this one, or behind it, or in every process.  Needs tests/system/namespace.sh, which
# installs the library.
#
#     before.sh LIES PASSES: libraries of before.c
set -eu
lies=$1 passes=$2
fail() { echo "not ok - $*"; cat /srv/said; exit 1; }
mkdir -p /srv/spool
printf 'spool = /srv/spool\nmemory = 64M\ndurability = strict\n' >/etc/fastspool.conf
write() { # PRELOAD NAME
    LD_PRELOAD=$1 dd if=/etc/hostname of=/srv/spool/input/"$2" conv=fsync 2>/srv/said
}
said() { grep -c "fastspool: .*$1.* stands before the library for $2" /srv/said || true; }

LD_PRELOAD=libfastspool.so mkdir /srv/spool/input
write libfastspool.so first || fail "without another library"
[ "$(grep -c fastspool: /srv/said)" = 0 ] || fail "something is said"

status=0
write "$lies libfastspool.so" second || status=$?
[ $status != 0 ] && grep -q "Input/output error" /srv/said || fail "a call that fsync can't be trusted for succeeds"
[ "$(said lies 'fsync\|fdatasync')" = 1 ] || fail "nothing is said of a lie"

write "libfastspool.so $lies" third || fail "behind the library fsync is served"
[ "$(grep -c fastspool: /srv/said)" = 0 ] || fail "something is said"

LD_PRELOAD="$passes libfastspool.so" ls /srv/spool/input >/srv/said 2>&1 || fail "a library that passes its calls on"
[ "$(said passes stat)" = 1 ] || fail "nothing is said of it"

# Behind the library, it has what the program itself does with other files.
ln -s nowhere /srv/link
[ "$(LD_PRELOAD="libfastspool.so $passes" readlink /srv/link)" = behind ] || fail "a library behind has lost its place"

# The mirror, which has no LD_PRELOAD.
cp "$lies" /usr/lib/liblies.so
fastspool stop >/srv/said
echo /usr/lib/liblies.so >/etc/ld.so.preload
status=0
timeout 60 fastspool mirror /srv/spool >/srv/said 2>&1 || status=$?
rm /etc/ld.so.preload
[ $status = 1 ] && grep -q "fsync is a lie" /srv/said || fail "a mirror starts whose fsync is a lie"
write libfastspool.so fourth || fail "afterwards"
echo "ok - libraries before and behind"
