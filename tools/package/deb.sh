#!/usr/bin/env bash
# Builds bin/quarxfs_VERSION_ARCH.deb from the checkout: `make install` into a
# directory, with what Debian wants beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."

arch=$(dpkg --print-architecture)
commit=$(git log -1 --format=%cd.%h --date=format:%Y%m%d)
version=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/~/g' || true)
version=${version:-0.0~git$commit}
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
maintainer=${DEB_MAINTAINER:-QuarXFS developers <quarxfs@localhost.localdomain>}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
umask 022
CGO_ENABLED=0 GOFLAGS="-trimpath -ldflags=-s" make build
make install DESTDIR="$root" PREFIX=/usr

doc=$root/usr/share/doc/quarxfs
install -m 644 -t "$doc" README.md CHANGELOG.md docs/*.md
find "$doc" -name '*.md' -size +4k -exec gzip -9n {} +
cat >"$doc/changelog" <<END
quarxfs ($version) unstable; urgency=medium

  * Built from commit $commit.

 -- $maintainer  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
END
gzip -9n "$doc/changelog"

# The program holds the code of its modules; their licences go with it.
{
	cat tools/package/copyright
	printf '\n'
	cat NOTICE
} >"$doc/copyright"
chmod 644 "$doc/copyright"

install -d -m 755 "$root/etc/quarxfs"
install -D -m 644 tools/package/lintian-overrides "$root/usr/share/lintian/overrides/quarxfs"

install -d "$root/DEBIAN"
for script in postinst prerm postrm; do
	install -m 755 "tools/package/$script" "$root/DEBIAN/$script"
done
size=$(du -sk --exclude=DEBIAN "$root" | cut -f1)
cat >"$root/DEBIAN/control" <<END
Package: quarxfs
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $size
Section: utils
Priority: optional
Depends: fuse3, mount
Description: filesystem that stores each distinct block once
 QuarXFS is a deduplicating filesystem on FUSE for people who keep many
 versions of similar data. It checks every byte that is read. Snapshots take
 only the space of what changed. Everything inside can be inspected.
 .
 This package has the program, its manual, a mount helper for /etc/fstab
 and systemd units.
END
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
chmod 644 "$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "bin/quarxfs_${version}_$arch.deb"
