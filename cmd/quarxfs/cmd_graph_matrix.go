package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

func newGraphMatrix() *cobra.Command {
	format := "mtx"
	cmd := &cobra.Command{
		Use:   "matrix [STORE]",
		Short: "Write which files, objects and snapshots have which blocks",
		Long: `Writes the reference matrix: a row for each file of the live filesystem that has data,
each object and each snapshot, a column for each data block in the order of IDs.

  mtx   Matrix Market, for SciPy, Julia and others: how often a row has a block.
        Comments at the top name the rows
  csv   a line for each range of a file, and each block of an object or snapshot
  json  a JSON object a line: first the sizes, then rows; a long row comes in parts`,
		Example: `  quarxfs graph matrix /mnt > store.mtx
  quarxfs graph matrix /mnt --format csv | sort -t, -k5 | uniq -c`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Chosen before the store is asked, as the flag allows only these.
			write := map[string]func(io.Writer, matrixRows) error{"mtx": writeMTX, "csv": writeCSV, "json": writeMatrixJSON}[format]
			return onFlushedStore(cmd, args, func(n remote.Node) error {
				out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
				err := write(out, func(fn func(remote.MatrixItem) error) error { return n.Matrix(cmd.Context(), fn) })
				// Flushed after an error, too: what has come is shown, and the error says that it
				// is not all.
				if ferr := out.Flush(); err == nil {
					err = ferr
				}
				return err
			})
		},
	}
	choiceVar(cmd.Flags(), &format, []string{"mtx", "csv", "json"}, "format", "of the output")
	return cmd
}

type matrixRows func(fn func(remote.MatrixItem) error) error

// writeMTX writes the Matrix Market exchange format (Boisvert, Pozo, Remington,
// NISTIR 5935). Its header has the number of entries, in which stretches of one
// file that are in one block count once.
func writeMTX(w io.Writer, rows matrixRows) error {
	type entry struct{ row, col, times int64 }
	var entries []entry
	var size remote.MatrixSize
	fmt.Fprintln(w, "%%MatrixMarket matrix coordinate integer general")
	at := make(map[int64]int) // of the row: column -> index in entries
	row := int64(-1)
	err := rows(func(it remote.MatrixItem) error {
		// The first item. The number of entries is a hint from the node, so the room made by it is
		// bounded.
		if it.Size != nil {
			size = *it.Size
			entries = make([]entry, 0, min(size.Entries, 1<<24))
			return nil
		}
		// A long row comes in several parts, so that only a new number begins one.
		if it.Row.Number != row {
			row = it.Row.Number
			clear(at)
			if _, err := fmt.Fprintf(w, "%% row %d %s %s\n", row+1, it.Row.Kind, printable(it.Row.Name)); err != nil {
				return err
			}
		}
		for _, b := range it.Row.Blocks {
			i, ok := at[b.Column]
			if !ok {
				i = len(entries)
				at[b.Column] = i
				entries = append(entries, entry{row + 1, b.Column + 1, 0})
			}
			entries[i].times += int64(b.Times)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// After the comments and before the entries: all of them had to be read to know how many there
	// are.
	fmt.Fprintf(w, "%d %d %d\n", size.Rows, size.Columns, len(entries))
	for _, e := range entries {
		if _, err := fmt.Fprintf(w, "%d %d %d\n", e.row, e.col, e.times); err != nil {
			return err
		}
	}
	return nil
}

func writeCSV(w io.Writer, rows matrixRows) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"row", "kind", "name", "column", "block", "times", "offset", "bytes", "skip"}); err != nil {
		return err
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	err := rows(func(it remote.MatrixItem) error {
		if it.Row == nil {
			return nil
		}
		for _, b := range it.Row.Blocks {
			line := []string{number(it.Row.Number), it.Row.Kind, it.Row.Name, number(b.Column), b.ID.String(), number(int64(b.Times)), "", "", ""}
			// A link of a vertex has no place in a file: its cells stay empty, and 0 would be an
			// offset.
			if b.Bytes > 0 {
				line[6], line[7], line[8] = number(b.Offset), number(b.Bytes), number(b.Skip)
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
		return nil
	})
	out.Flush()
	if err == nil {
		err = out.Error()
	}
	return err
}

func writeMatrixJSON(w io.Writer, rows matrixRows) error {
	return rows(func(it remote.MatrixItem) error { return rawjson.Write(w, it) })
}
