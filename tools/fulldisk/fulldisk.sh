#!/bin/bash
# fulldisk.sh QUARXFS DIR [SIZE]: what a store does on a small disk that is filled by its
# users, by other programs, and to the last byte, with the daemon killed there. Needs root. It works
# in a new directory below DIR and removes it.
set -u
Q=$(realpath "$1"); W=$(mktemp -d "$2/fulldisk-XXXXXX"); SIZE=${3:-256M}
M=$W/mnt; S=$W/disk/store; failed=0
trap 'umount -l "$M" "$W/disk" 2>/dev/null; rm -rf "$W"' EXIT
say() { echo "== $*"; }
must() { "$@" || { echo "FAILED: $*"; failed=1; }; }
pid() { "$Q" stats "$S" --json | python3 -c 'import json,sys; print(int(json.load(sys.stdin)["daemon"]["pid"]))'; }
free() { echo "$(df --output=avail -k "$W/disk" | tail -1) KiB free"; }
write() { dd if=/dev/urandom of="$1" bs=1M count="$2" conv=fsync status=none 2>>"$W/errors"; }
sums() { md5sum --quiet -c "$W/sums"; }

mkdir "$M" "$W/disk"; truncate -s "$SIZE" "$W/image"
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
must "$Q" umount "$M"; must "$Q" mount "$S" "$M"; must sums
must "$Q" fsck "$M" | tail -1

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
must "$Q" fsck "$M" | tail -1
must "$Q" umount "$M"
exit $failed
