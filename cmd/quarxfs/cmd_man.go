package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// addExitStatus ends the description of each command with what exitFooter says in its help.
func addExitStatus(c *cobra.Command) {
	for _, sub := range c.Commands() {
		addExitStatus(sub)
	}
	// cobra takes Short for a description only where there is nothing else.
	if c.Long == "" {
		c.Long = c.Short
	}
	if c.HasParent() && c.RunE != nil {
		c.Long += "\n\n# EXIT STATUS\n" + exitNote + " **quarxfs-exit-codes**(7) lists them."
	}
}

// newMan makes the hidden command that packages are built with.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of all commands to a directory",
		Hidden: true,
		RunE:   func(cmd *cobra.Command, args []string) error { return writeManual(cmd.Root(), args[0]) },
	}
}

// writeManual writes a page for each command. $SOURCE_DATE_EPOCH dates them, so
// that a package can be built twice with the same bytes.
func writeManual(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	h := &doc.GenManHeader{Section: "1", Source: "QuarXFS", Manual: "QuarXFS"}
	if os.Getenv("SOURCE_DATE_EPOCH") == "" {
		now := time.Now()
		h.Date = &now
	}
	addExitStatus(root)
	if err := doc.GenManTree(root, h, dir); err != nil {
		return err
	}
	for _, c := range topics() {
		// cobra has no pages of topics, which have no command to run; section 7 is for them.
		page, err := os.Create(filepath.Join(dir, "quarxfs-"+c.Name()+".7"))
		if err != nil {
			return err
		}
		about := doc.GenManHeader{Title: "QUARXFS-" + strings.ToUpper(c.Name()), Section: "7", Source: h.Source, Manual: h.Manual, Date: h.Date}
		c.Use, c.DisableAutoGenTag = "quarxfs-"+c.Use, true
		if err := errors.Join(doc.GenMan(c, &about, page), page.Close()); err != nil {
			return err
		}
	}
	for _, name := range []string{mountHelper, umountHelper} {
		command, _, _ := strings.Cut(name, ".")
		link := fmt.Sprintf(".so man1/quarxfs-%s.1\n", command)
		if err := os.WriteFile(filepath.Join(dir, name+".8"), []byte(link), 0o644); err != nil {
			return err
		}
	}
	return nil
}
