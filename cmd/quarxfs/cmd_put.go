package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
)

type putOptions struct {
	name    string
	replace bool
	json    bool
}

func newPut() *cobra.Command {
	o := &putOptions{}
	cmd := &cobra.Command{
		Use:   "put [STORE] [FILE|-]",
		Short: "Store a file or standard input as an object",
		Long: `Stores FILE, or standard input, as an object and prints its ID when it is durable. The
same bytes have the same ID. If an object with other bytes has the name, the exit code is 16;
--replace moves the name to the new object. The name is that of an object, not a path. Holes of
FILE are not read.`,
		Example: `  quarxfs put /srv/store backup.tar --name backup
  pg_dump shop | quarxfs put /srv/store --name shop.sql`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Before the store, so that a misspelt file does not wait for a lock.
			in, err := openInput(cmd, args[1:])
			if err != nil {
				return err
			}
			defer in.Close()
			return changeStore(cmd, args, func(n remote.Node) error { return o.run(cmd, n, in) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "a `name` for the object, so that get and rm need no ID")
	f.BoolVar(&o.replace, "replace", false, "move the name from the object that has it; an object without a name left is removed")
	jsonFlag(f, &o.json)
	return cmd
}

func openInput(cmd *cobra.Command, args []string) (io.ReadCloser, error) {
	if len(args) == 0 || args[0] == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	// A pipe is opened when somebody writes to it, as by cat; waiting for that can be ended.
	f, err := asked(cmd.Context(), forever, args, func() (*os.File, error) { return os.Open(args[0]) })
	if err != nil {
		return nil, err
	}
	// Open succeeds on a directory, and only reading fails.
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%w: %s is a directory; an object is one stream, so give a tar of it", errUsage, args[0])
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// Fewer blocks than bytes: there are holes, which need not be read.
	if st.Mode().IsRegular() && st.Sys().(*syscall.Stat_t).Blocks*512 < st.Size() {
		return &holeReader{file: f}, nil
	}
	return f, nil
}

func (o *putOptions) run(cmd *cobra.Command, n remote.Node, in io.Reader) error {
	var flags []store.IngestFlag
	if o.replace {
		flags = append(flags, store.Replace)
	}
	obj, err := n.Put(cmd.Context(), o.name, in, flags...)
	if errors.Is(err, store.ErrNameTaken) {
		return coded{Code: exitCode(err), Text: joinLines(err.Error()) + ": choose another name, or add --replace"}
	}
	if err != nil {
		return err
	}
	if o.json {
		return rawjson.Write(cmd.OutOrStdout(), obj)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), obj.ID)
	return err
}
