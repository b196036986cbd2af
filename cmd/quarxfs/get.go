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
block is checked against its ID before it is written; a file given with -o appears only
when it is whole.

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
				if peer, past := splitRemote(args[1]); peer != "" && errors.Is(err, store.ErrNotFound) {
					snapshot, path := splitPast(past)
					return onRemote(cmd.Context(), n, peer, func(_ store.Remote, c *remote.Client) error {
						return o.past(cmd, c, snapshot, path, off, length)
					})
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

// write gives fn the output. A file is written beside its place and renamed.
func (o *getOptions) write(cmd *cobra.Command, fn func(io.Writer) error) error {
	if o.output == "-" {
		return fn(cmd.OutOrStdout())
	}
	if st, err := os.Stat(o.output); err == nil && !st.Mode().IsRegular() {
		return writeInto(o.output, fn)
	}
	tmp, err := os.CreateTemp(filepath.Dir(o.output), ".quarxfs-get-")
	if err != nil {
		return err
	}
	err = errors.Join(fn(tmp), tmp.Chmod(0o666&^currentUmask()), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), o.output)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// writeInto writes to a device or pipe.
func writeInto(path string, fn func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}
