#!/usr/bin/env bash
# stress-ng's filesystem stressors (all, or those named), each for some seconds with its results
# verified, on a mount and, as the reference, beside the mount in DIR, which should be on a local disk.
# A stressor that passes in DIR and not on the mount is a difference; the status is 1 if there is one.
# Needs stress-ng and jq.
usage="stress.sh [--quarxfs FILE] [--work DIR] [--seconds N] [STRESSOR...]"
source "$(dirname "$0")/../../lib.sh"

# run STRESSOR DIR OUT: what became of it.
run() {
	local status=0
	(cd "$2" && exec stress-ng --"$1" 1 --timeout "${seconds}s" --verify --temp-path "$2") >"$3" 2>&1 || status=$?
	# 3: the stressor does not work on this kind of filesystem or machine.
	! grep -q 'skipped: [1-9]' "$3" || status=3
	! grep -Eq 'failed: [1-9]|fail: ' "$3" || status=2
	echo $status >"$3.status"
}

main() {
	local s on ref different=0 passed=0 alike=0 disk=$work/disk
	chmod 755 "$work"
	mkdir "$disk"
	for s in "$@"; do
		run "$s" "$disk" "$work/$s.disk" &
		run "$s" "$mnt" "$work/$s.mount"
		wait $!
		on=$(<"$work/$s.mount.status") ref=$(<"$work/$s.disk.status")
		running "$(daemon_pid)" || die "$s: the daemon is gone"
		if [[ $on == 0 ]]; then
			echo "passes     $s"
			passed=$((passed + 1))
		elif [[ $on == "$ref" ]]; then
			echo "as on disk $s (status $on)"
			alike=$((alike + 1))
		else
			echo "DIFFERS    $s: status $on on the mount, $ref on the disk"
			different=$((different + 1))
			grep -v 'dispatching\|setting to a' "$work/$s.mount"
		fi
	done
	check_store
	umount_store
	echo "$# stressors of $seconds s each: $passed pass, $alike fail or are skipped as on the disk, $different differ"
	((different == 0))
}

seconds=10
options "$@"
[[ -n ${arguments[*]} ]] || arguments=($(stress-ng --class 'filesystem?' 2>&1 | sed 's/.*: //'))
workspace
new_store
main "${arguments[@]}" && ((failed == 0))
