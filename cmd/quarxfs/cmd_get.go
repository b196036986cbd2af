package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/owner"
)

type getOptions struct {
	output string
	span   string
}

func newGet() *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:   "get [STORE] OBJECT",
		Short: "Write an object to a file or standard output",
		Long: `Writes the object with the name, the ID or the only ID that starts with OBJECT. Every
block is checked against its ID before it is written. A new file given with -o appears when
it is whole. An existing one is written in place, as cp does, and keeps its mode and names.
Zeroes become holes in a file (4 KiB each, as with cp --sparse=always), but not where it is
appended to. An object is what put has stored; files of the mount are read with cat or cp.

REMOTE:SNAPSHOT:/PATH is a file of a remote's snapshot, as for quarxfs cat.`,
		Example: `  quarxfs get /srv/store backup -o backup.tar
  quarxfs get /srv/store shop.sql | psql shop
  quarxfs get /srv/store backup --range 0-511 | file -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			off, length, err := parseSpan(o.span)
			if err != nil {
				return err
			}
			return onStore(cmd, args, func(n remote.Node) error {
				_, err := n.StatObject(cmd.Context(), args[1])
				// An object may have colons in its name, so it comes before a file of a remote's
				// snapshot.
				if peer, rest := splitRemote(args[1]); peer != "" && errors.Is(err, store.ErrNotFound) {
					snapshot, path := splitSnapshotPath(rest)
					return onRemote(cmd.Context(), n, peer, func(_ config.Remote, c *remote.Client) error {
						return o.fromSnapshot(cmd, c, snapshot, path, off, length)
					})
				}
				if err != nil {
					return hintNoObject(cmd.Context(), n, args[1], err)
				}
				return o.write(cmd, func(w io.Writer) error { return n.Get(cmd.Context(), args[1], off, length, w) })
			})
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func (o *getOptions) flags(f *pflag.FlagSet) {
	f.StringVarP(&o.output, "output", "o", "-", "write to this `file`")
	f.StringVar(&o.span, "range", "", "only the bytes `FIRST-LAST`, counted from 0; FIRST-: to the end")
}

func parseSpan(s string) (off, length int64, err error) {
	if s == "" {
		return 0, -1, nil
	}
	bad := fmt.Errorf("%w: range %q: give FIRST-LAST or FIRST-, in bytes from 0", errUsage, s)
	from, to, ok := strings.Cut(s, "-")
	off, err = strconv.ParseInt(from, 10, 64)
	if !ok || err != nil || off < 0 {
		return 0, 0, bad
	}
	if to == "" {
		return off, -1, nil
	}
	last, err := strconv.ParseInt(to, 10, 64)
	if err != nil || last < off || last-off == 1<<63-1 {
		return 0, 0, bad
	}
	return off, last - off + 1, nil
}

// write gives fn the output. A new file is written beside its place and renamed, so that
// it is there when it is whole; what is there is written as cp(1) does, in place: it
// keeps its owner, mode and names, and a symbolic link leads on to its file. A range that
// has no byte leaves all as it is.
func (o *getOptions) write(cmd *cobra.Command, fn func(io.Writer) error) error {
	if o.output == "-" {
		return o.inRange(cmd.OutOrStdout(), fn)
	}
	// By Lstat, since a link that leads nowhere is there, too, and is written through.
	if _, err := asCaller(func() (os.FileInfo, error) { return os.Lstat(o.output) }); err == nil {
		return o.writeInto(fn)
	}
	tmp, err := asCaller(func() (*os.File, error) { return os.CreateTemp(filepath.Dir(o.output), ".quarxfs-get-") })
	if err != nil {
		return durable.ErrorAt(err, o.output)
	}
	// With this process's own rights, as it reads the store; only names in the caller's directory
	// are made as the caller.
	err = o.inRange(tmp, fn)
	return owner.AsCaller(func() error {
		err := errors.Join(err, tmp.Chmod(0o666&^currentUmask()), tmp.Close())
		if err == nil {
			err = os.Rename(tmp.Name(), o.output)
		}
		if err != nil {
			_ = os.Remove(tmp.Name()) // the first error counts
			return durable.ErrorAt(err, o.output)
		}
		return nil
	})
}

// inRange runs fn; store.ErrRange: a range was asked for, and no byte is in it.
func (o *getOptions) inRange(w io.Writer, fn func(io.Writer) error) error {
	holes := leaveHoles(w)
	c := &counted{w: holes}
	// A hole at the end becomes part of the file only by finish.
	err := errors.Join(fn(c), holes.finish())
	if err == nil && o.span != "" && c.n == 0 {
		return fmt.Errorf("there is no byte at %s: %w", o.span, store.ErrRange)
	}
	return err
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeInto writes to what is there: a file, a device or a pipe. It is opened, and a file
// emptied, with the first byte: what cannot be read at all costs nothing that is there.
func (o *getOptions) writeInto(fn func(io.Writer) error) error {
	f := &lateFile{path: o.output}
	err := o.inRange(f, fn)
	if err == nil {
		_, err = f.Write(nil) // an object without bytes empties the file
	}
	// Nothing was written, so there is nothing to close, and what is there stays.
	if f.file == nil {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%s is not whole: %w", o.output, err)
	}
	return errors.Join(err, f.out.finish(), f.file.Close())
}

// A lateFile is opened when something is written to it.
type lateFile struct {
	path string
	file *os.File
	out  *holeWriter // to file
}

func (f *lateFile) Write(p []byte) (n int, err error) {
	if f.file == nil {
		// Made only behind a symbolic link: the kernel may refuse to make what is there
		// in a directory that all can write to (fs.protected_regular).
		file, err := asCaller(func() (*os.File, error) {
			file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_TRUNC, 0)
			if errors.Is(err, os.ErrNotExist) {
				file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE, 0o666)
			}
			return file, err
		})
		if err != nil {
			return 0, err
		}
		f.file, f.out = file, leaveHoles(file)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return f.out.Write(p)
}
