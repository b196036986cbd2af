#!/usr/bin/env bash
# fio writes files on a mount in each of its ways (buffered, direct and mapped; psync, libaio and
# io_uring; in order and at random; small and large blocks) and reads every block back with its CRC32C.
# After a remount all of it is read again. Then the same with gc and snapshots being made and removed
# meanwhile. Needs fio and jq.
usage="fio.sh [--quarxfs FILE] [--work DIR] [--size BYTES]"
source "$(dirname "$0")/../../lib.sh"

jobs=0

# job WHAT NAME OPTION...: one job of fio, and a line about it.
job() {
	local what=$1 name=$2 out
	shift 2
	jobs=$((jobs + 1))
	if out=$(cd "$work" && fio --name="$name" --filename="$mnt/$name" --size="$size" --randseed="$jobs" \
		--verify=crc32c --verify_fatal=1 --allow_mounted_write=1 "$@" 2>&1); then
		echo "ok      $what $name"
	else
		fail "$what $name"
		echo "$out"
	fi
}

# matrix PREFIX WHAT OPTION...: all jobs; the same number is the same seed each time.
matrix() {
	local prefix=$1 what=$2 way rw bs
	shift 2
	jobs=0
	for way in "buffered psync" "buffered libaio" "buffered io_uring" "direct psync" "direct libaio" "direct io_uring" "mapped mmap"; do
		local mode=${way% *} engine=${way#* } depth=1 direct=0
		[[ $mode != direct ]] || direct=1
		[[ $engine != libaio && $engine != io_uring ]] || depth=16
		for rw in write randwrite; do
			for bs in 4k 20k 64k 1m; do
				job "$what" "$prefix-$mode-$engine-$rw-$bs" --ioengine="$engine" --direct=$direct --iodepth=$depth --rw=$rw --bs=$bs "$@"
			done
		done
	done
	# Over what is there: the file is written in order first.
	job "$what" "$prefix-over-4k" --ioengine=psync --rw=randwrite --bs=4k --overwrite=1 "$@"
	job "$what" "$prefix-over-direct-4k" --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bs=4k --overwrite=1 "$@"
	job "$what" "$prefix-fsync-4k" --ioengine=psync --rw=randwrite --bs=4k --fsync=64 --overwrite=1 "$@"
}

maintenance() {
	local n=0
	while "$quarxfs" gc "$mnt" && "$quarxfs" snapshot create "$mnt" "s$n"; do
		if ((n >= 2)); then "$quarxfs" snapshot rm "$mnt" "s$((n - 2))" || break; fi
		n=$((n + 1))
		echo $n >"$work/rounds"
	done >/dev/null 2>"$work/maintenance.err"
	echo "stopped" >>"$work/maintenance.err"
}

main() {
	matrix quiet "written, read:"
	remount_store
	matrix quiet "remounted:    " --verify_only
	rm "$mnt"/quiet-*

	maintenance &
	local maintenance=$!
	matrix busy "beside maintenance:"
	if [[ -s $work/maintenance.err ]]; then
		fail "maintenance:"
		cat "$work/maintenance.err"
	fi
	kill $maintenance
	wait $maintenance 2>/dev/null
	echo "maintenance: $(<"$work/rounds") rounds of gc, snapshot create and snapshot rm"
	remount_store
	matrix busy "remounted:    " --verify_only
	check_store
	umount_store
	echo "$((4 * jobs)) jobs, $failed failed"
}

size=32m
options "$@"
workspace
new_store
main
((failed == 0))
