package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A file is one of Go, or of text, with its path from the tree's root.
type file struct {
	path string
	text []byte
	set  *token.FileSet
	ast  *ast.File // nil: not Go
}

func (f *file) test() bool               { return strings.HasSuffix(f.path, "_test.go") }
func (f *file) dir() string              { return filepath.Dir(f.path) }
func (f *file) line(pos token.Pos) int   { return f.set.Position(pos).Line }
func (f *file) lines() int               { return bytes.Count(f.text, []byte("\n")) }
func (f *file) isDoc() bool              { return strings.HasSuffix(f.path, ".md") }
func (f *file) under(prefix string) bool { return strings.HasPrefix(f.path, prefix) }

// read returns the Go files and the pages of a tree.
func read(root string) ([]*file, error) {
	var files []*file
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// The root may itself be called by a name that is skipped below it, or by a dot.
			if name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "vendor" || d.Name() == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		isGo := strings.HasSuffix(name, ".go")
		if !isGo && !strings.HasSuffix(name, ".md") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f := &file{path: filepath.ToSlash(path), text: text, set: set}
		if isGo {
			// Without resolving names, which nothing here asks for.
			if f.ast, err = parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
				return err
			}
		}
		files = append(files, f)
		return nil
	})
	return files, err
}
