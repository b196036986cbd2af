package main

import (
	"os"
	"strings"
	"testing"
)

// TestExitCodesOfTheReference: scripts are written by that page.
func TestExitCodesOfTheReference(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "$ quarxfs help exit-codes\n"+exitHelp()+"\n```") {
		t.Errorf("docs/reference.md lists other exit codes than\n%s", exitHelp())
	}
}
