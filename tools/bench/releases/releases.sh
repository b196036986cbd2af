#!/usr/bin/env bash
# Stores ten releases of a real source tree one after another, with a snapshot or
# a backup of each: in QuarXFS, with restic and with borg. Tells bytes and times,
# and compares every snapshot with the release that it is of.
#
#   tools/bench/releases/releases.sh [QUARXFS [DIRECTORY]]
#
# The releases are Go modules (MODULE, VERSIONS), fetched once into DIRECTORY. A
# plain working directory is brought from one release to the next, so that only
# files whose content differs are written; then each of the three takes it in, and a
# plain copy on the same disk, to compare times. Needs
# go, rsync, jq, restic, borg, and what mounting needs.
set -euo pipefail

quarxfs=$(readlink -f "${1:-bin/quarxfs}")
top=${2:-/var/tmp/quarxfs-releases}
module=${MODULE:-k8s.io/kubernetes}
versions=${VERSIONS:-v1.22.0 v1.23.0 v1.24.0 v1.25.0 v1.26.0 v1.27.0 v1.28.0 v1.29.0 v1.30.0 v1.31.0}
keep=${KEEP:-} # not empty: leave the store behind

mkdir -p "$top"
top=$(readlink -f "$top")
export GOMODCACHE=$top/modules GOFLAGS=-mod=mod
work=$(mktemp -d "$top/run-XXXXXX")
store=$work/store mnt=$work/mnt tree=$work/tree plain=$work/plain
export RESTIC_REPOSITORY=$work/restic RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$work/restic-cache
export BORG_REPO=$work/borg BORG_BASE_DIR=$work/borg-base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes

cleanup() {
	cd /
	"$quarxfs" umount --force "$mnt" >/dev/null 2>&1 || umount -l "$mnt" 2>/dev/null || true
	[[ -n $keep ]] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

now() { date +%s%N; }
took() { echo $((($(now) - $1) / 1000000)); } # milliseconds
bytes() { du -sB1 --apparent-size "$1" | cut -f1; }
mib() { awk -v b="$1" 'BEGIN { printf "%.1f", b / 1048576 }'; }
stored() { "$quarxfs" stats "$store" --json | jq .stored_bytes; }

cd "$top" # the modules are nobody's dependencies
for v in $versions; do
	go mod download "$module@$v"
done

mkdir "$mnt" "$tree" "$plain"
"$quarxfs" init "$store" >/dev/null
"$quarxfs" mount "$store" "$mnt"
restic init -q
borg init -e none

printf '%-9s %9s %6s | %8s | %9s %9s %9s %9s | %9s %9s | %9s %9s\n' release files MiB 'ext4 ms' 'copy ms' 'sync ms' 'snap ms' 'all MiB' 'restic ms' 'all MiB' 'borg ms' 'all MiB'
sum=0 du=0 t_plain=0 t_copy=0 t_sync=0 t_snap=0 t_restic=0 t_borg=0
for v in $versions; do
	release=$GOMODCACHE/$module@$v
	rsync -rlp --chmod=u+w --checksum --delete "$release/" "$tree/"
	files=$(find "$tree" -type f | wc -l) size=$(bytes "$tree")
	sum=$((sum + size)) du=$((du + $(du -sB1 "$tree" | cut -f1)))
	sync; cat $(find "$tree" -type f) >/dev/null # all three find it in the page cache

	s=$(now); rsync -a --delete "$tree/" "$plain/"; sync -f "$plain"; disk=$(took "$s")
	s=$(now); rsync -a --delete "$tree/" "$mnt/tree/"; copy=$(took "$s")
	s=$(now); sync -f "$mnt"; sync "$mnt/tree"; sync=$(took "$s")
	s=$(now); "$quarxfs" snapshot create "$mnt" "$v" >/dev/null; snap=$(took "$s")
	s=$(now); (cd "$tree" && restic backup -q .); restic=$(took "$s")
	s=$(now); (cd "$tree" && borg create "::$v" .); borg=$(took "$s")
	t_plain=$((t_plain + disk)) t_copy=$((t_copy + copy)) t_sync=$((t_sync + sync)) t_snap=$((t_snap + snap)) t_restic=$((t_restic + restic)) t_borg=$((t_borg + borg))
	printf '%-9s %9d %6s | %8d | %9d %9d %9d %9s | %9d %9s | %9d %9s\n' "$v" "$files" "$(mib "$size")" "$disk" "$copy" "$sync" "$snap" "$(mib "$(stored)")" \
		"$restic" "$(mib "$(bytes "$RESTIC_REPOSITORY")")" "$borg" "$(mib "$(bytes "$BORG_REPO")")"
done

for v in $versions; do
	diff -r "$GOMODCACHE/$module@$v" "$mnt/.snapshots/$v/tree"
done
echo "every snapshot is the same as its release by diff -r"
before=
for v in $versions; do
	if [[ -n $before ]]; then
		want=$(diff -rq "$GOMODCACHE/$module@$before" "$GOMODCACHE/$module@$v" | grep -c ' differ$' || true)
		got=$("$quarxfs" snapshot diff "$mnt" "$before" "$v" --json | tail -1 | jq .stat.modified.files)
		[[ $got == "$want" ]] || { echo "$before to $v: snapshot diff has $got modified files, diff -rq $want"; exit 1; }
	fi
	before=$v
done
echo "snapshot diff and diff -rq agree on how many files were modified, for every two releases"
"$quarxfs" gc "$mnt" >/dev/null
records=$(stored)
vertices=$("$quarxfs" stats "$store" --json | jq '[.blocks | to_entries[] | select(.key != "data") | .value.stored_bytes] | add')
"$quarxfs" umount "$mnt"
on_disk=$(bytes "$store")
"$quarxfs" mount "$store" "$mnt"
first=${versions%% *}
s=$(now); "$quarxfs" snapshot clone "$mnt" "$first:tree" "$mnt/clone"; echo "clone of $first: $(took "$s") ms"
diff -r "$GOMODCACHE/$module@$first" "$mnt/clone"
s=$(now); "$quarxfs" snapshot rollback "$mnt" "$first" >/dev/null; echo "rollback to $first: $(took "$s") ms"
diff -r "$GOMODCACHE/$module@$first" "$mnt/tree"
echo "clone and rollback are the same as the release by diff -r"

printf '\n%-34s %10s %8s %8s\n' '' MiB share seconds
# line WHAT BYTES MILLISECONDS; -: not measured
line() {
	local seconds=-
	[[ $3 == - ]] || seconds=$(awk -v t="$3" 'BEGIN { printf "%.1f", t / 1000 }')
	printf '%-34s %10s %7.1f%% %8s\n' "$1" "$(mib "$2")" "$(awk -v a="$2" -v b="$sum" 'BEGIN { print 100 * a / b }')" "$seconds"
}
line 'all releases, bytes of the files' "$sum" -
line '  as du counts them on disk' "$du" -
line 'one plain copy, kept up to date' "$(bytes "$plain")" "$t_plain"
line 'QuarXFS: blocks and vertices' "$records" "$((t_copy + t_sync + t_snap))"
line '  of this, vertices; snapshot create' "$vertices" "$t_snap"
line '  the directory of the store' "$on_disk" -
line "restic $(restic version | cut -d' ' -f2)" "$(bytes "$RESTIC_REPOSITORY")" "$t_restic"
line "borg $(borg --version | cut -d' ' -f2)" "$(bytes "$BORG_REPO")" "$t_borg"
