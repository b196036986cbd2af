#!/usr/bin/env bash
# Prints NOTICE: the licences of all that the programs are linked with, from the module cache. Modules with
# the same text share it. `make notice` writes it, `make lint` tells when it is old.
set -euo pipefail
cd "$(dirname "$0")/../.."

cat <<'END'
QuarXFS
Copyright the QuarXFS authors

Licensed under the Apache License, Version 2.0: see LICENSE. The programs are linked with the modules
below, which have the licences and notices that follow them.
END

# The packages differ from system to system; these are what releases are built for.
modules() {
	GOOS=linux GOARCH=amd64 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/quarxfs ./cmd/quarxfs-node | LC_ALL=C sort -u
	echo "Go standard-library $(go env GOROOT)"
}

declare -A users=() # text -> the modules that have it
order=()
while read -r path version dir; do
	found=
	while read -r file; do
		text=$(tr -d '\r' <"$file" | sed 's/[[:space:]]*$//')
		[[ -n ${users[$text]:-} ]] || order+=("$text")
		users[$text]+="$path $version"$'\n'
		found=1
	done < <(find -L "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' \) | LC_ALL=C sort)
	[[ -n $found ]] || { echo "${0##*/}: $path $version has no licence" >&2; exit 1; }
done < <(modules)
for text in "${order[@]}"; do
	printf '\n%s\n\n' "$(printf '=%.0s' {1..100})"
	printf '%s' "${users[$text]}"
	printf '\n%s\n' "$text"
done
