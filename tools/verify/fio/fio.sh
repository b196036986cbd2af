#!/bin/bash
# fio.sh [QUARXFS [DIR]]: fio writes files on a mount in each of its ways (buffered, direct
# and mapped; psync, libaio and io_uring; in order and at random; small and large blocks) and reads
# every block back with its CRC32C. After a remount all of it is read again. Then the same with gc and
# snapshots being made and removed meanwhile. It works in a new directory below DIR and removes it.
set -u
Q=$(realpath "${1:-bin/quarxfs}"); W=$(mktemp -d "${2:-/var/tmp}/fioverify-XXXXXX")
S=$W/store; M=$W/mnt; SIZE=${SIZE:-32m}; failed=0 jobs=0
trap 'kill ${upkeep:-} 2>/dev/null; "$Q" umount "$M" 2>/dev/null || umount -l "$M" 2>/dev/null; rm -rf "$W"' EXIT

# job WHAT NAME OPTION...: one job of fio, and a line about it.
job() {
	local what=$1 name=$2 out; shift 2; jobs=$((jobs + 1))
	if out=$(cd "$W" && fio --name="$name" --filename="$M/$name" --size="$SIZE" --randseed="$jobs" \
		--verify=crc32c --verify_fatal=1 --allow_mounted_write=1 "$@" 2>&1); then
		echo "ok      $what $name"
	else
		echo "FAILED  $what $name"; echo "$out"; failed=$((failed + 1))
	fi
}

# matrix PREFIX WHAT OPTION...: all jobs; the same number is the same seed each time.
matrix() {
	local prefix=$1 what=$2 way name; shift 2; jobs=0
	for way in "buffered psync" "buffered libaio" "buffered io_uring" "direct psync" "direct libaio" "direct io_uring" "mapped mmap"; do
		local mode=${way% *} engine=${way#* } depth=1 direct=0
		[ "$mode" = direct ] && direct=1
		[ "$engine" = libaio ] || [ "$engine" = io_uring ] && depth=16
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

remount() { "$Q" umount "$M" && "$Q" mount "$S" "$M" || { echo "FAILED  remount"; exit 1; }; }

upkeep() {
	local n=0
	while "$Q" gc "$M" && "$Q" snapshot create "$M" "s$n"; do
		[ $n -ge 2 ] && { "$Q" snapshot rm "$M" "s$((n - 2))" || break; }
		n=$((n + 1)); echo $n >"$W/rounds"
	done >/dev/null 2>"$W/upkeep.err"
	echo "stopped" >>"$W/upkeep.err"
}

mkdir "$M"; "$Q" init "$S" >/dev/null && "$Q" mount "$S" "$M" || exit 1
matrix quiet "written, read:"
remount
matrix quiet "remounted:    " --verify_only
rm "$M"/quiet-*

upkeep & upkeep=$!
matrix busy "beside upkeep:"
if [ -s "$W/upkeep.err" ]; then echo "FAILED  upkeep:"; cat "$W/upkeep.err"; failed=$((failed + 1)); fi
kill $upkeep; wait $upkeep 2>/dev/null
echo "upkeep: $(cat "$W/rounds") rounds of gc, snapshot create and snapshot rm"
remount
matrix busy "remounted:    " --verify_only
"$Q" fsck "$M" >"$W/fsck" || failed=$((failed + 1))
tail -1 "$W/fsck"
"$Q" umount "$M" || failed=$((failed + 1))
echo "$((4 * jobs)) jobs, $failed failed"
[ $failed = 0 ]
