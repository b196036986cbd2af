# Everything runs on a machine with Go and a C compiler (for -race); mounting
# needs /dev/fuse, and fusermount3 unless one is root.

SHELL       = /bin/bash
.SHELLFLAGS = -o pipefail -c
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHSTAT   = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
# The S3 server that tests of the cold tier run: go install of another module, and so
# not in go.mod.
VERSITYGW   = github.com/versity/versitygw/cmd/versitygw@v1.8.0
LOOPBACK    = github.com/hanwen/go-fuse/v2/example/loopback

PREFIX ?= /usr/local
# Where mount(8) looks for helpers, whatever PREFIX is.
HELPERDIR ?= /usr/sbin
# Both filesystems of `make bench` work below this directory, on its disk.
BENCH_DIR ?= /var/tmp/quarxfs-bench
# For example: make bench BENCH_FLAGS="--only 'untar|cp-a' --rounds 1"
BENCH_FLAGS ?=
CRASH_FLAGS ?= --rounds 20
# make bench-micro MICRO=Cut COUNT=6 OLD=bin/micro-before.txt
MICRO ?= .
COUNT ?= 6
OLD ?=

.PHONY: build versitygw test race race-short lint tools show releases bench bench-micro crashtest syncbench tierbench man completions install deb clean

build:
	@mkdir -p bin
	go build -o bin/quarxfs ./cmd/quarxfs

versitygw: bin/versitygw

bin/versitygw:
	GOBIN=$(CURDIR)/bin go install -ldflags '-s -w' $(VERSITYGW)

test: versitygw
	go test -p 1 ./...

race: versitygw
	go test -race -timeout 30m ./...

race-short: versitygw
	go test -race -short -p 1 ./...

lint:
	go test ./tools/layering ./tools/house
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:" $$unformatted; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

tools:
	@mkdir -p bin
	go build -o bin/bench ./tools/bench/fs
	go build -o bin/crashtest ./tools/verify/crash
	go build -o bin/loopback $(LOOPBACK)

# The first target is the reference of the ratios.
bench: build tools
	bin/bench --work $(BENCH_DIR) $(BENCH_FLAGS) loopback quarxfs

bench-micro:
	@mkdir -p bin
	go test -run '^$$' -bench '$(MICRO)' -benchmem -count $(COUNT) ./... | tee bin/micro.txt
	go run $(BENCHSTAT) $(OLD) bin/micro.txt

# What the README promises, on a real mount with real tools; a few minutes.
show: build
	tools/show/show.sh --work $(BENCH_DIR)

# Ten releases of a source tree in QuarXFS, restic and borg: docs/snapshots.md.
releases: build
	tools/bench/releases/releases.sh

# What sync sends, and what a SIGKILL in its midst leaves: docs/sync-protocol.md.
# SYNC_FLAGS="--rounds 50" SYNC=kill, or SYNC=link.
SYNC ?= bytes
syncbench: build
	go build -o bin/syncbench ./tools/bench/sync
	bin/syncbench $(SYNC_FLAGS) $(SYNC)

# Hit ratio and latency by tier, against LRU: docs/tiering.md.
tierbench:
	@mkdir -p $(BENCH_DIR)
	go run ./tools/bench/tier --work $(BENCH_DIR)/tiers

crashtest: build tools
	bin/crashtest --work $(BENCH_DIR) $(CRASH_FLAGS)

# The date of all that is generated: that of the last commit.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

# What `make build` has made is installed: root may have no Go.
bin/quarxfs:
	$(MAKE) build

man: bin/quarxfs
	@rm -rf bin/man && mkdir -p bin/man
	bin/quarxfs man bin/man
	gzip -9n bin/man/*

completions: bin/quarxfs
	@mkdir -p bin/completions
	for shell in bash zsh fish; do bin/quarxfs completion $$shell > bin/completions/$$shell || exit; done

install: man completions
	install -D -m 755 bin/quarxfs $(DESTDIR)$(PREFIX)/bin/quarxfs
	install -d $(DESTDIR)$(HELPERDIR)
	ln -sfr $(DESTDIR)$(PREFIX)/bin/quarxfs $(DESTDIR)$(HELPERDIR)/mount.fuse.quarxfs
	ln -sfr $(DESTDIR)$(PREFIX)/bin/quarxfs $(DESTDIR)$(HELPERDIR)/umount.fuse.quarxfs
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 bin/man/*.1.gz
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man7 bin/man/*.7.gz
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 bin/man/*.8.gz
	install -D -m 644 bin/completions/bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/quarxfs
	install -D -m 644 bin/completions/zsh $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_quarxfs
	install -D -m 644 bin/completions/fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/quarxfs.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in tools/package/*.service; do \
		sed 's|@BINDIR@|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit; done

# A Debian package in bin/; needs dpkg-deb and gzip.
deb:
	tools/package/deb.sh

clean:
	rm -rf bin
