#!/usr/bin/env bash
# Shows on a real mount what QuarXFS promises: real trees, real tools, a kill
# and a stream larger than memory's budget. It works in a directory of its own
# and stops at the first thing that is not as it should be.
#
#   tools/show/show.sh [QUARXFS [DIRECTORY]]
set -euo pipefail

quarxfs=$(readlink -f "${1:-bin/quarxfs}")
mkdir -p "${2:-/var/tmp}"
work=$(mktemp -d "${2:-/var/tmp}/quarxfs-show-XXXXXX")
store=$work/store mnt=$work/mnt
tree=$(go env GOROOT)/src
mkdir "$mnt"

cleanup() {
	cd /
	"$quarxfs" umount --force "$mnt" >/dev/null 2>&1 || umount -l "$mnt" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() { printf '\n== %s\n' "$*"; }
stat_of() { "$quarxfs" stats "$store" --json | python3 -c "import json,sys; print(json.load(sys.stdin)$1)"; }
settle() { sync -f "$mnt"; sync "$mnt"; }
same() { diff -r "$tree" "$1" && [[ -z $(rsync -aHAXn --checksum --delete -i "$tree/" "$1/") ]] && echo "$1: the same by diff -r and rsync --checksum"; }
remount() { "$quarxfs" umount "$mnt" && "$quarxfs" mount "$store" "$mnt"; }

"$quarxfs" init "$store" >/dev/null
"$quarxfs" mount "$store" "$mnt"
cd "$mnt"

step "the Go source tree, untarred, compared, remounted, compared again"
tar c -C "$(dirname "$tree")" src | tar x
find src | wc -l
same src
cd /; remount; cd "$mnt"
same src

step "a second copy of it"
settle; before=$(stat_of "['stored_bytes']")
cp -a src src2; settle; after=$(stat_of "['stored_bytes']")
same src2
echo "stored $before bytes, then $after: $(python3 -c "print(f'{100*($after-$before)/$before:.3f} % more')")"

step "git clone, git fsck, go build, sqlite3"
mkdir repo && (cd repo && git init -q && cp -r ../src/net . && git add -A && git -c user.name=a -c user.email=a@b commit -qm one)
git clone -q repo clone && git -C clone fsck --full && diff -r repo/net clone/net && echo "git: ok"
mkdir hello && printf 'package main\nimport "net/http"\nfunc main() { println(http.StatusText(200)) }\n' >hello/main.go
(cd hello && go mod init hello 2>/dev/null && GOCACHE=$mnt/gocache go build -o hello . && ./hello)
{
	echo "pragma journal_mode=wal; create table t(k integer primary key, v blob);"
	for i in $(seq 300); do echo "begin; insert into t(v) select randomblob(400) from (select 1 union all select 2 union all select 3); update t set v=randomblob(300) where k % 7 = $((i % 7)); commit;"; done
	echo "pragma wal_checkpoint; pragma integrity_check; select count(*) from t;"
} | sqlite3 t.db | tail -2

step "1 GiB copied in, then written anew with 100 bytes inserted in its middle"
head -c 1G /dev/urandom >"$work/image"
cp "$work/image" image1; sync image1; before=$(stat_of "['stored_bytes']")
python3 - "$work/image" image2 <<'PY'
import sys
b = open(sys.argv[1], 'rb').read()
open(sys.argv[2], 'wb').write(b[:len(b)//2] + b'x'*100 + b[len(b)//2:])
PY
sync image2; after=$(stat_of "['stored_bytes']")
cmp image1 "$work/image"
echo "newly stored: $((after - before)) bytes"
rm "$work/image" image1 image2

step "the daemon killed in the middle of tar x"
(tar c -C "$(dirname "$tree")" src | tar x -C "$mnt" --transform 's/^src/killed/' 2>/dev/null) &
sleep 1
echo precious >note; sync note
kill -9 "$(stat_of "['daemon']['pid']")"
wait || true
cd /; "$quarxfs" umount "$mnt"
start=$(date +%s%N); "$quarxfs" mount "$store" "$mnt"; echo "mounted again after $((($(date +%s%N) - start) / 1000000)) ms"
cd "$mnt"; cat note
"$quarxfs" list-files "$store" --json | python3 -c "
import json, sys
for line in sys.stdin:
    if line.strip() not in ('', '{}'): print(json.loads(line)['path'])" | sort >"$work/listed"
find . -mindepth 1 -printf '%P\n' | sort >"$work/found"
cmp "$work/listed" "$work/found" && echo "list-files and the tree agree on $(wc -l <"$work/found") names"
[[ -d killed ]] && (cd killed && find . -type f -size +0 -print0 | while IFS= read -r -d '' f; do cmp -s "$f" "$tree/$f" || head -c "$(stat -c %s "$f")" "$tree/$f" | cmp -s - "$f" || { echo "wrong bytes in $f"; exit 1; }; done) && echo "every byte that is there is right"

step "4 GiB streamed in and out"
head -c 4G /dev/urandom | tee stream | sha256sum >"$work/in"
sync stream; echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
sha256sum <stream | cmp - "$work/in" && echo "read back right"
echo "peak resident: $(awk '/VmHWM/ {print int($2/1024)}' "/proc/$(stat_of "['daemon']['pid']")/status") MiB"
