package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// needle is what grep looks for; that it is in no file makes grep read all.
const needle = "quarxfs-bench-needle-that-is-nowhere"

func treeWorkloads() []workload {
	return []workload{
		{
			name: "untar", doc: "tar x of the source tree, then sync", aim: 1.7, aimMessages: 10,
			setup: func(e *env) error { _, err := e.input.tar(e.ctx); return errors.Join(err, e.syncAll()) },
			run:   func(e *env) (amount, error) { return e.timedTree((*env).untar, (*env).syncAll) },
			check: func(e *env) error { return sameTree(e.input.tree, e.path("tree")) },
		},
		{
			name: "cp-a", doc: "cp -a of that tree, then sync", aim: 1.7,
			// Read before, so that cp measures the writing of a copy and not a cold tree.
			setup: steps((*env).needTree, (*env).syncAll, (*env).grep),
			run:   func(e *env) (amount, error) { return e.timedTree((*env).copyTree, (*env).syncAll) },
			check: func(e *env) error { return sameTree(e.input.tree, e.path("copy")) },
		},
		warm("ls-lR-warm", "ls -lR of the tree, third time", 4, 0, (*env).ls),
		cold("ls-lR-cold", "ls -lR after remount and dropped caches", 4, (*env).ls),
		warm("grep-r-warm", "grep -r of the tree, third time", 6, 0.1, (*env).grep),
		cold("grep-r-cold", "grep -r after remount and dropped caches", 1.7, (*env).grep),
		warm("find-warm", "find of the tree, third time", 0, 0.2, (*env).find),
		{
			name: "rm-rf", doc: "rm -rf of the copied tree, then sync", aim: 2.5,
			// Listed before: rm begins with what the kernel knows of the tree, as after a copy.
			setup: steps((*env).needCopy, (*env).syncAll, func(e *env) error { return e.listTree("copy") }),
			run:   func(e *env) (amount, error) { return e.timedTree((*env).removeCopy, (*env).syncAll) },
			check: func(e *env) error { return mustNotExist(e.path("copy")) },
		},
		{
			name: "create", doc: "create empty files in one directory, then sync", aim: 2.5,
			setup: steps(func(e *env) error { return os.Mkdir(e.path("many"), 0o755) }, (*env).syncAll),
			run:   runCreate,
			check: func(e *env) error { return os.RemoveAll(e.path("many")) },
		},
		{
			name: "mount", doc: "mount of the store after dropped caches",
			setup: steps((*env).needMount, (*env).needTree, (*env).cold, func(e *env) error { return e.place.Unmount(e.ctx) }),
			run:   func(e *env) (amount, error) { return amount{Ops: 1}, e.place.Mount(e.ctx) },
		},
	}
}

// warm goes over the tree twice before the time is taken: after the first READ
// of a file the kernel asks once more for its access time.
func warm(name, doc string, aim, aimMessages float64, do func(*env) error) workload {
	return workload{
		name: name, doc: doc, aim: aim, aimMessages: aimMessages,
		setup: steps((*env).needTree, do, do),
		run:   func(e *env) (amount, error) { return e.timedTree(do) },
	}
}

func cold(name, doc string, aim float64, do func(*env) error) workload {
	return workload{
		name: name, doc: doc, aim: aim,
		setup: steps((*env).needTree, (*env).cold),
		run:   func(e *env) (amount, error) { return e.timedTree(do) },
	}
}

// timedTree counts the steps as one operation per entry of the tree.
func (e *env) timedTree(todo ...func(*env) error) (amount, error) {
	return amount{Ops: e.input.entries}, steps(todo...)(e)
}

func (e *env) untar() error {
	if err := os.Mkdir(e.path("tree"), 0o755); err != nil {
		return err
	}
	e.have["tree"] = true
	return command(e.ctx, "tar", "-xf", e.input.tarFile, "-C", e.path("tree"))
}

func (e *env) copyTree() error {
	e.have["copy"] = true
	return command(e.ctx, "cp", "-a", e.path("tree"), e.path("copy"))
}

func (e *env) removeCopy() error {
	e.have["copy"] = false
	return command(e.ctx, "rm", "-rf", e.path("copy"))
}

func (e *env) needTree() error {
	if e.have["tree"] {
		return nil
	}
	if _, err := e.input.tar(e.ctx); err != nil {
		return err
	}
	return e.untar()
}

func (e *env) needCopy() error {
	if err := e.needTree(); err != nil || e.have["copy"] {
		return err
	}
	return e.copyTree()
}

func (e *env) listTree(name string) error { return command(e.ctx, "ls", "-lR", e.path(name)) }
func (e *env) ls() error                  { return e.listTree("tree") }
func (e *env) find() error                { return command(e.ctx, "find", e.path("tree")) }

func (e *env) grep() error {
	err := command(e.ctx, "grep", "-rF", needle, e.path("tree"))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // found nothing, as it should
	}
	if err == nil {
		err = fmt.Errorf("grep found %s", needle)
	}
	return err
}

func mustNotExist(name string) error {
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there (%v)", name, err)
	}
	return nil
}

func runCreate(e *env) (amount, error) {
	n := e.input.size(10000, 100)
	dir := e.path("many")
	for i := range n {
		if err := e.ctx.Err(); err != nil {
			return amount{}, err
		}
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("file-%07d", i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return amount{}, err
		}
		if err := f.Close(); err != nil {
			return amount{}, err
		}
	}
	return amount{Ops: int64(n)}, e.syncAll()
}

// command runs a program of the system as users do. Its output is read and
// dropped: some programs notice /dev/null and do less.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &complaint
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A terminal's interrupt reaches this program alone, which ends the command by its context.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return nil
}

const generations = 20

func heavyWorkloads() []workload {
	read := func(g int) func(*env) (amount, error) {
		return func(e *env) (amount, error) { return e.read(generation(g)) }
	}
	setup := steps((*env).needGenerations, (*env).cold)
	return []workload{
		{
			name: "gen-first-cold", heavy: true, setup: setup, run: read(0),
			doc: "cold sequential read of the first of 20 generations of a 1 GiB image",
		},
		{
			name: "gen-newest-cold", heavy: true, setup: setup, run: read(generations - 1),
			doc: "the same of the newest (2 % scattered edits each; aim: 0.7 of the first's rate)",
		},
	}
}

func generation(g int) string { return fmt.Sprintf("image-%02d", g) }

// needGenerations writes the image and its edited successors, once a round.
func (e *env) needGenerations() error {
	if e.have["image"] {
		return nil
	}
	size := e.input.size(1024, 4) * mib
	image := e.input.data(e.input.seedFor(e.round, kindImage), size)
	defer e.input.spoiled()
	r := rand.New(rand.NewPCG(e.input.seedFor(e.round, kindImage), 1))
	for g := range generations {
		if g > 0 {
			// 2 % of its pages, wherever they fall: each generation shares less with the first.
			for range size / (4 * kib) * 2 / 100 {
				off := r.IntN(size/(4*kib)) * (4 * kib)
				fill(image[off:off+4*kib], r.Uint64())
			}
		}
		if _, err := e.write(generation(g), image, mib); err != nil {
			return err
		}
	}
	e.have["image"] = true
	return nil
}
