#!/usr/bin/env bash
# Shows on a real mount what QuarXFS promises: real trees, real tools, a kill and a stream larger than
# memory's budget. It stops at the first thing that is not as it should be. Needs go, git, rsync, sqlite3
# and jq.
usage="show.sh [--quarxfs FILE] [--work DIR]"
source "$(dirname "$0")/../lib.sh"
set -e

settle() { sync -f "$mnt" && sync "$mnt"; }
same() { diff -r "$tree" "$1" && [[ -z $(rsync -aHAXn --checksum --delete -i "$tree/" "$1/") ]] && echo "$1: the same by diff -r and rsync --checksum"; }

copies() {
	local before after
	step "the Go source tree, untarred, compared, remounted, compared again"
	tar c -C "$(dirname "$tree")" src | tar x
	find src | wc -l
	same src
	cd /
	remount_store
	cd "$mnt"
	same src

	step "a second copy of it"
	settle
	before=$(figure .stored_bytes)
	cp -a src src2
	settle
	after=$(figure .stored_bytes)
	same src2
	echo "stored $before bytes, then $after: $(awk -v a="$after" -v b="$before" 'BEGIN { printf "%.3f %% more", 100 * (a - b) / b }')"
}

programs() {
	local i
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
}

insertion() {
	local before after
	step "1 GiB copied in, then written anew with 100 bytes inserted in its middle"
	head -c 1G /dev/urandom >"$work/image"
	cp "$work/image" image1
	sync image1
	before=$(figure .stored_bytes)
	{
		head -c 512M "$work/image"
		printf 'x%.0s' {1..100}
		tail -c 512M "$work/image"
	} >image2
	sync image2
	after=$(figure .stored_bytes)
	cmp image1 "$work/image"
	echo "newly stored: $((after - before)) bytes"
	rm "$work/image" image1 image2
}

# same_start FILE: a file of the tree as far as it has come.
same_start() {
	cmp -s "$1" "$tree/$1" || head -c "$(stat -c %s "$1")" "$tree/$1" | cmp -s - "$1" || die "wrong bytes in $1"
}

killed() {
	local start file
	step "the daemon killed in the middle of tar x"
	(tar c -C "$(dirname "$tree")" src | tar x -C "$mnt" --transform 's/^src/killed/' 2>/dev/null) &
	sleep 1
	echo precious >note
	sync note
	cd /
	kill_daemon
	wait || true
	start=$(now)
	mount_store
	echo "mounted again after $(took "$start") ms"
	cd "$mnt"
	cat note
	"$quarxfs" list-files "$store" --json | jq -r 'select(.path).path' | sort >"$work/listed"
	find . -mindepth 1 -printf '%P\n' | sort >"$work/found"
	cmp "$work/listed" "$work/found" && echo "list-files and the tree agree on $(wc -l <"$work/found") names"
	[[ ! -d killed ]] || (cd killed && find . -type f -size +0 -print0 | while IFS= read -r -d '' file; do same_start "$file"; done)
	echo "every byte that is there is right"
}

stream() {
	step "4 GiB streamed in and out"
	head -c 4G /dev/urandom | tee stream | sha256sum >"$work/in"
	sync stream
	echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
	sha256sum <stream | cmp - "$work/in" && echo "read back right"
	echo "peak resident: $(awk '/VmHWM/ {print int($2/1024)}' "/proc/$(daemon_pid)/status") MiB"
}

options "$@"
workspace
tree=$(go env GOROOT)/src
new_store
cd "$mnt"
copies
programs
insertion
killed
stream
