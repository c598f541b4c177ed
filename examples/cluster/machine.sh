#!/bin/sh
# SPDX-License-Identifier: MIT
# Process 1 of the private machine that holds the hosts.  `up` starts it with mounts, processes and network of its own:
#
#     machine.sh fastspool-cluster READY     (the name is how the other scripts know it)
#
# It makes the place for the disks, the network that joins the hosts, and installs fastspool where the hosts that have it
# see it.  Then it writes a line to READY.  When it is killed the kernel ends all that is inside, and takes it away.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/cluster.sh"

mount --make-rprivate /
exec 3>"$2"
mount -t tmpfs -o mode=755 machine /run
mkdir -p "$state"
mount -t tmpfs -o mode=755,size=75% disks "$state"
mkdir "$state/disks" "$state/volumes"
hostname cluster
ip link set lo up
ip link add mail type bridge
ip address add 10.77.0.1/24 dev mail
ip link set mail up
mkdir -p "$state/fastspool/usr/lib"
ln -s usr/lib "$state/fastspool/lib" # as in the image, which it lies over
DESTDIR=$state/fastspool meson install -C "$build" --no-rebuild --quiet

echo ready >&3
exec 3>&-
while :; do # no exec: this shell reaps what the hosts leave
    sleep 3600 &
    wait
done
