#!/bin/bash
# golden.sh QUARXFS FILE.tar.gz: makes the store that TestGoldenStore opens. What is in it is
# a function of nothing but this script; the keys and IDs that init chooses are random. Needs root.
set -eu
Q=$(realpath "$1"); W=$(mktemp -d); M=$W/mnt; mkdir "$M"
trap 'umount -l "$M" 2>/dev/null || true; rm -rf "$W"' EXIT
numbers() { seq "$1" "$2"; }
"$Q" init "$W/store" --segment-size 1MiB --block-size 4KiB >/dev/null
"$Q" mount --foreground "$W/store" "$M" 2>/dev/null & P=$!
until mountpoint -q "$M"; do sleep 0.1; done
mkdir "$M/dir" "$M/dir/sub"
numbers 1 20000 >"$M/numbers"
numbers 1 20000 >"$M/dir/again"                      # the same blocks
{ echo first; numbers 1 20000; } >"$M/dir/shifted"   # most of them
ln "$M/numbers" "$M/dir/sub/hard"
ln -s ../numbers "$M/dir/soft"
setfattr -n user.what -v "an attribute" "$M/numbers"
truncate -s 1M "$M/sparse"; echo end >>"$M/sparse"
sync "$M/numbers"
printf staged | dd of="$M/numbers" bs=1 seek=5000 conv=notrunc,fsync status=none
chmod 4750 "$M/dir/again"; chown 12:34 "$M/dir/again"
touch -d '1961-04-12 06:07:00.5 UTC' "$M/dir/again"
echo gone >"$M/removed"; sync "$M/removed"; rm "$M/removed"
numbers 5 9000 | "$Q" put "$M" --name object
sync "$M/numbers"
kill -9 $P; wait $P || true # so that the commit log and the memtable's log have something in them
umount -l "$M"
rm -f "$W/store/control.sock"
rm -f "$W/store/quarxfs.log"*
tar -C "$W" --sort=name --owner=0 --group=0 --sparse -czf "$2" store
