#!/usr/bin/env bash
# What a store does on a small disk that is filled by its users, by other programs, and to the last
# byte, with the daemon killed there; what a held snapshot keeps; and what a full disk below the cold
# tier does. Needs root and jq.
usage="fulldisk.sh [--quarxfs FILE] [--work DIR] [--size BYTES]"
source "$(dirname "$0")/../../lib.sh"

avail() { df --output=avail -k "$1" | tail -1; }
free() { echo "$(avail "${1:-$work/disk}") KiB free"; }
alive() { must running "$(daemon_pid)"; }
write() { dd if=/dev/urandom of="$1" bs=1M count="$2" conv=fsync status=none 2>>"$work/errors"; }
fill() { dd if=/dev/zero of="$1" bs="$2" status=none 2>/dev/null; } # until the disk is full
sums() { md5sum --quiet -c "$work/sums"; }

filled_by_users() {
	local w i
	step "four writers fill it"
	for w in 1 2 3 4; do
		(for i in $(seq 100); do write "$mnt/w$w.$i" 4 || break; echo "$mnt/w$w.$i" >>"$work/done"; done) &
	done
	wait
	must test "$(wc -l <"$work/done")" -gt 10
	alive
	free

	step "half of it deleted, and written anew at once"
	awk 'NR % 2' "$work/done" | xargs rm
	for i in 1 2 3 4 5; do must write "$mnt/again$i" 8; done
	awk 'NR % 2 == 0' "$work/done" | xargs md5sum >"$work/sums"
	md5sum "$mnt"/again* >>"$work/sums"
	remount_store
	must sums
	check_store
}

filled_by_others() {
	local i
	step "other programs fill it to the last byte while files are written"
	(for i in $(seq 200); do echo "line $i" >>"$mnt/log"; sync "$mnt/log" 2>/dev/null && echo "$i" >"$work/acked"; sleep 0.01; done) &
	write "$mnt/big" 100 &
	fill "$work/disk/other" 64k
	fill "$work/disk/other2" 1k
	wait
	free
	alive

	step "the daemon killed there, and the store mounted"
	kill_daemon
	fill "$work/disk/other3" 1k
	free
	mount_store
	must sums
	must grep -q "^line $(<"$work/acked")$" "$mnt/log"
	must rm "$mnt/again1"
	sed -i '/again1$/d' "$work/sums"
	umount_store

	step "with room again"
	rm "$work/disk"/other*
	mount_store
	must sums
	must write "$mnt/new" 1
	check_store
}

held_snapshot() {
	local before i
	step "all deleted, while a held snapshot keeps it"
	must "$quarxfs" snapshot create "$mnt" kept
	must "$quarxfs" snapshot hold "$mnt" kept
	rm "$mnt"/*
	must "$quarxfs" gc "$mnt"
	before=$(avail "$work/disk")
	free
	for i in $(seq 100); do write "$mnt/fill$i" 4 || break; done
	must test "$i" -lt 60
	alive
	mustfail "$quarxfs" snapshot rm "$mnt" kept
	sed -i "s|$mnt/|$mnt/.snapshots/kept/|" "$work/sums"
	remount_store
	must sums
	must rm "$mnt"/fill*
	must "$quarxfs" gc "$mnt"
	must test "$(avail "$work/disk")" -lt $((before + 16384))
	must "$quarxfs" snapshot release "$mnt" kept
	must "$quarxfs" snapshot rm "$mnt" kept
	must "$quarxfs" gc "$mnt"
	free
	must test "$(avail "$work/disk")" -gt $((before + 65536))
	must write "$mnt/room" 64
	must rm "$mnt/room"
	must "$quarxfs" gc "$mnt"
}

full_cold_tier() {
	local i cold=$work/colddisk
	step "a cold tier whose disk is too small for what is demoted"
	disk "$work/coldimage" 48M "$cold"
	must "$quarxfs" tier add "$mnt" cold "$cold/tier"
	mkdir "$mnt/old" "$mnt/older"
	for i in 1 2 3 4; do
		must write "$mnt/old/$i" 8
		must write "$mnt/older/$i" 8
	done
	md5sum "$mnt"/old/* "$mnt"/older/* >"$work/sums"
	mustfail "$quarxfs" tier demote "$mnt" old older
	free "$cold"
	alive
	must sums
	must write "$mnt/new" 4
	remount_store
	must sums
	check_store

	step "other programs fill it to the last byte, and the daemon is killed"
	fill "$cold/other" 1k
	free "$cold"
	mustfail "$quarxfs" tier demote "$mnt" older
	kill_daemon
	mount_store
	must sums
	must write "$mnt/new2" 4
	must sums

	step "with room in the cold tier again"
	rm "$cold/other"
	must rm -r "$mnt/old"
	sed -i '\|/old/|d' "$work/sums"
	must "$quarxfs" gc "$mnt"
	free "$cold"
	must "$quarxfs" tier demote "$mnt" older
	remount_store
	must sums
	must "$quarxfs" tier drain "$mnt" cold
	must "$quarxfs" gc "$mnt"
	must "$quarxfs" tier remove "$mnt" cold
	must sums
	check_store
}

size=256M
options "$@"
workspace
disk "$work/image" "$size" "$work/disk"
store=$work/disk/store
new_store
filled_by_users
filled_by_others
held_snapshot
full_cold_tier
umount_store
((failed == 0))
