package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/owner"
	"github.com/quarxtor/quarxfs/store/simulate"
)

// The errors of the command line itself.
var (
	errUsage      = errors.New("wrong use")
	errNoStore    = errors.New("no store is named")
	errNotMounted = errors.New("not a QuarXFS mount")
	errBusy       = errors.New("mount is in use")
	// errReplaceable is with store.ErrNameTaken where a flag lets what is there be replaced.
	errReplaceable = errors.New("it can be replaced")
	// errNotAdded is with store.ErrUnavailable where there is no cold tier that could be elsewhere.
	errNotAdded = errors.New("it is not added")
)

const (
	exitOK          = 0
	exitOther       = 1
	exitInterrupted = 130
)

// exits turns errors into exit codes; the first row that fits counts.
var exits = []struct {
	code    int
	meaning string
	errs    []error
}{
	{2, "wrong use: flags, arguments or settings", []error{
		errUsage, errUnconfirmed, errRebuildUnconfirmed, errNoStore, mounts.ErrRemoved, daemon.ErrHelper, store.ErrConfig, remote.ErrRequest, remote.ErrScheme, remote.ErrUntrusted,
		simulate.ErrOptions, chunk.ErrConfig,
	}},
	{3, "there is no QuarXFS store", []error{store.ErrNotStore, db.ErrRemoved}},
	{4, "the store is in use by another process", []error{store.ErrLocked, store.ErrMirrored}},
	{5, "the store was made by a newer QuarXFS, or by one too old", []error{store.ErrNewer, store.ErrOlder}},
	{6, "the store is damaged, or not safe to open: its superblock, index or a block; links, rights", []error{store.ErrDamaged, store.ErrCorrupt, owner.ErrUnsafe}},
	{7, "no such object, block, path or byte range", []error{store.ErrNotFound, store.ErrRange}},
	{8, "an ID prefix fits more than one", []error{store.ErrAmbiguous}},
	{9, "the mountpoint is missing, not empty, busy or not mounted", []error{fs.ErrMountpoint, errNotMounted, errMoved, errBusy, store.ErrMounted}},
	{10, "FUSE is not available: /dev/fuse or fusermount3 is missing or not allowed", []error{fs.ErrNoFUSE, fs.ErrNoFusermount}},
	{11, "the disk is full", []error{store.ErrFull, syscall.ENOSPC, syscall.EDQUOT}},
	{12, "init: the directory is not empty or a store already", []error{store.ErrExists, store.ErrNotEmpty}},
	{13, "the daemon or the node does not answer", []error{daemon.ErrNoAnswer, remote.ErrNoAnswer}},
	{14, "scrub or fsck found damage", []error{errDamage}},
	{15, "simulate: not all could be read", []error{errLeftOut}},
	{16, "the name or path is taken, or the snapshot is held", []error{store.ErrNameTaken, store.ErrHeld}},
	{17, "the store has no such tier, or it is in use or out of reach", []error{store.ErrNoTier, store.ErrHasTier, store.ErrNotCold, store.ErrForeign, store.ErrUnavailable}},
	{18, "the server wants a token, or one that allows more", []error{config.ErrToken, remote.ErrForbidden}},
	{19, "the server is busy, or was asked too often", []error{remote.ErrBusy, remote.ErrRate}},
	{20, "the store is mounted read-only, or cannot be written to", []error{store.ErrReadOnly, db.ErrReadOnly, store.ErrUnwritable, syscall.EROFS}},
	{21, "the cluster cannot decide, or could not any more: too few of its voters answer", nil},
	{22, "cluster status: something needs attention", []error{errClusterWarn}},
	{23, "cluster status: something does not work", []error{errClusterErr}},
	{24, "another node of the cluster writes the volume now", nil},
	{exitInterrupted, "interrupted", []error{context.Canceled}},
}

// A coded is an error that another process, a daemon mostly, has already turned into an exit
// code and a line.
type coded = daemon.ExitStatus

func exitCode(err error) int {
	// What a daemon says of its own end counts more than what it was wrapped in here.
	if c, ok := errors.AsType[coded](err); ok {
		return c.Code
	}
	for _, row := range exits {
		for _, e := range append(client.ErrorsOf(row.code), row.errs...) {
			if errors.Is(err, e) {
				return row.code
			}
		}
	}
	return exitOther
}

// explain is how a process ends with an error, and what it says.
func explain(err error) (code int, text string) { return exitCode(err), oneLine(err) }

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n    0  done\n    1  any other failure\n")
	for _, row := range exits {
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, row.meaning)
	}
	return strings.TrimRight(b.String(), "\n")
}

// exitFooter ends the help of each command below the root, which lists them all.
const exitFooter = `{{if .HasParent}}
Exit codes: ` + exitNote + `
"{{.Root.CommandPath}} help exit-codes" lists them.
{{end}}`

const exitNote = "0 done, 1 failure, 2 wrong use, 3 and more say what is wrong:"

// advice says what to do about an error, where the error does not say it.
var advice = []struct {
	err  error
	text string
}{
	{errNoStore, "give STORE, go into a mount with cd, or set QUARXFS_STORE"},
	{errUnmounted, "mount the store there with quarxfs mount STORE MOUNTPOINT"},
	{store.ErrNotStore, "make one with quarxfs init"},
	{db.ErrRemoved, "what was in it is lost, except in copies and in stores that it was synced to"},
	{store.ErrLocked, "unmount it first, or wait for the other command"},
	{store.ErrMirrored, "mount it on the volume's home, and give the mountpoint in place of the store"},
	{store.ErrNewer, "install a newer QuarXFS to open it"},
	{store.ErrFull, "free some space on that disk"},
	{syscall.ENOSPC, "free some space on that disk"},
	{store.ErrUnwritable, "it can be mounted with -o ro, and read"},
	{store.ErrReadOnly, "unmount it and mount it without -o ro to change it"},
	{store.ErrExists, "mount it, or choose another directory"},
	{store.ErrNotEmpty, "choose an empty or a new directory"},
	{store.ErrAmbiguous, "give more digits"},
	{store.ErrNoTier, "add one with quarxfs tier add STORE cold DIR"},
	{store.ErrNotCold, "give the directory or bucket that has all of it, its marker quarxfs-tier too"},
	{errNotAdded, "see that it can be reached, by these flags, and add it again"},
	{store.ErrUnavailable, "connect or mount the cold tier's disk, or say with quarxfs tier relocate where it is now; see quarxfs tier status"},
	{errReplaceable, "add --replace, or choose another one"},
	{store.ErrNameTaken, "choose another name, or remove that one first"},
	{config.ErrToken, "ask the server's owner for one: quarxfs token create"},
	{remote.ErrForbidden, "ask the server's owner for a token with that scope"},
	{mounts.ErrRemoved, "go to another one with cd, or give the whole path"},
	{remote.ErrBusy, "try again later"},
	{remote.ErrRate, "try again later"},
	{store.ErrHeld, "release it first with quarxfs snapshot release, unless it is locked"},
}

// joinLines puts lines behind each other.
func joinLines(s string) string {
	var parts []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// oneLine is what the user reads of an error: one line that says what to do.
func oneLine(err error) string {
	text := joinLines(err.Error())
	if errors.Is(err, context.Canceled) { // in Go's words, somewhere in the chain
		text = strings.ReplaceAll(text, context.Canceled.Error(), "interrupted")
	}
	if text == "" { // of a saidError
		return ""
	}
	if _, ok := errors.AsType[coded](err); ok {
		return text
	}
	if says := rights(err); says != "" {
		return says
	}
	for _, row := range advice {
		if errors.Is(err, row.err) {
			return text + ": " + row.text
		}
	}
	return text
}
