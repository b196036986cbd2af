// Command house measures how the code of a tree is written: comments inside of functions, names,
// sizes of types, commit subjects. Its test keeps out words that have a better one (words.tsv) and
// lines that are too wide (wide.tsv), and follows the links of the docs.
package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var commits string
	cmd := &cobra.Command{
		Use:   "house [DIR]",
		Short: "Measure how the code of a tree is written",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := append(args, ".")[0]
			files, err := goFiles(root)
			if err != nil {
				return err
			}
			if len(files) == 0 {
				return fmt.Errorf("no Go files in %s", root)
			}
			f := measure(files)
			return f.print(cmd.OutOrStdout(), longSubjects(root, commits))
		},
	}
	cmd.Flags().StringVar(&commits, "commits", "", "`range` of commits whose subjects are looked at, such as v1.0..; all if empty")
	return cmd
}

func goFiles(root string) (goFiles []*file, err error) {
	files, err := read(root)
	for _, f := range files {
		if f.ast != nil {
			goFiles = append(goFiles, f)
		}
	}
	return goFiles, err
}
