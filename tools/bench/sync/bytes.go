package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// bytes pushes a tree and then a changed one, and shows what went over the wire.
func (b *bench) bytes(ctx context.Context) error {
	src, dst, err := b.pair(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	plain := filepath.Join(b.work, "plain")
	// Two copies: rsync and restic must not read theirs through the filesystem that is compared
	// with them.
	for _, to := range []string{filepath.Join(src.mnt, "src"), plain} {
		if _, err := output(ctx, "cp", "-a", b.source, to); err != nil {
			return err
		}
	}
	if err := b.pushed(ctx, src, dst, "one", "the tree"); err != nil {
		return err
	}
	others := b.others(ctx, plain)
	if err := others("first"); err != nil {
		return err
	}
	for _, tree := range []string{filepath.Join(src.mnt, "src"), plain} {
		if err := change(tree); err != nil {
			return err
		}
	}
	if err := b.pushed(ctx, src, dst, "two", "a line more in every 20th file"); err != nil {
		return err
	}
	return others("then")
}

func (b *bench) pushed(ctx context.Context, src, dst *node, name, what string) error {
	fresh, err := src.snapshot(ctx, name)
	if err != nil {
		return err
	}
	// At the destination's relay, through which the push goes.
	before := dst.relay.bytes.Load()
	var r report
	if err := b.ask(ctx, &r, "sync", "push", src.store, "peer", name); err != nil {
		return err
	}
	wire := dst.relay.bytes.Load() - before
	if err := sameTrees(ctx, src, dst, name); err != nil {
		return err
	}
	fmt.Printf("quarxfs, %s: %d bytes on the wire in %.1f s; %d blocks, records of %d bytes (wire/records %.3f); new data as stored %d bytes (wire/data %.3f)\n",
		what, wire, r.Seconds, r.Blocks, r.Bytes, ratio(wire, r.Bytes), fresh, ratio(wire, fresh))
	return nil
}

func ratio(a, b int64) float64 { return float64(a) / float64(max(1, b)) }

// change adds a line to every 20th file.
func change(dir string) error {
	n := 0
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if n++; n%20 != 0 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		// A number, so that the changed ends are not duplicates of each other.
		_, err = fmt.Fprintf(f, "// changed, number %d\n", n)
		return err
	})
}

var transferred = regexp.MustCompile(`Total bytes (?:sent|received): ([\d,]+)`)

// others returns a function that brings a copy of a tree up to date with rsync and
// with restic, and shows what that takes.
func (b *bench) others(ctx context.Context, plain string) func(when string) error {
	repo := func(n string) string { return filepath.Join(b.work, "restic"+n) }
	// No cache, which would hide what has to be read of the other repository.
	restic := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "restic", append(args, "--quiet", "--no-cache")...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "RESTIC_FROM_PASSWORD=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("restic %v: %w: %s", args, err, out)
		}
		return nil
	}
	return func(when string) error {
		// Locally rsync copies whole files unless it is told not to.
		out, err := output(ctx, "rsync", "-az", "--no-whole-file", "--stats", plain+"/", filepath.Join(b.work, "rsynced")+"/")
		if err != nil {
			return err
		}
		sum := int64(0)
		for _, m := range transferred.FindAllStringSubmatch(out, -1) {
			n, _ := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
			sum += n
		}
		fmt.Printf("rsync -z, %s: %d bytes sent and received\n", when, sum)
		if when == "first" {
			// With other parameters the copies would be split elsewhere and share nothing.
			for _, args := range [][]string{{"init", "-r", repo("1")}, {"init", "-r", repo("2"), "--from-repo", repo("1"), "--copy-chunker-params"}} {
				if err := restic(args...); err != nil {
					return err
				}
			}
		}
		before := sizeOf(repo("2"))
		if err := restic("backup", "-r", repo("1"), plain); err != nil {
			return err
		}
		if err := restic("copy", "--from-repo", repo("1"), "-r", repo("2")); err != nil {
			return err
		}
		fmt.Printf("restic copy, %s: the other repository has %d bytes more\n", when, sizeOf(repo("2"))-before)
		return nil
	}
}
