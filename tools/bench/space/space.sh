#!/usr/bin/env bash
# Bytes on disk of ten releases of a source tree, as directories and as one tar file each, in QuarXFS, restic
# and borg. All that a store or repository has on disk is counted, database and logs included, unmounted.
#
# The releases are Go modules, fetched once into DIR. Each is a directory of its own; its tar file has other
# times than the one before, as archives of releases do. What QuarXFS gives back is compared with what it
# was given. Needs go, jq, restic, borg, and what mounting needs.
usage="space.sh [--quarxfs FILE] [--work DIR] [--module MODULE] [--versions 'VERSION...'] [--only trees|tars] [--keep]"
source "$(dirname "$0")/../../lib.sh"
set -e

# make_data: $work/trees and $work/tars
make_data() {
	local v n=0
	mkdir "$work/trees" "$work/tars"
	for v in $versions; do
		cp -r "$GOMODCACHE/$module@$v" "$work/trees/$v"
		chmod -R u+w "$work/trees/$v"
		find "$work/trees/$v" -exec touch -d "2020-01-01 + $((n += 30)) days" {} +
		tar -C "$work/trees" --sort=name -cf "$work/tars/$v.tar" "$v"
	done
}

# measure WHAT: what all three take for $work/WHAT; a line of the table.
measure() {
	local data=$work/$1 v
	new_backups "-$1"
	store=$work/store-$1
	new_store
	for v in "$data"/*; do
		cp -a "$v" "$mnt/"
		sync -f "$mnt"
		"$quarxfs" snapshot create "$mnt" "$(basename "$v")" >/dev/null
		(cd "$data" && restic backup -q "${v##*/}" && borg create "::${v##*/}" "${v##*/}")
	done
	diff -r "$data" "$mnt"
	remount_store
	diff -r "$data" "$mnt"
	local records
	records=$(figure .stored_bytes)
	umount_store
	local inline rest
	inline=$(on_disk "$store")
	"$quarxfs" optimize "$store" >/dev/null
	rest=$(on_disk "$store")
	mount_store
	diff -r "$data" "$mnt"
	umount_store
	printf '%-6s %9s %9s %9s %9s %9s %9s\n' "$1" "$(mib "$(on_disk "$data")")" "$(mib "$inline")" "$(mib "$records")" "$(mib "$rest")" \
		"$(mib "$(on_disk "$RESTIC_REPOSITORY")")" "$(mib "$(on_disk "$BORG_REPO")")"
}

module=github.com/hashicorp/terraform
versions='v1.0.0 v1.1.0 v1.2.0 v1.3.0 v1.4.0 v1.5.0 v1.6.0 v1.7.0 v1.8.0 v1.9.0'
work=/var/tmp/quarxfs-space
only='trees tars'
options "$@"
top=$work
workspace
fetch_modules "$(readlink -f "$top")"
make_data
echo "$module, $(wc -w <<<"$versions") releases; restic $(restic version | cut -d' ' -f2), borg $(borg --version | cut -d' ' -f2); MiB"
printf '%-6s %9s %9s %9s %9s %9s %9s\n' data itself QuarXFS records optimized restic borg
for what in $only; do measure "$what"; done
