package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/internal/buildinfo"
	"github.com/quarxtor/quarxfs/store"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the program's version and the format that it writes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("quarxfs %s, store format %d, %s\n", buildinfo.Version(), store.FormatVersion, runtime.Version())
}
