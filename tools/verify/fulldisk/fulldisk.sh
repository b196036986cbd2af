#!/bin/bash
# fulldisk.sh QUARXFS DIR [SIZE]: what a store does on a small disk that is filled by its
# users, by other programs, and to the last byte, with the daemon killed there; what a held snapshot keeps;
# and what a full disk below the cold tier does. Needs root. It works in a new directory below DIR
# and removes it.
set -u
Q=$(realpath "$1"); W=$(mktemp -d "$2/fulldisk-XXXXXX"); SIZE=${3:-256M}
M=$W/mnt; S=$W/disk/store; C=$W/colddisk; failed=0
trap 'umount -l "$M" "$W/disk" "$C" 2>/dev/null; rm -rf "$W"' EXIT
say() { echo "== $*"; }
must() { "$@" || { echo "FAILED: $*"; failed=1; }; }
pid() { "$Q" stats "$S" --json | python3 -c 'import json,sys; print(int(json.load(sys.stdin)["daemon"]["pid"]))'; }
avail() { df --output=avail -k "$1" | tail -1; }
free() { echo "$(avail "${1:-$W/disk}") KiB free"; }
mustfail() { "$@" >/dev/null 2>"$W/said" && { echo "FAILED, no refusal: $*"; failed=1; }; tail -1 "$W/said"; }
alive() { must test -d "/proc/$(pid)"; }
remount() { must "$Q" umount "$M"; must "$Q" mount "$S" "$M"; }
write() { dd if=/dev/urandom of="$1" bs=1M count="$2" conv=fsync status=none 2>>"$W/errors"; }
check() { must "$Q" fsck "$M" >"$W/fsck"; tail -1 "$W/fsck"; }
sums() { md5sum --quiet -c "$W/sums"; }

mkdir "$M" "$W/disk" "$C"; truncate -s "$SIZE" "$W/image"
mkfs.ext4 -q -F -m 0 "$W/image" && mount -o loop "$W/image" "$W/disk" || exit 1
"$Q" init "$S" >/dev/null && "$Q" mount "$S" "$M" || exit 1

say "four writers fill it"
for w in 1 2 3 4; do
	(for i in $(seq 100); do write "$M/w$w.$i" 4 || break; echo "$M/w$w.$i" >>"$W/done"; done) &
done; wait
must test "$(wc -l <"$W/done")" -gt 10
P=$(pid); must test -d "/proc/$P"; free

say "half of it deleted, and written anew at once"
awk 'NR % 2' "$W/done" | xargs rm
for i in 1 2 3 4 5; do must write "$M/again$i" 8; done
awk 'NR % 2 == 0' "$W/done" | xargs md5sum >"$W/sums"
md5sum "$M"/again* >>"$W/sums"
remount; must sums
check

say "other programs fill it to the last byte while files are written"
(for i in $(seq 200); do echo "line $i" >>"$M/log"; sync "$M/log" 2>/dev/null && echo "$i" >"$W/acked"; sleep 0.01; done) & L=$!
write "$M/big" 100 &
dd if=/dev/zero of="$W/disk/other" bs=64k conv=fsync status=none 2>/dev/null
dd if=/dev/zero of="$W/disk/other2" bs=1k status=none 2>/dev/null
wait; free; P=$(pid); must test -d "/proc/$P"

say "the daemon killed there, and the store mounted"
test "$P" -gt 1 && kill -9 "$P"; sleep 0.5; umount -l "$M"
dd if=/dev/zero of="$W/disk/other3" bs=1k status=none 2>/dev/null; free
must "$Q" mount "$S" "$M"; must sums
must grep -q "^line $(cat "$W/acked")$" "$M/log"
must rm "$M/again1"; sed -i '/again1$/d' "$W/sums"
must "$Q" umount "$M"

say "with room again"
rm "$W/disk"/other*
must "$Q" mount "$S" "$M"; must sums; must write "$M/new" 1
check

say "all deleted, while a held snapshot keeps it"
must "$Q" snapshot create "$M" kept; must "$Q" snapshot hold "$M" kept
rm "$M"/*; must "$Q" gc "$M"; before=$(avail "$W/disk"); free
for i in $(seq 100); do write "$M/fill$i" 4 || break; done
must test "$i" -lt 60; alive
mustfail "$Q" snapshot rm "$M" kept
sed -i "s|$M/|$M/.snapshots/kept/|" "$W/sums"; remount; must sums
must rm "$M"/fill*; must "$Q" gc "$M"
must test "$(avail "$W/disk")" -lt $((before + 16384))
must "$Q" snapshot release "$M" kept; must "$Q" snapshot rm "$M" kept; must "$Q" gc "$M"; free
must test "$(avail "$W/disk")" -gt $((before + 65536))
must write "$M/room" 64; must rm "$M/room"; must "$Q" gc "$M"

say "a cold tier whose disk is too small for what is demoted"
truncate -s 48M "$W/coldimage"; mkfs.ext4 -q -F -m 0 "$W/coldimage" && mount -o loop "$W/coldimage" "$C" || exit 1
must "$Q" tier add "$M" cold "$C/tier"
mkdir "$M/old" "$M/older"; for i in 1 2 3 4; do must write "$M/old/$i" 8; must write "$M/older/$i" 8; done
md5sum "$M"/old/* "$M"/older/* >"$W/sums"
mustfail "$Q" tier demote "$M" old older
free "$C"; alive; must sums; must write "$M/new" 4
remount; must sums; check

say "other programs fill it to the last byte, and the daemon is killed"
dd if=/dev/zero of="$C/other" bs=1k status=none 2>/dev/null; free "$C"
mustfail "$Q" tier demote "$M" older
kill -9 "$(pid)"; sleep 0.5; umount -l "$M"
must "$Q" mount "$S" "$M"; must sums; must write "$M/new2" 4; must sums

say "with room in the cold tier again"
rm "$C/other"; must rm -r "$M/old"; sed -i '\|/old/|d' "$W/sums"; must "$Q" gc "$M"; free "$C"
must "$Q" tier demote "$M" older; remount; must sums
must "$Q" tier drain "$M" cold; must "$Q" gc "$M"; must "$Q" tier remove "$M" cold; must sums
check
must "$Q" umount "$M"
exit $failed
