package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
)

type listFilesOptions struct {
	json   bool
	types  []string
	filter remote.FileFilter
}

func newListFiles() *cobra.Command {
	o := &listFilesOptions{}
	cmd := &cobra.Command{
		Use:   "list-files [STORE] [PATH]",
		Short: "List the files of a store, mounted or not",
		Long: `Lists the files below PATH, a directory in the store, or all. Sizes are in bytes.
Names with unprintable characters are shown quoted. In JSON a name that is not UTF-8 is
percent-encoded, and path_bytes has its bytes in base64.

` + pathRule,
		Example: `  quarxfs list-files /mnt --type file --name '*.go'
  quarxfs list-files /srv/store src/cmd --json | jq -r .path`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := findStoreOf(cmd, args)
			if err != nil {
				return err
			}
			if o.filter.Path, err = a.onlyPath(cmd.Context(), args); err != nil {
				return err
			}
			// After STORE and PATH, whose mistakes are the likelier ones.
			if err := o.complete(); err != nil {
				return err
			}
			return a.run(cmd.Context(), func(n remote.Node) error { return o.run(cmd, n) })
		},
	}
	f := cmd.Flags()
	jsonLinesFlag(f, &o.json)
	listVar(f, &o.types, "type", "", "only these `types`: file, dir, symlink, fifo, socket, block, char")
	f.StringVar(&o.filter.Name, "name", "", "only names that fit the `pattern`, with * ? and [a-z]")
	numberVar(f, &o.filter.Limit, 0, most, "limit", "stop after so many; 0: never")
	return cmd
}

func (o *listFilesOptions) complete() error {
	for _, s := range o.types {
		t, err := remote.ParseFileType(s)
		if err != nil {
			return err
		}
		o.filter.Types = append(o.filter.Types, t)
	}
	return o.filter.Check()
}

func (o *listFilesOptions) run(cmd *cobra.Command, n remote.Node) error {
	return printLines(cmd.OutOrStdout(), o.json, printFile, func(fn func(remote.File) error) error {
		return n.ListFiles(cmd.Context(), o.filter, fn)
	})
}

func printFile(w io.Writer, f remote.File) error {
	target := ""
	if f.Type == remote.Symlink {
		target = " -> " + printable(f.Target)
	}
	_, err := fmt.Fprintf(w, "%s %3d %5d %5d %12d %s %s%s\n", modeOf(f), f.Nlink, f.UID, f.GID, f.Size,
		f.Mtime.Local().Format("2006-01-02 15:04"), printable(f.Path), target)
	return err
}

func modeOf(f remote.File) string {
	letters := map[remote.FileType]string{
		remote.Directory: "d", remote.Symlink: "l", remote.FIFO: "p", remote.Socket: "s", remote.Block: "b", remote.Char: "c",
	}
	first, ok := letters[f.Type]
	if !ok {
		first = "-"
	}
	// As ls has it: a capital letter where the bit has no meaning, because x is not set.
	bits := []byte(os.FileMode(f.Mode & 0o777).String()[1:])
	for _, special := range []struct {
		bit        uint32
		at         int
		with, sans byte
	}{{0o4000, 2, 's', 'S'}, {0o2000, 5, 's', 'S'}, {0o1000, 8, 't', 'T'}} {
		if f.Mode&special.bit == 0 {
			continue
		}
		if bits[special.at] == 'x' {
			bits[special.at] = special.with
		} else {
			bits[special.at] = special.sans
		}
	}
	return first + string(bits)
}
