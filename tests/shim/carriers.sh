#!/bin/sh
# SPDX-License-Identifier: MIT
# Run the program `carriers` with the library on a private spool.  Needs tests/system/namespace.sh, which installs the
# library.  Then again with the view, which serves only what the configuration names.
set -eu
program=$(realpath "$1")
for view in off auto; do
    spool=/srv/carriers-$view
    mkdir -p $spool
    printf 'spool = %s\nmemory = 64M\nview = %s\nprogram = %s\n' $spool $view "$program" >/etc/fastspool.conf
    [ $view = off ] || echo "-- with the view"
    status=0
    FASTSPOOL_VIEW=$view LD_PRELOAD=libfastspool.so "$program" $spool $([ $view = off ] || echo view) || status=$?
    case $status in
    0) ;;
    77) echo "no view can be mounted here" ;;
    *) exit $status ;;
    esac
done
