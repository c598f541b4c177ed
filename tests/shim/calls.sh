#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `calls` with the library on a private spool, without a view and with one.  Needs
# tests/system/namespace.sh, which installs the library.
set -eu
program=$(realpath "$1") table=$2
mkdir -p /srv/plain
for view in off auto; do
    spool=/srv/calls-$view
    mkdir -p $spool
    printf 'spool = %s\nmemory = 64M\nview = %s\nprogram = %s\n' $spool $view "$program" >/etc/fastspool.conf
    [ $view = off ] || echo "-- with the view"
    status=0
    FASTSPOOL_VIEW=$view LD_PRELOAD=libfastspool.so "$program" "$table" /srv/plain $spool \
        $([ $view = off ] || echo view) || status=$?
    case $status in
    0) ;;
    77) echo "no view can be mounted here" ;;
    *) exit $status ;;
    esac
done
