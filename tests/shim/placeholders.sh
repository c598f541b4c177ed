#!/bin/sh
# SPDX-License-Identifier: MIT
# The placeholders are harmed by programs that the library can't see: the spool goes on, and files that are open stay
# so.  Needs tests/system/namespace.sh, which installs the library.
set -eu
spool=/srv/placeholders
mkdir -p $spool
chown Debian-exim:Debian-exim $spool
printf 'spool = %s\nmemory = 64M\n' $spool >/etc/fastspool.conf
fail() { echo "not ok - $*"; ls -la /dev/shm/fastspool.*/ | head -8; exit 1; }
as_owner() { # SCRIPT
    setpriv --reuid Debian-exim --regid Debian-exim --clear-groups env LD_PRELOAD=libfastspool.so python3 -c "$1"
}
# 200 opens come to each placeholder.
opens='
import os
files = [os.open(f"/srv/placeholders/input/{n}", os.O_RDWR | os.O_CREAT, 0o640) for n in range(200)]
for n, fd in enumerate(files): os.write(fd, b"%d" % n)
for n, fd in enumerate(files): assert os.pread(fd, 9, 0) == b"%d" % n; os.close(fd)
'
as_owner 'import os; os.mkdir("/srv/placeholders/input")'
for harm in "chmod 0" "chown nobody" "rmdir" "setfattr -n user.x -v 1"; do
    case $harm in setfattr*) command -v setfattr >/dev/null || continue ;; esac
    # One file is open meanwhile, by a process and its child.
    as_owner '
import os, sys, time
fd = os.open("/srv/placeholders/input/held", os.O_RDWR | os.O_CREAT, 0o640)
child = os.fork()
open(f"/tmp/placeholders.held.{os.getpid()}", "w").close()
while not os.path.exists("/tmp/placeholders.go"): time.sleep(0.02)
for n in range(40): assert os.pwrite(fd, b"held", 0) == 4 and os.pread(fd, 4, 0) == b"held"; time.sleep(0.05)
os.close(fd)
if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
' &
    holder=$!
    until [ "$(ls /tmp/placeholders.held.* 2>/dev/null | wc -l)" = 2 ]; do sleep 0.02; done
    # shellcheck disable=SC2086
    $harm /dev/shm/fastspool.*/p??
    touch /tmp/placeholders.go
    as_owner "$opens" || fail "$harm: the owner's process can't open files"
    wait $holder || fail "$harm: an open file is gone"
    rm -f /tmp/placeholders.*
    [ "$(ls -d /dev/shm/fastspool.*/p?? | wc -l)" = 64 ] || fail "$harm: placeholders are missing"
    [ "$(stat -c '%a %U' /dev/shm/fastspool.*/p?? | sort -u)" = "700 Debian-exim" ] || fail "$harm: it stays harmed"
    echo "ok - $harm"
done
fastspool verify --spool $spool >/tmp/placeholders.verify || { cat /tmp/placeholders.verify; fail "verify"; }
fastspool stop --spool $spool
