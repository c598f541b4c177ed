#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a command on what looks like a machine of its own:
#
#     namespace.sh [--build DIR] COMMAND ARGUMENT...
#
# Mounts, processes and network are private:
#
# - /usr is an overlay.  --build installs the build in DIR into it: the set-user-ID library and the tool.
# - /etc is an overlay too.  A test can add a user there, and write Exim's configuration where Exim looks for it.
# - /var/lib/dpkg too: a test can say that a package is installed.
# - /dev has the same devices, and its own /dev/log, which nobody reads.  Loop devices up to number 63 are there.
# - /tmp shows what is there outside, but for criterion's sockets: each has a process number as its name, which is another
#   process's in each namespace.  What is written there is gone with the machine, unless it is in the tree, in the build or
#   beside the file of FASTSPOOL_TEST_COUNTS.
# - /run, /dev/shm, /srv and /home are empty.  So are Exim's own spool and log directories.
# - Loopback ports are private.
#
# Nothing is left behind.  When the command ends or this script is terminated, the kernel kills every process inside, the
# mounts go with the last one, and this script ends after it.  A process that waits for a disk frozen by a test can't die, so
# this script thaws such disks from outside.
#
# The exit status is the command's.  Needs root.
set -eu

thaw() { # PID-NAMESPACE, as "pid:[NUMBER]"; one process looks at all: one for each cost seconds on a busy machine
    for link in $(find /proc/[0-9]*/ns/pid -maxdepth 0 -lname "pid:\\[${1#pid:\[}" 2>/dev/null); do
        process=${link%/ns/pid}
        while read -r _ _ _ _ place _; do
            case $place in /srv/*) nsenter --target "${process#/proc/}" --mount fsfreeze --unfreeze "$place" ;; esac
        done <"$process/mountinfo" 2>/dev/null || true
    done
}

if [ "${1-}" != --inside ]; then
    terminated() { # the first process inside ends after the kernel has ended all others
        [ "${!-}" ] || { rm -f "${FASTSPOOL_NAMESPACE-}"; exit 143; } # nothing has started yet
        first=$(cat "/proc/$!/task/$!/children" 2>/dev/null) || true
        kill -KILL $! 2>/dev/null || true
        thaw "$(cat "$FASTSPOOL_NAMESPACE")" 2>/dev/null
        while [ "$first" ] && read -r state 2>/dev/null <"/proc/${first% }/stat"; do
            case $state in *") Z "*) break ;; esac
            sleep 0.05
        done
    }
    trap terminated HUP INT TERM
    FASTSPOOL_OUTER_PID_NAMESPACE=$(readlink /proc/self/ns/pid)
    FASTSPOOL_NAMESPACE=$(mktemp) # the inner script writes its PID namespace here
    export FASTSPOOL_OUTER_PID_NAMESPACE FASTSPOOL_NAMESPACE
    unshare --mount --pid --net --ipc --fork --kill-child --mount-proc -- "$0" --inside "$@" <&0 &
    child=$!
    status=0
    wait $child || status=$?
    wait $child 2>/dev/null || true # again, because a signal ends the first wait
    thaw "$(cat "$FASTSPOOL_NAMESPACE")" 2>/dev/null
    rm -f "$FASTSPOOL_NAMESPACE"
    exit $status
fi
shift
readlink /proc/self/ns/pid >"$FASTSPOOL_NAMESPACE"

build=
if [ "$1" = --build ]; then
    build=$2
    shift 2
fi

overlay() { # DIRECTORY
    mkdir -p "/run/namespace$1/upper" "/run/namespace$1/work"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/namespace$1/upper,workdir=/run/namespace$1/work" "$1"
}

private_dev() {
    mkdir /run/dev
    mount -t tmpfs -o mode=755 private /run/dev
    cp -ax /dev/. /run/dev
    rm -f /run/dev/log
    # A new loop device shows in the kernel's own /dev alone.
    for number in $(seq 0 63); do
        [ -e "/run/dev/loop$number" ] || mknod -m 600 "/run/dev/loop$number" b 7 "$number"
    done
    mount --bind /dev/pts /run/dev/pts
    mount --move /run/dev /dev
    rmdir /run/dev
}

private_tmp() {
    mkdir /run/tmp
    mount --bind /tmp /run/tmp
    overlay /tmp
    chmod 1777 /tmp
    rm -f /tmp/criterion_*.sock
    for kept in "$(dirname "$0")/../.." "$build" "${FASTSPOOL_TEST_COUNTS:+${FASTSPOOL_TEST_COUNTS%/*}}"; do
        kept=$(realpath "${kept:-/}")
        case $kept in /tmp/*) mount --bind "/run$kept" "$kept" ;; esac
    done
    umount /run/tmp
    rmdir /run/tmp
}

# Programs of tests mount no view, but those that ask for one.  (The system tests write a configuration.)
export FASTSPOOL_VIEW="${FASTSPOOL_VIEW-off}"

mount --make-rprivate /
mount -t tmpfs -o mode=755 private /run
private_dev
mount -t tmpfs -o mode=1777 private /dev/shm
mount -t tmpfs -o mode=755 private /srv
mount -t tmpfs -o mode=755 private /home
for directory in /var/spool/exim4 /var/spool/exim /var/log/exim4; do
    [ ! -d "$directory" ] || mount -t tmpfs -o "mode=750,uid=$(stat -c %u "$directory"),gid=$(stat -c %g "$directory")" \
        private "$directory"
done
overlay /usr
overlay /etc
[ ! -d /var/lib/dpkg ] || overlay /var/lib/dpkg
private_tmp
ip link set lo up 2>/dev/null || python3 - <<'PYTHON'
# Without ip(8): SIOCSIFFLAGS, IFF_UP | IFF_RUNNING.
import fcntl, socket, struct
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
PYTHON
if [ -n "$build" ]; then
    meson install -C "$build" --no-rebuild --quiet
fi

# No exec: this shell is pid 1 of the namespace, and reaps orphans.
status=0
"$@" || status=$?
exit $status
