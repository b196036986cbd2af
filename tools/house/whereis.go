package main

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// whereIs is the page that tells a newcomer where things are.
const whereIs = "CONTRIBUTING.md"

var (
	// A file and the names in it, as `a/b.go`: `Type.Method`, `Func`.
	answer     = regexp.MustCompile("`([\\w./-]+\\.go)`: (`[\\w.]+`(?:, `[\\w.]+`)*)")
	answerName = regexp.MustCompile("`([\\w.]+)`")
)

// badAnswers checks the table of whereIs: each answer names a file and a declaration in it. It
// returns what is wrong, and how many answers there are.
func badAnswers(files []*file) (bad []string, answers int) {
	byPath := make(map[string]*file)
	for _, f := range files {
		byPath[f.path] = f
	}
	page := byPath[whereIs]
	if page == nil {
		return []string{whereIs + " is not there"}, 0
	}
	_, table, _ := strings.Cut(string(page.text), "\n## Where is\n")
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| question ") {
			continue
		}
		found := answer.FindAllStringSubmatch(line, -1)
		if len(found) == 0 {
			bad = append(bad, "no file and name in: "+line)
			continue
		}
		// Counted, so that a table that no longer parses does not pass for one without faults.
		answers++
		for _, m := range found {
			f := byPath[m[1]]
			if f == nil || f.ast == nil {
				bad = append(bad, m[1]+" is not there")
				continue
			}
			for _, name := range answerName.FindAllStringSubmatch(m[2], -1) {
				if !declares(f.ast, name[1]) {
					bad = append(bad, fmt.Sprintf("%s has no %s", m[1], name[1]))
				}
			}
		}
	}
	return bad, answers
}

// declares reports whether a file declares a name: a function, variable, type, or as Type.Method.
func declares(tree *ast.File, name string) bool {
	typeName, method, isMethod := strings.Cut(name, ".")
	for _, d := range tree.Decls {
		// By syntax alone, which needs no other package to be read.
		switch d := d.(type) {
		case *ast.FuncDecl:
			switch {
			case d.Recv == nil && d.Name.Name == name:
				return true
			case isMethod && d.Recv != nil && d.Name.Name == method && receiver(d.Recv.List[0].Type) == typeName:
				return true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.Name == name {
						return true
					}
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.Name == name {
							return true
						}
					}
				}
			}
		}
	}
	return false
}
