#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `calls` with the library on a private spool, without a view and with one.  Needs
# tests/system/namespace.sh, which installs the library.
set -eu
program=$(realpath "$1") table=$2
plain=/srv/place/plain
mkdir -p $plain
for mode in none view later; do
    spool=/srv/calls-$mode view=$([ $mode = none ] && echo off || echo auto)
    mkdir -p $spool/input
    printf 'spool = %s\nmemory = 64M\nview = %s\nprogram = %s\n' $spool $view "$program" >/etc/fastspool.conf
    echo "-- $mode"
    [ $mode != later ] || chmod 700 /srv/place $plain $spool $spool/input # the view has no names for ordinary users
    status=0
    FASTSPOOL_VIEW=$view LD_PRELOAD=libfastspool.so "$program" "$table" $plain $spool \
        $([ $mode = none ] || echo $mode) || status=$?
    case $status in
    0) ;;
    77) echo "no view can be mounted here" ;;
    *) exit $status ;;
    esac
done
