#!/usr/bin/env bash
# The scorer on the Kafka Streams comparison: throughput or latency of one delivery mode against a running broker.
#   run.sh tput NAME [N] [flags of onmart score...]      preloaded topic "in"; events/s from its committed output
#   run.sh lat  NAME RATE SECS [flags...]                paced topic; latency from due time to read-committed arrival
# The peer is run by a script of the same form; both use one tool that feeds, drains and verifies.
# Env: FEED (that tool), JSONL (the events), ONMART (the binary), BROKER (127.0.0.1:9092), WORK (scratch),
# WARM (seconds of latencies to drop, 5).
set -euo pipefail
: "${FEED:?}" "${ONMART:?}" "${BROKER:=127.0.0.1:9092}" "${WORK:=${TMPDIR:-/tmp}/onmart-streams}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$WORK"
scorer() { # name, in, flags...
	local name=$1 in=$2
	shift 2
	rm -rf "$WORK/job-$name"
	"$ONMART" score --spec "$here/spec.yaml" --map "$here/mapping.yaml" --output event --job "$name" \
		--source "kafka://$BROKER/$in" --sink "kafka://$BROKER/out-$name" --state "$WORK/job-$name" "$@" 2>"$WORK/$name.log" &
	pid=$!
}
fin() {
	kill "$pid"
	wait "$pid"
	tail -1 "$WORK/$1.log"
	rm -rf "$WORK/job-$1"
}
case "$1" in
tput)
	name=$2 n=${3:-1754155}
	shift 3 || shift $#
	"$FEED" empty -topic "out-$name" -out "out-$name"
	scorer "$name" in "$@"
	echo "== $name $*"
	"$FEED" drain -topic "out-$name" -n "$n" -committed
	fin "$name"
	"$FEED" verify -topic "out-$name" -committed
	;;
lat)
	name=$2 rate=$3 secs=$4
	shift 4
	"$FEED" empty -topic "in-$name" -out "out-$name"
	scorer "$name" "in-$name" "$@"
	sleep 1
	echo "== $name rate $rate $*"
	"$FEED" drain -topic "out-$name" -n $((rate * secs)) -committed -warm "${WARM:-5}" &
	d=$!
	"$FEED" pace -file "${JSONL:?}" -topic "in-$name" -rate "$rate" -secs "$secs"
	wait $d
	fin "$name"
	;;
*) sed -n '2,8p' "$0" && exit 2 ;;
esac
