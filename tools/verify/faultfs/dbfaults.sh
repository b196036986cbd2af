#!/bin/bash
# dbfaults.sh QUARXFS FAULTFS DIR COUNT NUMBER...: with the database of a store on a disk
# where operation NUMBER fails (COUNT times; 0: for good), files are written and synced, room is
# given back, and the daemon ended. Then the disk is mended and the store mounted: that must
# succeed, all that was acknowledged must be there, and fsck clean. Needs root.
set -u
Q=$(realpath "$1"); F=$(realpath "$2"); W=$(mktemp -d "$3/dbfaults-XXXXXX"); COUNT=$4; shift 4
M=$W/mnt; S=$W/store; bad=0; died=0; n=0; refused=0
trap 'umount -l "$M" "$S/db" 2>/dev/null; rm -rf "$W"' EXIT
mkdir "$M"
running() { grep -q "^State:[[:space:]]*[^ZX]" /proc/"$1"/task/*/status 2>/dev/null; }
fail() { echo "number $n: $*"; bad=$((bad + 1)); tail -n 5 "$W/log" "$S/quarxfs.log"; cat "$W/faults"; }

work() { # files are written beside gc; everything here may fail; what succeeds is noted
	local gc=
	for i in $(seq 12); do
		head -c $((i * 3000)) /dev/urandom >"$M/f$i" 2>/dev/null || continue
		sum=$(md5sum <"$M/f$i") && sync "$M/f$i" 2>/dev/null && echo "${sum%-}$M/f$i" >>"$W/sums"
		if [ "$i" = 4 ]; then timeout 30 "$Q" gc "$M" >/dev/null 2>&1 & gc=$!; fi
		if [ "$i" = 8 ]; then rm -f "$M/f2" && sync "$M" 2>/dev/null && echo "$M/f2" >>"$W/gone"; fi
	done
	wait "$gc"
	ls -l "$M" >/dev/null 2>&1
}

for n in "$@"; do
	rm -rf "$S" "$W/back"; : >"$W/sums"; : >"$W/gone"; : >"$W/faults"
	"$Q" init "$S" >/dev/null || exit 1
	mv "$S/db" "$W/back"; mkdir "$S/db"
	"$F" -from "$n" -count "$COUNT" "$W/back" "$S/db" >"$W/faults" 2>&1 & FP=$!
	until grep -q serving "$W/faults"; do sleep 0.01; done
	"$Q" mount "$S" "$M" --foreground >"$W/log" 2>&1 & P=$!
	until mountpoint -q "$M" 2>/dev/null || ! running $P; do sleep 0.02; done
	if running $P; then
		(work) 2>/dev/null
		running $P || died=$((died + 1))
		kill -TERM $P 2>/dev/null
		for i in $(seq 1500); do running $P || break; sleep 0.05; done
		if running $P; then fail "the daemon does not leave"; kill -9 $P; fi
	else
		refused=$((refused + 1))
	fi
	wait $P 2>/dev/null
	umount -l "$M" 2>/dev/null
	kill -USR1 $FP
	if "$Q" mount "$S" "$M" >"$W/log" 2>&1; then
		awk 'FNR == NR { gone[$1]; next } !($2 in gone)' "$W/gone" "$W/sums" >"$W/want"
		test ! -s "$W/want" || md5sum --quiet -c "$W/want" >>"$W/log" 2>&1 || fail "acknowledged bytes are not there"
		while read -r gone; do test -e "$gone" && fail "a removed file is back"; done <"$W/gone"
		"$Q" umount "$M" >>"$W/log" 2>&1 || fail "umount"
		"$Q" fsck "$S" >>"$W/log" 2>&1 || fail "fsck"
	else
		fail "no mount after the disk was mended"
	fi
	umount "$S/db"; wait $FP
done
echo "$# numbers: $bad bad; mount refused with the fault $refused times, the daemon died $died times; last run: $(tail -1 "$W/faults")"
exit $((bad > 0))
