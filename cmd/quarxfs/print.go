package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/remote/rawjson"
)

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// output is standard output and remembers that something could not be written there, so that no
// command ends with success whose list was lost on a full disk.
type output struct {
	file *os.File // not embedded: by its other methods bytes would pass unseen
	err  error    // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// amount says how many there are of what one names, as in "1 file" and "2,000 vertices".
func amount[N int | int64](n N, one string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(one, "y"):
		one = strings.TrimSuffix(one, "y") + "ies"
	case strings.HasSuffix(one, "ex"):
		one = strings.TrimSuffix(one, "ex") + "ices"
	default:
		one += "s"
	}
	return humanize.Comma(int64(n)) + " " + one
}

// printable quotes what could spoil a terminal or a line.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}

// printOne prints a value as JSON, or by show.
func printOne(cmd *cobra.Command, asJSON bool, v any, show func(io.Writer) error) error {
	if asJSON {
		return rawjson.Write(cmd.OutOrStdout(), v)
	}
	return show(cmd.OutOrStdout())
}

// printLines prints what walk calls its function with, as JSON or by show.
func printLines[T any](w io.Writer, asJSON bool, show func(io.Writer, T) error, walk func(func(T) error) error) error {
	out := bufio.NewWriterSize(w, 64<<10)
	err := walk(func(v T) error {
		if asJSON {
			return rawjson.Write(out, v)
		}
		return show(out, v)
	})
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	return err
}

func each[T any](list []T, fn func(T) error) error {
	for _, v := range list {
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

func jsonFlag(f *pflag.FlagSet, to *bool) { f.BoolVar(to, "json", false, "print JSON") }

// jsonLinesFlag is jsonFlag of a listing.
func jsonLinesFlag(f *pflag.FlagSet, to *bool) {
	f.BoolVar(to, "json", false, "print a JSON object a line")
}

// newTable makes a table without lines; title is its first line.
func newTable(title string, aligns ...text.Align) table.Writer {
	t := table.NewWriter()
	st := table.StyleDefault
	st.Options = table.OptionsNoBordersAndSeparators
	st.Box.PaddingLeft, st.Box.PaddingRight = "", "  "
	st.Format.Header = text.FormatDefault
	st.Title.Align = text.AlignLeft
	t.SetStyle(st)
	if title != "" {
		t.SetTitle("%s", title)
	}
	columns := make([]table.ColumnConfig, len(aligns))
	for i, a := range aligns {
		columns[i] = table.ColumnConfig{Number: i + 1, Align: a, AlignHeader: a}
	}
	t.SetColumnConfigs(columns)
	return t
}

// finish writes a table with no blanks at the ends of its lines.
func finish(w io.Writer, t table.Writer) {
	for line := range strings.Lines(t.Render() + "\n") {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

func printTable(w io.Writer, t table.Writer) error {
	var b strings.Builder
	finish(&b, t)
	_, err := io.WriteString(w, b.String())
	return err
}

// printList is printTable for a list of what one calls so, which may be empty: a header alone looks
// like an error.
func printList(w io.Writer, t table.Writer, of string) error {
	if t.Length() == 0 {
		_, err := fmt.Fprintf(w, "There are no %s.\n", of)
		return err
	}
	return printTable(w, t)
}

// ms shows milliseconds.
func ms(x float64) string {
	switch {
	case x < 0.001:
		return "<1 us"
	case x < 1:
		return fmt.Sprintf("%.0f us", x*1000)
	case x < 1000:
		return fmt.Sprintf("%.1f ms", x)
	}
	return fmt.Sprintf("%.1f s", x/1000)
}

func percent(done, total int64) float64 {
	if total <= 0 {
		return 100
	}
	return min(100, 100*float64(done)/float64(total))
}
