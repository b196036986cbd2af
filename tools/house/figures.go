package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"io"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
)

// figures are what is measured of a tree of Go code, tests left out.
type figures struct {
	bodies, comments       int            // lines of function bodies, and those of them that have a comment
	long, bare             int            // functions of longFunction lines or more; those without a comment inside
	locals, letters, short int            // declarations of local names, their letters, those of one letter
	methods, fields        map[string]int // by type, with its package's directory
	functions, over60      int
	exported, documented   int
	files                  map[string]int // lines by file
}

// longFunction is how many lines, with those of its braces, a function has that should say why.
const longFunction = 20

func measure(files []*file) figures {
	f := figures{methods: make(map[string]int), fields: make(map[string]int), files: make(map[string]int)}
	for _, src := range files {
		if src.test() {
			continue
		}
		f.files[src.path] = src.lines()
		for _, d := range src.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				f.function(src, d)
			case *ast.GenDecl:
				f.declaration(src, d)
			}
		}
	}
	return f
}

func (f *figures) function(src *file, d *ast.FuncDecl) {
	if d.Recv != nil {
		f.methods[src.dir()+"."+receiver(d.Recv.List[0].Type)]++
	}
	if d.Name.IsExported() {
		f.export(d.Doc != nil)
	}
	for _, names := range []*ast.FieldList{d.Recv, d.Type.Params, d.Type.Results} {
		f.parameters(names)
	}
	if d.Body == nil {
		return
	}
	f.functions++
	from, to := src.line(d.Body.Lbrace), src.line(d.Body.Rbrace)
	inside := make(map[int]bool) // lines with a comment
	for _, group := range src.ast.Comments {
		// Of comments on the body's own lines only; the one above the function is counted
		// elsewhere.
		if group.Pos() > d.Body.Lbrace && group.End() <= d.Body.Rbrace {
			for l := src.line(group.Pos()); l <= src.line(group.End()); l++ {
				inside[l] = true
			}
		}
	}
	f.bodies += max(0, to-from-1)
	f.comments += len(inside)
	if to-from+1 > 60 {
		f.over60++
	}
	if to-from+1 >= longFunction {
		f.long++
		if len(inside) == 0 {
			f.bare++
		}
	}
	ast.Inspect(d.Body, f.local)
}

// local counts the names that a node declares inside a function.
func (f *figures) local(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.AssignStmt:
		// Plain assignments name nothing new.
		if n.Tok == token.DEFINE {
			for _, e := range n.Lhs {
				f.name(e)
			}
		}
	case *ast.RangeStmt:
		if n.Tok == token.DEFINE {
			f.name(n.Key)
			f.name(n.Value)
		}
	case *ast.ValueSpec:
		for _, id := range n.Names {
			f.name(id)
		}
	case *ast.FuncLit:
		f.parameters(n.Type.Params)
		f.parameters(n.Type.Results)
	}
	return true
}

func (f *figures) parameters(list *ast.FieldList) {
	if list == nil {
		return
	}
	for _, field := range list.List {
		for _, id := range field.Names {
			f.name(id)
		}
	}
}

func (f *figures) name(e ast.Expr) {
	id, ok := e.(*ast.Ident)
	if !ok || id.Name == "_" {
		return
	}
	f.locals++
	f.letters += len(id.Name)
	if len(id.Name) == 1 {
		f.short++
	}
}

func (f *figures) declaration(src *file, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			// A comment on the group counts for each type of it, as godoc shows it.
			if s.Name.IsExported() {
				f.export(d.Doc != nil || s.Doc != nil)
			}
			if st, ok := s.Type.(*ast.StructType); ok {
				n := 0
				for _, field := range st.Fields.List {
					// An embedded field has no name of its own.
					n += max(1, len(field.Names))
				}
				f.fields[src.dir()+"."+s.Name.Name] = n
			}
		case *ast.ValueSpec:
			if slices.ContainsFunc(s.Names, (*ast.Ident).IsExported) {
				f.export(d.Doc != nil || s.Doc != nil || s.Comment != nil)
			}
		}
	}
}

func (f *figures) export(documented bool) {
	f.exported++
	if documented {
		f.documented++
	}
}

// receiver names a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

func (f *figures) print(out io.Writer, subjects string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what, format string, v ...any) { fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, v...)) }
	row("comment lines per 100 lines of function bodies", "%.1f", ratio(100*f.comments, f.bodies))
	row(fmt.Sprintf("functions of %d lines or more without any inner comment", longFunction), "%.0f %% of %d", ratio(100*f.bare, f.long), f.long)
	row("mean length of a local name; of one letter", "%.1f; %.0f %%", ratio(f.letters, f.locals), ratio(100*f.short, f.locals))
	row("most methods on one type", "%s", most(f.methods, 5))
	row("most fields of one type", "%s", most(f.fields, 5))
	row("functions over 60 lines", "%.1f %% of %d", ratio(100*f.over60, f.functions), f.functions)
	row("longest files, lines", "%s", most(f.files, 3))
	row("exported names with a comment", "%.0f %% of %d", ratio(100*f.documented, f.exported), f.exported)
	row("commit subjects over 72 characters", "%s", subjects)
	return w.Flush()
}

func ratio(a, b int) float64 { return float64(a) / float64(max(1, b)) }

// most lists the n largest.
func most(counts map[string]int, n int) string {
	type count struct {
		name string
		n    int
	}
	var list []count
	for name, c := range counts {
		list = append(list, count{name, c})
	}
	slices.SortFunc(list, func(a, b count) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	var parts []string
	for _, c := range list[:min(n, len(list))] {
		parts = append(parts, fmt.Sprintf("%d (%s)", c.n, c.name))
	}
	return strings.Join(parts, ", ")
}

// longSubjects tells how many commits of a range, or of all, have a subject that lists cut off.
func longSubjects(root, commits string) string {
	args := []string{"-C", root, "log", "--no-merges", "--format=%s"}
	if commits != "" {
		args = append(args, commits)
	}
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	long, all := 0, 0
	for subject := range strings.Lines(string(out)) {
		all++
		if len([]rune(strings.TrimSuffix(subject, "\n"))) > 72 {
			long++
		}
	}
	return fmt.Sprintf("%.0f %% of %d", ratio(100*long, all), all)
}
