#!/usr/bin/env bash
# What snapshots of a large tree take, on a mount, with the built program:
#
#   tools/bench/stall/million.sh [QUARXFS [DIRECTORY [FILES]]]
#
# It makes files of 100 bytes, 1,000 in a directory, and then snapshots, a clone, a
# restore and a rollback of them. With KEEP=1 it only makes the files, for a run that
# finds them in DIRECTORY. Needs go, jq and what mounting needs.
set -euo pipefail

quarxfs=$(readlink -f "${1:-bin/quarxfs}")
top=${2:-/var/tmp/quarxfs-million}
files=${3:-1000000}

mkdir -p "$top/mnt"
top=$(readlink -f "$top")
store=$top/store mnt=$top/mnt
cleanup() {
	cd /
	"$quarxfs" umount "$mnt" >/dev/null 2>&1 || umount -l "$mnt" 2>/dev/null || true
	[[ -n ${KEEP:-} ]] || rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
go build -o "$top/stall" "$(dirname "$0")/main.go"

stored() { "$quarxfs" stats "$store" --json | jq .stored_bytes; }
# measure WHAT COMMAND...: its time, and what the store grew by.
measure() {
	local what=$1 before start ms
	shift
	before=$(stored) start=$(date +%s%N)
	"$@" >/dev/null
	ms=$((($(date +%s%N) - start) / 1000000))
	sync "$mnt"
	printf '%-42s %8d ms %12d bytes stored\n' "$what" "$ms" $(($(stored) - before))
}

# sample keeps in $top/memory the most of each kind that the daemon had resident.
sample() {
	local pid=$1 kind value unit
	declare -A most
	while kill -0 "$pid" 2>/dev/null; do
		while read -r kind value unit; do
			case $kind in
			RssAnon: | RssFile:) ((value <= ${most[$kind]:-0})) || most[$kind]=$value ;;
			esac
		done <"/proc/$pid/status"
		echo "anonymous $((${most[RssAnon:]:-0} / 1024)) MiB, mapped files $((${most[RssFile:]:-0} / 1024)) MiB" >"$top/memory.new"
		mv "$top/memory.new" "$top/memory"
		sleep 0.1
	done
}

"$quarxfs" mount --init "$store" "$mnt"
sample "$("$quarxfs" stats "$store" --json | jq .daemon.pid)" 2>/dev/null &
if [[ ! -e $mnt/tree ]]; then
	measure "make $files files" "$top/stall" -files "$files" -size 100 "$mnt/tree" sync -f "$mnt"
fi
echo "most memory of the daemon so far: $(<"$top/memory")"
[[ -z ${KEEP:-} ]] || exit 0
measure "first snapshot" "$quarxfs" snapshot create "$mnt" first
for i in 1 2 3 4 5; do
	echo "changed $i" >"$mnt/tree/1/1001"
	measure "snapshot after one file changed" "$quarxfs" snapshot create "$mnt" "one$i"
done
measure "snapshot after nothing changed" "$quarxfs" snapshot create "$mnt" none
measure "diff of the first and the last" "$quarxfs" snapshot diff "$mnt" first none
block=$("$quarxfs" list-blocks "$mnt" --json --limit 1 | jq -r .id)
measure "graph why" "$quarxfs" graph why "$mnt" "$block"
measure "graph why again" "$quarxfs" graph why "$mnt" "$block"
measure "du" "$quarxfs" du "$mnt"
measure "clone of all" "$quarxfs" snapshot clone "$mnt" first "$mnt/clone"
measure "restore of a directory of 1,000 files" "$quarxfs" snapshot restore "$mnt" first:tree/1 "$mnt/tree/1"
measure "rollback of all, without a snapshot before" "$quarxfs" snapshot rollback "$mnt" first --no-safety
echo "most memory of the daemon: $(<"$top/memory")"
