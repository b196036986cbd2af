#!/usr/bin/env bash
# tierbench with a cold tier that is really slower: an ext4 on a loop device from which a control group
# lets so many reads through in a second. Needs root, go, and the blkio controller (version 1) or io
# (version 2).
usage="slowdisk.sh [--work DIR] [--reads N]"
source "$(dirname "$0")/../../lib.sh"
set -e

group=/sys/fs/cgroup/quarxfs-slowdisk limits=io.max
if [[ -d /sys/fs/cgroup/blkio ]]; then
	group=/sys/fs/cgroup/blkio/quarxfs-slowdisk limits=blkio.throttle.read_iops_device
fi

reads=400
quarxfs=/bin/true # tierbench is a library's user
options "$@"
workspace
go build -o "$work/tierbench" "$(dirname "$0")/main.go"
disk "$work/image" 2G "$work/disk"
number=$(lsblk -ndo MAJ:MIN "$(findmnt -no SOURCE "$work/disk")" | tr -d ' ')
mkdir "$group"
later rmdir "$group"
case $limits in
io.max) echo "$number riops=$reads" >"$group/$limits" ;;
*) echo "$number $reads" >"$group/$limits" ;;
esac
(
	echo $BASHPID >"$group/cgroup.procs"
	exec "$work/tierbench" --work "$work/store" --cold "$work/disk"
)
