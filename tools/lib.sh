# What the scripts below tools/ have in common: flags, a directory to work in, a store mounted in it,
# and the removal of all that at the end, however it comes. A script begins like this:
#
#	usage="what.sh [--quarxfs FILE] [--work DIR] [--size BYTES] [--keep]"
#	source "$(dirname "$0")/../../lib.sh"
#	size=32m
#	options "$@"
#	workspace
#
# Then there are $quarxfs, $work (a new directory below DIR), $store and $mnt in it.
set -uo pipefail

quarxfs=bin/quarxfs
work=/var/tmp
keep= # not empty: what was made in $work is left there
failed=0

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# options ARGUMENT...: sets the variable of each flag that $usage names: --name VALUE, or --name alone
# if it has no value there. Other arguments go to the array $arguments.
options() {
	arguments=()
	local name value
	while (($#)); do
		name=${1%%=*}
		case $1 in
		--help | -h) echo "usage: $usage" && exit ;;
		--) shift && arguments+=("$@") && return ;;
		-*)
			[[ $usage == *"[$name"[]\ ]* ]] || die "unknown flag $name; usage: $usage"
			if [[ $usage == *"[$name]"* ]]; then
				value=1
			elif [[ $1 == *=* ]]; then
				value=${1#*=}
			else
				(($# > 1)) || die "$name needs a value; usage: $usage"
				value=$2 && shift
			fi
			name=${name#--}
			printf -v "${name//-/_}" %s "$value"
			;;
		*) arguments+=("$1") ;;
		esac
		shift
	done
}

# workspace makes a directory below $work and removes it at the end, with all that is mounted in it.
workspace() {
	local name=${0##*/}
	quarxfs=$(readlink -f "$quarxfs") && [[ -x $quarxfs ]] || die "no program $quarxfs; make build, or --quarxfs FILE"
	mkdir -p "$work" && work=$(mktemp -d "$(readlink -f "$work")/quarxfs-${name%.sh}-XXXXXX") || exit
	store=$work/store mnt=$work/mnt
	trap cleanup EXIT
	trap 'exit 130' INT TERM
	mkdir "$mnt" || exit
}

atend=()
# later COMMAND...: what cleanup does first, the last one first.
later() { atend=("$(printf '%q ' "$@")" "${atend[@]}"); }

# cleanup ends the script's own children, takes away every mount in $work, the inner ones first, and $work.
cleanup() {
	local command children point
	cd /
	for command in "${atend[@]}"; do eval "$command" || true; done
	children=$(jobs -p)
	[[ -z $children ]] || kill $children 2>/dev/null
	mounts_below "$work" | tac | while read -r point; do
		"$quarxfs" umount --force "$point" >/dev/null 2>&1
		! mounts_below "$work" | grep -qxF "$point" || umount -l "$point"
	done
	if [[ -n $keep ]]; then
		echo "left in place: $work"
	elif [[ -z $(mounts_below "$work") ]]; then # what is still mounted would be emptied
		rm -rf "$work"
	fi
}

mounts_below() { awk -v "dir=$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo; }

# What is to be done with a store. Each ends the script when it fails.
new_store() { "$quarxfs" init "$store" >/dev/null && mount_store || die "cannot make $store"; }
mount_store() { "$quarxfs" mount "$store" "$mnt" || die "cannot mount $store"; }
umount_store() { "$quarxfs" umount "$mnt" || die "cannot unmount $mnt"; }
remount_store() { umount_store && mount_store; }

# disk IMAGE SIZE MOUNTPOINT: an ext4 of its own.
disk() { mkdir -p "$3" && truncate -s "$2" "$1" && mkfs.ext4 -q -F -m 0 "$1" && mount -o loop "$1" "$3" || die "cannot make a disk of $2 at $3"; }

# figure PATH: a number of `quarxfs stats`, such as .stored_bytes.
figure() { "$quarxfs" stats "$store" --json | jq "$1"; }
daemon_pid() { figure '.daemon.pid // 0'; }
# running PID: while one of a process's threads waits in the kernel, it seems a zombie and still holds its files.
running() { grep -qs '^State:[[:space:]]*[^ZX]' /proc/"$1"/task/*/status; }
# kill_daemon ends the daemon with SIGKILL and takes the mount away that it leaves.
kill_daemon() {
	local pid
	pid=$(daemon_pid) && ((pid > 1)) && kill -9 "$pid" || die "the daemon of $store is gone"
	while running "$pid"; do sleep 0.01; done
	umount -l "$mnt" 2>/dev/null # the daemon's child may have been faster
}

# fetch_modules DIR: goes to DIR and brings each of $versions of the Go module $module to $GOMODCACHE below it.
fetch_modules() {
	local v
	cd "$1" # the modules are nobody's dependencies
	export GOMODCACHE=$1/modules GOFLAGS=-mod=mod
	for v in $versions; do go mod download "$module@$v" || die "cannot fetch $module@$v"; done
}

# new_backups [SUFFIX]: makes an empty repository each of restic and borg, which the two use from now on.
new_backups() {
	export RESTIC_REPOSITORY=$work/restic${1-} RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$work/restic-cache
	export BORG_REPO=$work/borg${1-} BORG_BASE_DIR=$work/borg-base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
	restic init -q && borg init -e none || die "cannot make a repository of restic or borg"
}

on_disk() { du -sB1 "$1" | cut -f1; } # bytes
mib() { awk -v b="$1" 'BEGIN { printf "%.1f", b / 1048576 }'; }

now() { date +%s%N; }
took() { echo $((($(now) - $1) / 1000000)); } # milliseconds since then

step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" && failed=$((failed + 1)); }
must() { "$@" || fail "$*"; }
# mustfail COMMAND...: shows the last line of what the refusal says.
mustfail() {
	! "$@" >/dev/null 2>"$work/said" || fail "no refusal: $*"
	tail -1 "$work/said"
}
# check_store runs fsck and shows its last line.
check_store() {
	must "$quarxfs" fsck "$store" >"$work/fsck"
	tail -1 "$work/fsck"
}
