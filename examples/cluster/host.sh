#!/bin/sh
# SPDX-License-Identifier: MIT
# Process 1 of a host.  `power` starts it with mounts, processes, name and network of its own:
#
#     host.sh HOST
#
# The root is the image, above it fastspool, above that the host's own disk.  What /etc/fstab says of /dev/vdb is done with
# the host's volume, by a loop device that goes with its mount.  When /etc/rc.local has started the services it writes a line
# to the disk's `ready`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"
host=$1
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
while read -r device place type options _; do
    [ "$device" != /dev/vdb ] || mount -t "$type" -o "loop,$options" "$state/volumes/$host" "$disk/root$place"
done <etc/fstab
hostname "$host.filter.test"
ip link set lo up
pivot_root . .
umount -l .
cd /

mkdir -m 1777 /run/lock
busybox syslogd -O /var/log/syslog 3>&- </dev/null # where there is no journald
/etc/rc.local 3>&- </dev/null
echo ready >&3
exec 3>&-
while :; do # no exec: this shell reaps orphans
    sleep 3600 &
    wait
done
