package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan = regexp.MustCompile("`[^`]*`")
	goName   = regexp.MustCompile(`\.[A-Z]\w*$`)         // behind a package
	fileSpan = regexp.MustCompile("`([a-z0-9_]+\\.go)`") // a file's name without its path
	pathSpan = regexp.MustCompile("`((?:cmd|docs|fs|graph|remote|store|tiering|tools)/[\\w./@-]+)`")
)

// badLinks returns the links of pages that lead nowhere, and the paths and Go files that they name
// and that are not there.
func badLinks(root string, files []*file) []string {
	anchors := make(map[string]map[string]bool)
	goFiles := make(map[string]bool)
	for _, f := range files {
		if f.ast != nil {
			goFiles[path.Base(f.path)] = true
		}
		// All headings first, as a page may link to one that is read later.
		if f.isDoc() {
			anchors[f.path] = anchorsOf(string(f.text))
		}
	}
	var bad []string
	for _, f := range files {
		if !f.isDoc() {
			continue
		}
		for i, line := range strings.Split(string(f.text), "\n") {
			wrong := func(what string) { bad = append(bad, fmt.Sprintf("%s:%d: %s", f.path, i+1, what)) }
			for _, m := range pathSpan.FindAllStringSubmatch(line, -1) {
				// `store.Open` in a path is a package and a name in it; only the package is a
				// directory.
				name := goName.ReplaceAllString(m[1], "")
				if _, err := os.Stat(filepath.Join(root, name)); err != nil {
					wrong(m[1] + " is not there")
				}
			}
			// Code spans away first: what looks like a link in one is none.
			for _, m := range fileSpan.FindAllStringSubmatch(line, -1) {
				if !goFiles[m[1]] {
					wrong(m[1] + ": no file of that name")
				}
			}
			for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				target, anchor, hasAnchor := strings.Cut(m[1], "#")
				page := f.path
				if target != "" {
					page = path.Join(path.Dir(f.path), target)
				}
				if _, err := os.Stat(filepath.Join(root, page)); err != nil {
					wrong(m[1] + ": no such file")
				} else if hasAnchor && !anchors[page][anchor] {
					wrong(m[1] + ": no such heading")
				}
			}
		}
	}
	return bad
}

// anchorsOf makes an anchor of each heading as GitHub does.
func anchorsOf(text string) map[string]bool {
	anchors := make(map[string]bool)
	literal := false
	for line := range strings.Lines(text) {
		// A comment in a shell script begins with the sign of a heading.
		if strings.HasPrefix(line, "```") {
			literal = !literal
		}
		if literal || !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.TrimSpace(strings.TrimLeft(line, "#"))
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, heading)] = true
	}
	return anchors
}
