#!/usr/bin/env bash
# tierbench with a cold tier that is really slower: an ext4 on a loop device from which a
# control group lets so many reads through in a second.
#
#	tools/bench/tier/slowdisk.sh [READS [DIRECTORY]]
#
# Needs root, go, and the blkio controller (version 1) or io (version 2).
set -euo pipefail

reads=${1:-400}
top=${2:-/var/tmp/quarxfs-slowdisk}
mkdir -p "$top/disk"
go build -o "$top/tierbench" "$(dirname "$0")/main.go"

group=/sys/fs/cgroup/quarxfs-slowdisk key=io.max
if [[ -d /sys/fs/cgroup/blkio ]]; then
	group=/sys/fs/cgroup/blkio/quarxfs-slowdisk key=blkio.throttle.read_iops_device
fi
loop=
cleanup() {
	umount "$top/disk" 2>/dev/null || true
	[[ -z $loop ]] || losetup -d "$loop"
	rmdir "$group" 2>/dev/null || true
	rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

truncate -s 2G "$top/image"
mkfs.ext4 -q -F "$top/image"
loop=$(losetup --find --show "$top/image")
mount "$loop" "$top/disk"
mkdir "$group"
number=$(lsblk -ndo MAJ:MIN "$loop" | tr -d ' ')
case $key in
io.max) echo "$number riops=$reads" >"$group/$key" ;;
*) echo "$number $reads" >"$group/$key" ;;
esac
(
	echo $BASHPID >"$group/cgroup.procs"
	exec "$top/tierbench" "$top/store" "$top/disk"
)
