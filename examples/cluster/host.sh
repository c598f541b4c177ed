#!/bin/sh
# SPDX-License-Identifier: MIT
# Process 1 of a host.  `power` starts it with mounts, processes, name and network of its own:
#
#     host.sh HOST [VOLUME]
#
# The root is the image, below it fastspool, above it the host's own disk.  VOLUME is a block device that the host sees as
# /dev/vdb.  When /etc/rc.local has started the services it writes a line to the disk's `ready`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
host=$1
volume=${2-}
disk=$state/disks/$host

exec 3>"$disk/ready"
mount --make-rprivate /
mount -t overlay -o "lowerdir=$state/fastspool:$image,upperdir=$disk/upper,workdir=$disk/work" "$host" "$disk/root"
cd "$disk/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 dev dev
mount -t tmpfs -o mode=755,nosuid,nodev run run
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
    number=${node#*:}
    mknod -m 666 "dev/${node%%:*}" c "${number%:*}" "${number#*:}"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
[ -z "$volume" ] || mknod -m 660 dev/vdb b $(stat -c '0x%t 0x%T' "$volume")
hostname "$host.filter.test"
ip link set lo up
pivot_root . .
umount -l .
cd /

mkdir -m 1777 /run/lock
mount -a
/etc/rc.local 3>&- </dev/null
echo ready >&3
exec 3>&-
while :; do # no exec: this shell reaps orphans
    sleep 3600 &
    wait
done
