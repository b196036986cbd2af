#!/bin/bash
# stress.sh [QUARXFS [DIR [SECONDS [STRESSOR...]]]]: stress-ng's filesystem stressors, each for SECONDS (10)
# with its results verified, on a mount and, as the reference, beside the mount in DIR, which should
# be on a local disk. A stressor that passes in DIR and not on the mount is a difference; the
# status is 1 if there is one. It works in a new directory below DIR and removes it.
set -u
Q=$(realpath "${1:-bin/quarxfs}"); W=$(mktemp -d "${2:-/var/tmp}/stress-XXXXXX"); T=${3:-10}
S=$W/store; M=$W/mnt; R=$W/disk; different=0 passed=0 alike=0
trap '"$Q" umount "$M" 2>/dev/null || umount -l "$M" 2>/dev/null; rm -rf "$W"' EXIT
chmod 755 "$W"; mkdir "$M" "$R"; "$Q" init "$S" >/dev/null && "$Q" mount "$S" "$M" || exit 1

stressors=("${@:4}")
[ ${#stressors[@]} -gt 0 ] || stressors=($(stress-ng --class 'filesystem?' 2>&1 | sed 's/.*: //'))

# run STRESSOR DIR OUT: what became of it.
run() {
	(cd "$2" && exec stress-ng --"$1" 1 --timeout "${T}s" --verify --temp-path "$2") >"$3" 2>&1
	local status=$?
	# 3: the stressor does not work on this kind of filesystem or machine.
	grep -q 'skipped: [1-9]' "$3" && status=3
	grep -Eq 'failed: [1-9]|fail: ' "$3" && status=2
	echo $status >"$3.status"
}

for s in "${stressors[@]}"; do
	run "$s" "$R" "$W/$s.disk" & run "$s" "$M" "$W/$s.mount"; wait $!
	on=$(cat "$W/$s.mount.status"); ref=$(cat "$W/$s.disk.status")
	kill -0 "$("$Q" stats "$S" --json | python3 -c 'import json,sys; print(int(json.load(sys.stdin)["daemon"]["pid"]))')" ||
		{ echo "FAILED     $s: the daemon is gone"; exit 1; }
	if [ "$on" = 0 ]; then
		echo "passes     $s"; passed=$((passed + 1))
	elif [ "$on" = "$ref" ]; then
		echo "as on disk $s (status $on)"; alike=$((alike + 1))
	else
		echo "DIFFERS    $s: status $on on the mount, $ref on the disk"; different=$((different + 1))
		grep -v 'dispatching\|setting to a' "$W/$s.mount"
	fi
done
"$Q" fsck "$M" >"$W/fsck" || different=$((different + 1))
tail -1 "$W/fsck"
"$Q" umount "$M" || exit 1
echo "${#stressors[@]} stressors of $T s each: $passed pass, $alike fail or are skipped as on the disk, $different differ"
[ $different = 0 ]
