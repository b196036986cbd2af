#!/usr/bin/env bash
# What snapshots of a large tree take, on a mount. It makes files of 100 bytes, 1,000 in a directory, and
# then snapshots, a clone, a restore and a rollback of them. With --only-files it leaves the store there
# with the files, for a run that finds it by --store. Needs go, jq and what mounting needs.
usage="million.sh [--quarxfs FILE] [--work DIR] [--files N] [--only-files] [--store STORE]"
source "$(dirname "$0")/../../lib.sh"
set -e

# measure WHAT COMMAND...: its time, and what the store grew by.
measure() {
	local what=$1 before start ms
	shift
	before=$(figure .stored_bytes) start=$(now)
	"$@" >/dev/null
	ms=$(took "$start")
	sync "$mnt"
	printf '%-42s %8d ms %12d bytes stored\n' "$what" "$ms" $(($(figure .stored_bytes) - before))
}

# sample keeps in $work/memory the most of each kind that the daemon had resident.
sample() {
	local pid=$1 kind value unit
	declare -A most
	while kill -0 "$pid" 2>/dev/null; do
		while read -r kind value unit; do
			case $kind in
			RssAnon: | RssFile:) ((value <= ${most[$kind]:-0})) || most[$kind]=$value ;;
			esac
		done <"/proc/$pid/status"
		echo "anonymous $((${most[RssAnon:]:-0} / 1024)) MiB, mapped files $((${most[RssFile:]:-0} / 1024)) MiB" >"$work/memory.new"
		mv "$work/memory.new" "$work/memory"
		sleep 0.1
	done
}

snapshots() {
	local i block
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
	echo "most memory of the daemon: $(<"$work/memory")"
}

files=1000000 only_files=
options "$@"
given=${store:-}
workspace
store=${given:-$store}
[[ -z $only_files ]] || keep=1
[[ -n $given ]] || "$quarxfs" init "$store" >/dev/null
mount_store
sample "$(daemon_pid)" 2>/dev/null &
if [[ -z $given ]]; then
	go build -o "$work/stall" "$(dirname "$0")/main.go"
	measure "make $files files" "$work/stall" --files "$files" --size 100 "$mnt/tree" sync -f "$mnt"
fi
until [[ -s $work/memory ]]; do sleep 0.1; done
echo "most memory of the daemon so far: $(<"$work/memory")"
[[ -n $only_files ]] || snapshots
