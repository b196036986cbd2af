#!/usr/bin/env bash
# usage: make.sh QUARXFS OUT.tar.gz (as root)
# Makes a golden store with the program QUARXFS, whose daemon is killed at the end, and lists what
# that program finds in it. testdata/script/golden.txtar opens it with the program of today.
set -euo pipefail
q=$(realpath "$1") out=$(realpath -m "$2") here=/var/tmp/quarxfs-golden # the path is in tiers.json
rm -rf "$here" && mkdir -p "$here/m"
(cd "$(dirname "$0")/../.." && go test -c -o "$here/list-tree" .) # the tests are this program, too
trap '"$q" umount --lazy "$here/m" >/dev/null 2>&1 || umount -l "$here/m" 2>/dev/null || true' EXIT

cd "$here"

"$q" init --segment-size 1MiB store
"$q" mount --commit-interval 1h store m
mkdir -p m/photos/2023 m/docs m/many m/cold
for i in $(seq 12); do head -c $((i * 3000)) /dev/urandom >"m/photos/2023/$i.raw"; done
seq 1 40000 >m/docs/numbers
seq 1 30000 | sed 's/$/ cold/' >m/cold/lines
seq 1 9000 >m/docs/overwritten
ln m/docs/numbers m/docs/again
ln m/docs/numbers m/third
ln -s docs/numbers m/link
mkfifo m/pipe
truncate -s 3M m/hole && printf end >>m/hole && printf mid | dd of=m/hole bs=1 seek=1500000 conv=notrunc status=none
printf x >m/$'not\xffutf8' && printf y >"m/with space"
chmod 4750 m/docs/overwritten && chown 12:34 m/docs/overwritten && chmod 1777 m/docs
setfattr -n user.word -v value m/docs/numbers && setfattr -n user.binary -v 0x00ff01 m/photos
touch -d '2001-02-03 04:05:06.789 UTC' m/third
sync m/third
"$q" snapshot create m one
"$q" tier add m cold "$here/cold"
"$q" tier demote m cold photos/2023/12.raw
"$q" snapshot hold m one
"$q" umount m # makes a table of all rows so far
"$q" mount --commit-interval 1h store m

# Small overwrites, a rename, a removal, a truncation.
for at in 4096 20000 33333; do printf CHANGED | dd of=m/docs/overwritten bs=1 seek=$at conv=notrunc status=none; done
mv m/photos/2023/1.raw m/photos/first.raw && rm m/photos/2023/2.raw && truncate -s 100 m/photos/2023/3.raw
sync m/docs/overwritten
"$q" snapshot create m two
"$q" snapshot clone m one m/clone
"$q" snapshot clone m two m/looked && ls m/looked/photos/2023 >m/docs/seen
printf 'clone changed' >m/looked/docs/seen-in-clone
seq 1 5000 | "$q" put m --name numbers >/dev/null
"$q" token create m laptop --scope sync >token
"$q" snapshot policy m --every 24h --keep-daily 7
"$q" tier policy m --limit 10GiB --min-age 24h
"$q" tier pin m docs
"$q" remote add m away https://203.0.113.7:7440

# Enough rows for Badger's log of its memtable, and some for our commit log only.
for i in $(seq 3500); do : >"m/many/$i"; done
sync m/many && sync -f m
rm m/many/1?00
printf 'after the snapshots' >m/last && sync m/last
for at in 100 200; do printf LATE | dd of=m/docs/numbers bs=1 seek=$at conv=notrunc status=none; done
sync m/docs/numbers

pid=$("$q" stats m --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | head -1)
kill -KILL "$pid"
umount -l m
while [ -d "/proc/$pid" ]; do sleep 0.1; done
mkdir golden && cp -a --sparse=always store cold golden/ && rm -f golden/store/*.log golden/store/db/BALLAST*

"$q" mount store m
./list-tree m >golden/tree.list
for s in one two; do ./list-tree "m/.snapshots/$s" >"golden/$s.list"; done
"$q" get m numbers >object
cp object golden/object
"$q" snapshot list m --json >golden/snapshots.json
"$q" snapshot policy m >golden/schedule
"$q" tier policy m | head -2 >golden/policy
cp token golden/token
"$q" fsck m
"$q" umount m
tar -C golden --sort=name --sparse -cf - . | gzip -9n >"$out"
ls -l "$out"
