package main

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

//go:embed words.tsv
var wordsTable string

// wordKinds is where a word of the table may be looked for.
var wordKinds = []string{"package", "type", "func", "var", "part", "text"}

// A word is one that has a better one.
type word struct {
	word    string
	kinds   []string
	instead string
	on      bool // it has been renamed, and must not come back
}

// parseWords reads words.tsv, which describes itself.
func parseWords(table string) ([]word, error) {
	var words []word
	for i, line := range strings.Split(table, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		// A line in another form would otherwise never match, and a word come back unseen.
		if len(f) != 4 || f[3] != "on" && f[3] != "off" {
			return nil, fmt.Errorf("words.tsv:%d: %q: want word, kinds, instead, on or off, with tabs between", i+1, line)
		}
		w := word{word: f[0], kinds: strings.Split(f[1], ","), instead: f[2], on: f[3] == "on"}
		for _, k := range w.kinds {
			if !slices.Contains(wordKinds, k) {
				return nil, fmt.Errorf("words.tsv:%d: %q is none of %v", i+1, k, wordKinds)
			}
		}
		words = append(words, w)
	}
	return words, nil
}

// An index has, by kind and word, where the word is used: path:line.
type index map[string]map[string][]string

func newIndex(files []*file) index {
	ix := make(index)
	for _, f := range files {
		if f.ast != nil {
			ix.code(f)
			continue
		}
		for i, line := range strings.Split(string(f.text), "\n") {
			ix.prose(line, fmt.Sprintf("%s:%d", f.path, i+1))
		}
	}
	return ix
}

// code adds what a file declares, as a name is used where it is declared or is of another tree.
func (ix index) code(f *file) {
	at := func(pos token.Pos) string { return fmt.Sprintf("%s:%d", f.path, f.line(pos)) }
	declare := func(kind string, e ast.Expr) {
		id, ok := e.(*ast.Ident)
		if !ok {
			return
		}
		ix.add(kind, id.Name, at(id.Pos()))
		for _, p := range parts(id.Name) {
			ix.add("part", p, at(id.Pos()))
		}
	}
	tags := make(map[*ast.BasicLit]bool) // a field is visited before its tag
	declare("package", f.ast.Name)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			declare("type", n.Name)
		case *ast.FuncDecl:
			declare("func", n.Name)
		case *ast.Field: // of a struct, an interface, parameters, results, a receiver
			if n.Tag != nil {
				tags[n.Tag] = true
			}
			for _, id := range n.Names {
				declare(map[bool]string{true: "func", false: "var"}[isFunc(n.Type)], id)
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				declare("var", id)
			}
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if n.Tok == token.DEFINE {
					declare("var", e)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				declare("var", n.Key)
				declare("var", n.Value)
			}
		case *ast.BasicLit:
			// A tag names a member of a format, which stays as it is whatever the field is called.
			if s, err := strconv.Unquote(n.Value); err == nil && !tags[n] {
				ix.prose(s, at(n.Pos()))
			}
		}
		return true
	})
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			ix.prose(c.Text, at(c.Pos()))
		}
	}
}

func isFunc(e ast.Expr) bool {
	_, ok := e.(*ast.FuncType)
	return ok
}

var proseWord = regexp.MustCompile(`[A-Za-z]+`)

func (ix index) prose(s, at string) {
	for _, w := range proseWord.FindAllString(s, -1) {
		ix.add("text", strings.ToLower(w), at)
	}
}

func (ix index) add(kind, word, at string) {
	if ix[kind] == nil {
		ix[kind] = make(map[string][]string)
	}
	ix[kind][word] = append(ix[kind][word], at)
}

// parts splits a name at its capitals: takeOff is take and off, ParseURL parse and url.
func parts(name string) []string {
	var list []string
	r := []rune(name)
	begin := 0
	for i := 1; i <= len(r); i++ {
		if i == len(r) || r[i] == '_' ||
			unicode.IsUpper(r[i]) && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			if p := strings.Trim(string(r[begin:i]), "_"); p != "" {
				list = append(list, strings.ToLower(p))
			}
			begin = i
		}
	}
	return list
}

// uses returns where a word is still used.
func (ix index) uses(w word) []string {
	var at []string
	for _, kind := range w.kinds {
		at = append(at, ix[kind][w.word]...)
	}
	slices.Sort(at)
	return slices.Compact(at)
}
