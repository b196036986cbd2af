#!/usr/bin/env bash
# With the database of a store on a disk where operation NUMBER fails (COUNT times; 0: for good), files
# are written and synced, room is given back, and the daemon ended. Then the disk is mended and the
# store mounted: that must succeed, all that was acknowledged must be there, and fsck clean. So for each
# NUMBER. Needs root and go.
usage="dbfaults.sh [--quarxfs FILE] [--work DIR] [--count COUNT] NUMBER..."
source "$(dirname "$0")/../../lib.sh"

refused=0 died=0

bad() {
	fail "number $number: $*"
	tail -n 5 "$work/log" "$store/quarxfs.log"
	cat "$work/faults"
}

# use writes files beside gc; everything here may fail; what succeeds is noted.
use() {
	local gc= i sum
	for i in $(seq 12); do
		head -c $((i * 3000)) /dev/urandom >"$mnt/f$i" || continue
		sum=$(md5sum <"$mnt/f$i") && sync "$mnt/f$i" && echo "${sum%-}$mnt/f$i" >>"$work/sums"
		if [[ $i == 4 ]]; then
			timeout 30 "$quarxfs" gc "$mnt" >/dev/null &
			gc=$!
		fi
		if [[ $i == 8 ]]; then rm -f "$mnt/f2" && sync "$mnt" && echo "$mnt/f2" >>"$work/gone"; fi
	done
	wait "$gc"
	ls -l "$mnt" >/dev/null
}

# with_faults mounts the store over the failing disk, uses it, and ends its daemon.
with_faults() {
	local i daemon
	"$quarxfs" mount "$store" "$mnt" --foreground >"$work/log" 2>&1 &
	daemon=$!
	until mountpoint -q "$mnt" 2>/dev/null || ! running $daemon; do sleep 0.02; done
	if ! running $daemon; then
		refused=$((refused + 1))
	else
		(use) 2>/dev/null
		running $daemon || died=$((died + 1))
		kill -TERM $daemon 2>/dev/null
		for i in $(seq 1500); do running $daemon && sleep 0.05 || break; done
		if running $daemon; then
			bad "the daemon does not leave"
			kill -9 $daemon
		fi
	fi
	wait $daemon 2>/dev/null
	umount -l "$mnt" 2>/dev/null
}

# after_mending judges what the daemon left.
after_mending() {
	local gone
	if ! "$quarxfs" mount "$store" "$mnt" >"$work/log" 2>&1; then
		bad "no mount after the disk was mended"
		return
	fi
	awk 'FNR == NR { gone[$1]; next } !($2 in gone)' "$work/gone" "$work/sums" >"$work/want"
	[[ ! -s $work/want ]] || md5sum --quiet -c "$work/want" >>"$work/log" 2>&1 || bad "acknowledged bytes are not there"
	while read -r gone; do [[ ! -e $gone ]] || bad "a removed file is back"; done <"$work/gone"
	"$quarxfs" umount "$mnt" >>"$work/log" 2>&1 || bad "umount"
	"$quarxfs" fsck "$store" >>"$work/log" 2>&1 || bad "fsck"
}

# round is one number, on a new store.
round() {
	local faultfs
	rm -rf "$store" "$work/back"
	: >"$work/sums" >"$work/gone" >"$work/faults"
	"$quarxfs" init "$store" >/dev/null || die "cannot make $store"
	mv "$store/db" "$work/back" && mkdir "$store/db"
	"$work/faultfs" --from "$number" --count "$count" "$work/back" "$store/db" >"$work/faults" 2>&1 &
	faultfs=$!
	until grep -q serving "$work/faults"; do running $faultfs && sleep 0.01 || die "$(<"$work/faults")"; done
	with_faults
	kill -USR1 $faultfs
	after_mending
	umount "$store/db"
	wait $faultfs
}

count=1
options "$@"
((${#arguments[@]} > 0)) || die "usage: $usage"
workspace
go build -o "$work/faultfs" "$(dirname "${BASH_SOURCE[0]}")/main.go" || exit
for number in "${arguments[@]}"; do round; done
echo "${#arguments[@]} numbers: $failed bad; mount refused with the fault $refused times, the daemon died $died times; last run: $(tail -1 "$work/faults")"
((failed == 0))
