#!/usr/bin/env bash
# Stores ten releases of a real source tree one after another, with a snapshot or a backup of each: in
# QuarXFS, with restic and with borg. Tells bytes and times, and compares every snapshot with the release
# that it is of.
#
# The releases are Go modules, fetched once into DIR. A plain working directory is brought from one
# release to the next, so that only files whose content differs are written; then each of the three takes
# it in, and a plain copy on the same disk, to compare times. Needs go, rsync, jq, restic, borg, and what
# mounting needs.
usage="releases.sh [--quarxfs FILE] [--work DIR] [--module MODULE] [--versions 'VERSION...'] [--keep]"
source "$(dirname "$0")/../../lib.sh"
set -e

bytes() { du -sB1 --apparent-size "$1" | cut -f1; }

# take_in VERSION: the working directory becomes the release, and all take it in; a line of the table.
take_in() {
	local v=$1 files size s disk copy sync snap restic borg
	rsync -rlp --chmod=u+w --checksum --delete "$GOMODCACHE/$module@$v/" "$tree/"
	files=$(find "$tree" -type f | wc -l) size=$(bytes "$tree")
	sum=$((sum + size)) du=$((du + $(on_disk "$tree")))
	sync
	find "$tree" -type f -exec cat {} + >/dev/null # all three find it in the page cache

	s=$(now); rsync -a --delete "$tree/" "$plain/"; sync -f "$plain"; disk=$(took "$s")
	s=$(now); rsync -a --delete "$tree/" "$mnt/tree/"; copy=$(took "$s")
	s=$(now); sync -f "$mnt"; sync "$mnt/tree"; sync=$(took "$s")
	s=$(now); "$quarxfs" snapshot create "$mnt" "$v" >/dev/null; snap=$(took "$s")
	s=$(now); (cd "$tree" && restic backup -q .); restic=$(took "$s")
	s=$(now); (cd "$tree" && borg create "::$v" .); borg=$(took "$s")
	t_plain=$((t_plain + disk)) t_copy=$((t_copy + copy)) t_sync=$((t_sync + sync)) t_snap=$((t_snap + snap))
	t_restic=$((t_restic + restic)) t_borg=$((t_borg + borg))
	printf '%-9s %9d %6s | %8d | %9d %9d %9d %9s | %9d %9s | %9d %9s\n' "$v" "$files" "$(mib "$size")" \
		"$disk" "$copy" "$sync" "$snap" "$(mib "$(figure .stored_bytes)")" \
		"$restic" "$(mib "$(bytes "$RESTIC_REPOSITORY")")" "$borg" "$(mib "$(bytes "$BORG_REPO")")"
}

# compare judges the snapshots, and the differences between each two that follow one another.
compare() {
	local v before= want got
	for v in $versions; do diff -r "$GOMODCACHE/$module@$v" "$mnt/.snapshots/$v/tree"; done
	echo "every snapshot is the same as its release by diff -r"
	for v in $versions; do
		if [[ -n $before ]]; then
			want=$(diff -rq "$GOMODCACHE/$module@$before" "$GOMODCACHE/$module@$v" | grep -c ' differ$' || true)
			got=$("$quarxfs" snapshot diff "$mnt" "$before" "$v" --json | tail -1 | jq .stat.modified.files)
			[[ $got == "$want" ]] || die "$before to $v: snapshot diff has $got modified files, diff -rq $want"
		fi
		before=$v
	done
	echo "snapshot diff and diff -rq agree on how many files were modified, for every two releases"
}

# back_to VERSION: a clone and a rollback.
back_to() {
	local s
	s=$(now)
	"$quarxfs" snapshot clone "$mnt" "$1:tree" "$mnt/clone"
	echo "clone of $1: $(took "$s") ms"
	diff -r "$GOMODCACHE/$module@$1" "$mnt/clone"
	s=$(now)
	"$quarxfs" snapshot rollback "$mnt" "$1" >/dev/null
	echo "rollback to $1: $(took "$s") ms"
	diff -r "$GOMODCACHE/$module@$1" "$mnt/tree"
	echo "clone and rollback are the same as the release by diff -r"
}

# line WHAT BYTES MILLISECONDS; -: not measured
line() {
	local seconds=-
	[[ $3 == - ]] || seconds=$(awk -v t="$3" 'BEGIN { printf "%.1f", t / 1000 }')
	printf '%-34s %10s %7.1f%% %8s\n' "$1" "$(mib "$2")" "$(awk -v a="$2" -v b="$sum" 'BEGIN { print 100 * a / b }')" "$seconds"
}

module=k8s.io/kubernetes
versions='v1.22.0 v1.23.0 v1.24.0 v1.25.0 v1.26.0 v1.27.0 v1.28.0 v1.29.0 v1.30.0 v1.31.0'
work=/var/tmp/quarxfs-releases
options "$@"
top=$work
workspace
tree=$work/tree plain=$work/plain
mkdir "$tree" "$plain"
fetch_modules "$(readlink -f "$top")"
new_store
new_backups

printf '%-9s %9s %6s | %8s | %9s %9s %9s %9s | %9s %9s | %9s %9s\n' release files MiB 'ext4 ms' 'copy ms' 'sync ms' 'snap ms' 'all MiB' 'restic ms' 'all MiB' 'borg ms' 'all MiB'
sum=0 du=0 t_plain=0 t_copy=0 t_sync=0 t_snap=0 t_restic=0 t_borg=0
for v in $versions; do take_in "$v"; done
compare
"$quarxfs" gc "$mnt" >/dev/null
records=$(figure .stored_bytes)
vertices=$(figure '[.blocks | to_entries[] | select(.key != "data") | .value.stored_bytes] | add')
umount_store
whole=$(bytes "$store")
mount_store
back_to "${versions%% *}"

printf '\n%-34s %10s %8s %8s\n' '' MiB share seconds
line 'all releases, bytes of the files' "$sum" -
line '  as du counts them on disk' "$du" -
line 'one plain copy, kept up to date' "$(bytes "$plain")" "$t_plain"
line 'QuarXFS: blocks and vertices' "$records" "$((t_copy + t_sync + t_snap))"
line '  of this, vertices; snapshot create' "$vertices" "$t_snap"
line '  the directory of the store' "$whole" -
line "restic $(restic version | cut -d' ' -f2)" "$(bytes "$RESTIC_REPOSITORY")" "$t_restic"
line "borg $(borg --version | cut -d' ' -f2)" "$(bytes "$BORG_REPO")" "$t_borg"
