#!/bin/sh
# SPDX-License-Identifier: MIT
# Run a fuzzer: for twenty seconds from a seed of today on, or the whole campaign.
#
#     fuzz.sh PROGRAM
#
# FASTSPOOL_TEST_SEED is the first seed.  FASTSPOOL_TEST_LONG: 100,000 states of the segment, or 10,000 state directories,
# in sixteen processes side by side: a state often makes its child wait, and takes 11 ms of a processor.
set -eu

program=$1
seed=${FASTSPOOL_TEST_SEED-$(($(date +%s) / 86400 * 1000000))}
if [ -z "${FASTSPOOL_TEST_LONG-}" ]; then
    exec "$program" --seed "$seed" --seconds 20
fi
case $program in
*/segment) share=6250 ;;
*) share=625 ;;
esac
status=0 children=
for part in $(seq 0 15); do
    "$program" --seed $((seed + part * share)) --count $share &
    children="$children $!"
done
for child in $children; do
    wait "$child" || status=1
done
exit $status
