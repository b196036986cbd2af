#!/usr/bin/env bash
# How often the warning of encryption is wrong: ten real trees change as people change them, a
# snapshot is taken after each change, and no snapshot may be warned of. Then each tree is encrypted
# in four ways, and the table says how many of these are found. The exit code is 1 if there was a false
# warning. TREE... are those to try, all without.
usage="alarm.sh [--quarxfs FILE] [--work DIR] [--size MIB] [--keep] [TREE...]"
source "$(dirname "$0")/../../lib.sh"
size=24
options "$@"
((${#arguments[@]})) || arguments=(usr_share usr_lib go_source git_repository pictures media build_outputs sqlite_data backups vm_image)
workspace
here=$(dirname "$(readlink -f "$0")")

# some DIR TARGET: copies files of a directory, in order of names, up to $size MiB, but none that
# Python has compiled: the changes make these.
some() {
	mkdir -p "$2"
	(cd "$1" && find . -xdev -type f -size -2000k ! -name '*.pyc' -print0 | sort -z | xargs -0 stat --printf '%s\t%n\0' 2>/dev/null |
		awk -v RS='\0' -v ORS='\0' -F'\t' -v most=$((size << 20)) '(sum += $1) <= most { print $2 }' |
		tar -c --null -T - 2>/dev/null) | tar -x -C "$2"
}
random() { head -c "$2" /dev/urandom >"$1"; }
changes=0
snapshot() { changes=$((changes + 1)) && sync -f "$mnt" && "$quarxfs" snapshot create "$mnt" "$1" >/dev/null 2>&1 || die "no snapshot $1"; }
# each NAME FILE...: adds files one part after the other, with a snapshot after each.
parts() {
	local name=$1 i=0 list
	find "$work/from" -mindepth 1 -maxdepth 1 | sort | split -n r/4 - "$work/part."
	for list in "$work"/part.*; do
		xargs -r -a "$list" cp -a -t "$mnt" && snapshot "$name-$((i++))"
	done
	rm -rf "$work/from" "$work"/part.*
}

# The trees: each makes its changes, with a snapshot after each.
usr_share() { some /usr/share "$work/from" && parts installed && find "$mnt" -type f | sort | awk 'NR % 5 == 0' | xargs -d '\n' rm -f && snapshot removed; }
usr_lib() {
	some /usr/lib/x86_64-linux-gnu "$work/from" && parts installed
	find "$mnt" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null
	snapshot stripped
}
go_source() {
	some "$(go env GOROOT)/src" "$work/from" && parts added
	find "$mnt" -name '*.go' -exec sed -i 's/\berr\b/problem/g' {} + && snapshot edited
	find "$mnt" -name '*.go' | sort | head -200 | xargs gzip && snapshot compressed
}
git_repository() {
	git clone -q --no-hardlinks "$here/../../.." "$mnt/r" && snapshot cloned
	git -C "$mnt/r" checkout -q HEAD~40 && snapshot older
	git -C "$mnt/r" checkout -q HEAD~200 && snapshot oldest
	git -C "$mnt/r" unpack-objects -q <"$(find "$mnt/r" -name '*.pack' | head -1)" && git -C "$mnt/r" gc -q --prune=now && snapshot packed
}
pictures() {
	mkdir "$work/from"
	find /usr / -xdev \( -name '*.jpg' -o -name '*.png' \) -size +8k 2>/dev/null | sort -u | head -400 | xargs -d '\n' cp --backup=numbered -t "$work/from" && parts added
	find "$mnt" -type f | head -50 | while read -r f; do random "$f" 50000; done && snapshot edited
}
media() {
	for i in 1 2 3 4; do for k in 1 2 3; do random "$mnt/film$i$k" 2000000; done && snapshot "film-$i"; done
	truncate -s 4M "$mnt/download" && fallocate -l 4M "$mnt/download" && snapshot begun
	random "$mnt/download" 4000000 && snapshot downloaded
}
build_outputs() {
	some "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')" "$mnt/lib" && snapshot sources
	python3 -m compileall -q -f "$mnt/lib" >/dev/null 2>&1
	snapshot built
	python3 -O -m compileall -q -f "$mnt/lib" >/dev/null 2>&1
	snapshot optimized
	find "$mnt" -name '*.pyc' -delete && snapshot cleaned
	(cd "$mnt" && python3 -m zipapp lib -o app.pyz -m "a:b" -c >/dev/null 2>&1)
	snapshot bundled
}
sqlite_data() { for step in text blobs update vacuum; do python3 "$here/tree.py" sqlite "$mnt/data.db" $step && snapshot $step; done; }
backups() {
	some /usr/share/doc "$mnt/doc" && snapshot first
	for day in 1 2 3 4; do
		python3 "$here/tree.py" log "$mnt/app.log" $day
		tar -czf "$mnt/backup$day.tar.gz" -C "$mnt" doc && rm -f "$mnt/backup$((day - 2)).tar.gz"
		((day < 2)) || gzip -f "$mnt/app.log.$((day - 1))"
		mv "$mnt/app.log" "$mnt/app.log.$day"
		snapshot "day-$day"
	done
	tar -czf "$mnt/doc.tar.gz" -C "$mnt" doc && rm -r "$mnt/doc" && snapshot archived
}
vm_image() {
	truncate -s 64M "$mnt/disk.img" && mkfs.ext4 -q "$mnt/disk.img" && snapshot made
	local step
	mkdir "$work/guest"
	for step in install data log; do
		mount -o loop "$mnt/disk.img" "$work/guest" || die "no loop device"
		case $step in
		install) size=20 some /usr/share/perl "$work/guest/usr" ;;
		data) random "$work/guest/film" 8000000 ;;
		log) rm -r "$work/guest/usr" && python3 "$here/tree.py" log "$work/guest/log" 1 && random "$work/guest/more" 6000000 ;;
		esac
		umount "$work/guest" && snapshot "$step"
	done
	rmdir "$work/guest"
}

alarms() { "$quarxfs" stats "$mnt" --history --json | jq -r 'select(.alarm) | .name'; }

printf '| tree | files | MiB | changes | false warnings | encryptions found |\n|---|---|---|---|---|---|\n'
all=0 wrong=0 tried=0 found=0
for tree in "${arguments[@]}"; do
	new_store
	changes=0
	declare -F "$tree" >/dev/null || die "no tree $tree"
	$tree
	files=$(find "$mnt" -type f | wc -l) mib=$(($(du -s --block-size=1M "$mnt" | cut -f1)))
	false_names=$(alarms) && falses=$(grep -c . <<<"$false_names")
	caught=0 ways=0
	# What could not be compressed to begin with shows nothing when it is encrypted.
	if [[ $tree != media && $tree != pictures ]]; then
		for way in place ending chance parts; do
			"$quarxfs" snapshot create "$mnt" "calm-$way" >/dev/null 2>&1
			python3 "$here/tree.py" encrypt "$mnt" $way && sync -f "$mnt"
			"$quarxfs" snapshot create "$mnt" "way-$way" >/dev/null 2>&1
			ways=$((ways + 1))
			"$quarxfs" snapshot rollback "$mnt" "calm-$way" --no-safety >/dev/null || die "no rollback"
		done
		caught=$(alarms | grep -c '^way-')
	fi
	echo "| $tree | $files | $mib | $changes | $falses${false_names:+ (${false_names//$'\n'/, })} | $caught of $ways |"
	all=$((all + changes)) wrong=$((wrong + falses)) tried=$((tried + ways)) found=$((found + caught))
	umount_store && rm -rf "$store"
done
echo "| all | | | $all | $wrong | $found of $tried |"
((wrong == 0))
