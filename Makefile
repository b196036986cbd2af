# Everything runs on a machine with Go and a C compiler (for -race); mounting
# needs /dev/fuse, and fusermount3 unless one is root.

SHELL       = /bin/bash
.SHELLFLAGS = -o pipefail -c
# What `make lint` runs, of these versions.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRORLINT   = github.com/polyfloyd/go-errorlint@v1.8.0
MISSPELL    = github.com/golangci/misspell/cmd/misspell@v0.8.0
DEADCODE    = golang.org/x/tools/cmd/deadcode@v0.52.0
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

.PHONY: help build versitygw test test-long test-rings race race-short lint lint-etcd notice tools show releases bench bench-micro \
	crashtest syncbench tierbench cluster-test man completions install deb clean

build: ## build bin/quarxfs and bin/quarxfs-node
	@mkdir -p bin
	go build -o bin/ ./cmd/quarxfs ./cmd/quarxfs-node

help: ## list what make can do
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do \
		printf '  %-12s %s\n' "$$name" "$$what"; done

versitygw: bin/versitygw

bin/versitygw:
	GOBIN=$(CURDIR)/bin go install -ldflags '-s -w' $(VERSITYGW)

# The tests of the command make mount namespaces, which have a copy of each mount that is there, and
# unmounting refuses while one has. So they run when no other package has a mount: beside those that
# never do, since they wait for disks and daemons half of the time.
COMMAND := /cmd/quarxfs$$
MOUNTING := /quarxfs/(fs|store|cmd/quarxfs-node|tools)(/|$$)
FIRST = $$(go list ./... | grep -E '$(MOUNTING)')
SECOND = $$(go list ./... | grep -E '$(COMMAND)') $$(go list ./... | grep -Ev '$(MOUNTING)|$(COMMAND)')

# Of two packages at a time, for a machine with two cores, where 8 minutes are the aim. make lint runs go vet.
test: versitygw ## run the tests
	go test -vet off -p 2 -timeout 20m $(FIRST)
	go test -vet off -p 2 -timeout 20m $(SECOND)

# The random sequences longer than in each run, and a large tree: what is rare shows here. Some 10 minutes.
test-long: versitygw ## run what takes longer
	go test -p 2 ./fs/volume ./store -run 'TestRandom|TestStoreAgainstModel' -rapid.checks 100 -timeout 20m
	go test ./remote/cluster/sim -long -most 500000 -timeout 60m
	go test ./fs/volume -run TestSnapshotScale -snapshot-files 50000 -timeout 10m
	go test ./cmd/quarxfs -run TestS3Tier -tier-kills 20 -timeout 20m

# The tests that mount, over rings. The kernel's switch is set back afterwards.
RINGS = /sys/module/fuse/parameters/enable_uring
test-rings: ## run the tests that mount over io_uring, as root
	@was=$$(cat $(RINGS)); trap 'echo $$was > $(RINGS)' EXIT; echo Y > $(RINGS); \
		go test -count 1 ./fs/transport/... && QUARXFS_TEST_TRANSPORT=ring go test -count 1 -timeout 20m ./fs

race: versitygw ## run the tests under the race detector
	go test -race -timeout 30m $(FIRST)
	go test -race -timeout 30m $(SECOND)

race-short: versitygw ## run the shorter ones of them under the race detector
	go test -race -short -timeout 20m $(FIRST)
	go test -race -short -timeout 20m $(SECOND)

# Here an errno says something of a name or an inode only if it is the error itself: wrapped in one, it
# is a disk's, and a file that a disk has lost is no name that there is not.
BARE_ERRNO = fs/
# Packages that only tests use; of mirrors' rules some only the model asks for.
FOR_TESTS = remote/cluster/clustertest|remote/cluster/mirror|remote/cluster/sim|remote/cluster/register/registertest|tiering/disk/faultdisk|tiering/disk/disktest|tiering/s3/s3test|remote/remotetest|tools/house|tools/layering

# Linked with etcd's server, by their tests at least: staticcheck would read all of that first, which takes
# longer than everything else together. lint-etcd does it.
WITH_ETCD = cmd/quarxfs-node|tools/verify/clustertest|remote/cluster/agent|remote/cluster/etcd/embedded

lint-etcd: ## check the packages that lint leaves out
	go run $(STATICCHECK) $$(go list ./... | grep -E '/($(WITH_ETCD))$$')

lint: ## check how the code is written
	go test ./tools/layering ./tools/house
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:" $$unformatted; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) $$(go list ./... | grep -Ev '/($(WITH_ETCD))$$')
	go run $(STATICCHECK) -tests=false ./remote/cluster/agent
	@echo 'go run $(ERRORLINT) ./...'; \
	compared=$$(go run $(ERRORLINT) ./... 2>&1 | grep -Ev '^$(CURDIR)/$(BARE_ERRNO)|^exit status'); \
	if [ -n "$$compared" ]; then echo "$$compared"; exit 1; fi
	git ls-files '*.go' '*.md' '*.sh' | xargs go run $(MISSPELL) -error -i exportfs
	@echo 'go run $(DEADCODE) ./...'; \
	dead=$$(go run $(DEADCODE) ./... | grep -Ev '^($(FOR_TESTS))/'); \
	if [ -n "$$dead" ]; then echo "$$dead"; exit 1; fi
	tools/package/notice.sh | cmp - NOTICE || { echo "NOTICE is old: make notice"; exit 1; }

notice: ## write NOTICE: the licences of what the program is linked with
	tools/package/notice.sh > NOTICE.new && mv NOTICE.new NOTICE

tools: ## build the programs for make bench and make crashtest
	@mkdir -p bin
	go build -o bin/bench ./tools/bench/fs
	go build -o bin/crashtest ./tools/verify/crash
	go build -o bin/loopback $(LOOPBACK)

# The first target is the reference of the ratios.
bench: build tools ## measure a mount beside a reference (BENCH_FLAGS)
	bin/bench --work $(BENCH_DIR) $(BENCH_FLAGS) loopback quarxfs

bench-micro: ## run the benchmarks of the packages (MICRO, COUNT, OLD)
	@mkdir -p bin
	go test -run '^$$' -bench '$(MICRO)' -benchmem -count $(COUNT) ./... | tee bin/micro.txt
	go run $(BENCHSTAT) $(OLD) bin/micro.txt

# What the README promises, on a real mount with real tools; a few minutes.
show: build ## show what the README promises, on a real mount
	tools/show/show.sh --work $(BENCH_DIR)

# Ten releases of a source tree in QuarXFS, restic and borg: docs/results/snapshots.md.
releases: build ## ten releases of a source tree, beside restic and borg
	tools/bench/releases/releases.sh

# What sync sends, and what a SIGKILL in its midst leaves: docs/results/sync.md.
# SYNC_FLAGS="--rounds 50" SYNC=kill, or SYNC=link.
SYNC ?= bytes
syncbench: build ## what a sync sends, and kills amid it (SYNC, SYNC_FLAGS)
	go build -o bin/syncbench ./tools/bench/sync
	bin/syncbench $(SYNC_FLAGS) $(SYNC)

# Hit ratio and latency by tier, against LRU: docs/results/tiering.md.
tierbench: ## hits and latency by tier
	@mkdir -p $(BENCH_DIR)
	go run ./tools/bench/tier --work $(BENCH_DIR)/tiers

crashtest: build tools ## kill the daemon under load and judge what is there (CRASH_FLAGS)
	bin/crashtest --work $(BENCH_DIR) $(CRASH_FLAGS)

# What a cluster must bear, on machines made of namespaces: docs/results/cluster.md. Needs root.
# CLUSTER="list", CLUSTER="A2 --rounds 5 --seed 7".
CLUSTER ?= all
cluster-test: build ## judge clusters on machines made of namespaces (CLUSTER)
	go build -o bin/clustertest ./tools/verify/clustertest
	bin/clustertest --bin bin --work $(BENCH_DIR) $(CLUSTER)

# The date of all that is generated: that of the last commit.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

# What `make build` has made is installed: root may have no Go.
bin/quarxfs:
	$(MAKE) build

man: bin/quarxfs ## manual pages in bin/man
	@rm -rf bin/man && mkdir -p bin/man
	bin/quarxfs man bin/man
	gzip -9n bin/man/*

completions: bin/quarxfs ## completions of shells in bin/completions
	@mkdir -p bin/completions
	for shell in bash zsh fish; do bin/quarxfs completion $$shell > bin/completions/$$shell || exit; done

install: man completions ## install below DESTDIR and PREFIX
	install -D -m 755 bin/quarxfs $(DESTDIR)$(PREFIX)/bin/quarxfs
	install -m 755 bin/quarxfs-node $(DESTDIR)$(PREFIX)/bin/quarxfs-node
	install -d $(DESTDIR)$(HELPERDIR)
	ln -sfr $(DESTDIR)$(PREFIX)/bin/quarxfs $(DESTDIR)$(HELPERDIR)/mount.fuse.quarxfs
	ln -sfr $(DESTDIR)$(PREFIX)/bin/quarxfs $(DESTDIR)$(HELPERDIR)/umount.fuse.quarxfs
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 bin/man/*.1.gz
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man7 bin/man/*.7.gz
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 bin/man/*.8.gz
	install -D -m 644 bin/completions/bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/quarxfs
	install -D -m 644 bin/completions/zsh $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_quarxfs
	install -D -m 644 bin/completions/fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/quarxfs.fish
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/quarxfs/examples tools/package/example.conf
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in tools/package/*.service; do \
		sed 's|@BINDIR@|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit; done

# A Debian package in bin/; needs dpkg-deb and gzip.
deb: ## build a Debian package in bin
	tools/package/deb.sh

clean: ## remove bin
	rm -rf bin
