# SPDX-License-Identifier: MIT
# What the scripts of the cluster share.  They source it, with `here` set to their own directory.
#
# The cluster is one private machine (machine.sh), in which each host has namespaces of its own (host.sh).  Outside there
# is only $state/machine, the process that is the private machine's first one.  Inside, $state is a file system in memory:
#
#     $state/fastspool/       this tree's build, installed
#     $state/disks/HOST/      a host's disk: what it changed in the image's files; they stay when it is off
#     $state/volumes/HOST     a mail server's second disk, for its spool

image=${FASTSPOOL_CLUSTER_IMAGE:-$(cd "$here/../.." && pwd)/build/cluster/image}
build=${FASTSPOOL_BUILD:-$(cd "$here/../.." && pwd)/build}
state=${FASTSPOOL_CLUSTER:-/run/fastspool-cluster}

# Host and address, in the order of their start.  The standby is off until it is needed.
hosts="dns:10.77.0.2 store:10.77.0.40 scan:10.77.0.30 far:10.77.0.50 retry:10.77.0.20 main1:10.77.0.11 main2:10.77.0.12
    backup:10.77.0.25 sender:10.77.0.60 watch:10.77.0.70 standby:10.77.0.13"
mail_hosts="main1 main2 standby retry backup sender"

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

is_host() { # NAME
    case " $(echo $hosts) " in *" $1:"*) ;; *) return 1 ;; esac
}

address() { # HOST
    for host_address in $hosts; do
        [ "${host_address%:*}" != "$1" ] || echo "${host_address#*:}"
    done
}

mac_address() { # HOST
    printf '02:00:%02x:%02x:%02x:%02x' $(address "$1" | tr . ' ')
}

child_of() { # PROCESS, which has one child
    tr -d ' ' <"/proc/$1/task/$1/children"
}

# Of a namespace's first process the kernel keeps what its parent has to see until each other process there is gone for its own
# parent, too.  `on` and `power` are such parents, outside; one that is stopped (^Z) sees nothing, and is killed.
end_namespace() { # PROCESS, the first one of a PID namespace
    namespace=$(readlink "/proc/$1/ns/pid") || return 0
    kill -KILL "$1" 2>/dev/null || true
    for try in $(seq 600); do
        [ -e "/proc/$1" ] || return 0
        sleep 0.1
        [ $((try % 10)) != 0 ] || stopped_parents "$namespace" | while read -r process; do kill -KILL "$process" || true; done
    done
    die "process $1 was killed a minute ago and has not ended: look at the processes of $namespace (lsns --type pid)"
}

stopped_parents() { # NAMESPACE: of dead processes in it
    cat /proc/[0-9]*/status 2>/dev/null | awk '
        $1 == "State:" { is = $2 }
        $1 == "Pid:" { process = $2 }
        $1 == "PPid:" { parent[process] = $2; state[process] = is }
        END { for (process in parent)
            if (state[process] == "Z" && state[parent[process]] ~ /[Tt]/) print process, parent[process] }' |
    while read -r process parent; do
        [ "$(readlink "/proc/$process/ns/pid")" != "$1" ] || echo "$parent"
    done
}

is_up() { # is there a private machine?
    [ -s "$state/machine" ] && grep -qs fastspool-cluster "/proc/$(cat "$state/machine")/cmdline"
}

in_machine() { # COMMAND...: in the private machine, outside its hosts
    is_up || die "the cluster is not up: start it with examples/cluster/up"
    nsenter --target "$(cat "$state/machine")" --mount --uts --ipc --net --pid -- "$@"
}

# --- inside the private machine ---

is_on() { # HOST
    [ -s "$state/disks/$1/process" ] && [ -e "/proc/$(cat "$state/disks/$1/process")" ]
}

in_host() { # HOST COMMAND...
    host_entered=$1
    shift
    nsenter --target "$(cat "$state/disks/$host_entered/process")" --mount --uts --ipc --net --pid -- \
        env --chdir=/ -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
