package main

import (
	"flag"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite wide.tsv with what is left")

func project(t *testing.T) []*file {
	t.Helper()
	files, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("found %d files: the walk is broken", len(files))
	}
	return files
}

// TestWords fails for a word that came back, and for one that is gone and not yet kept out. With
// -v it tells where the others are.
func TestWords(t *testing.T) {
	words, err := parseWords(wordsTable)
	if err != nil {
		t.Fatal(err)
	}
	// This directory has to name what it looks for.
	files := slices.DeleteFunc(project(t), func(f *file) bool { return f.under("tools/house/") })
	ix := newIndex(files)
	for _, w := range words {
		at := ix.uses(w)
		some := strings.Join(at[:min(8, len(at))], " ")
		switch {
		case w.on && len(at) > 0:
			t.Errorf("%q in %s, %d times: say %s", w.word, some, len(at), w.instead)
		case !w.on && len(at) == 0:
			t.Errorf("%q is gone: switch it on in words.tsv", w.word)
		case !w.on:
			t.Logf("%q (%s) still %d times: %s", w.word, w.instead, len(at), some)
		}
	}
}

func TestWideLines(t *testing.T) {
	allowed, err := parseWide(wideTable)
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[string]int)
	for _, f := range project(t) {
		wide := wideLines(f)
		if n := allowed[f.path]; len(wide) > n && !*update {
			t.Errorf("%s has lines that are too wide, %d more than in wide.tsv: %v", f.path, len(wide)-n, wide)
		}
		left[f.path] = min(len(wide), allowed[f.path])
	}
	for path := range allowed {
		if left[path] == 0 && !*update {
			t.Errorf("%s has no wide lines any more: go test ./tools/house -update", path)
		}
	}
	if *update {
		if err := os.WriteFile("wide.tsv", []byte(formatWide(left)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSizes keeps types small enough to hold in mind, and functions from being bare of reasons.
func TestSizes(t *testing.T) {
	f := measure(slices.DeleteFunc(project(t), func(f *file) bool { return f.ast == nil }))
	for _, limit := range []struct {
		what   string
		counts map[string]int
		most   int
	}{
		{"methods", f.methods, 90},
		{"fields", f.fields, 20},
	} {
		for name, n := range limit.counts {
			if n > limit.most {
				t.Errorf("%s has %d %s, more than %d: split it by purpose", name, n, limit.what, limit.most)
			}
		}
	}
	if got := ratio(100*f.comments, f.bodies); got < 5 {
		t.Errorf("%.1f of 100 lines in functions have a comment, and at least 5 are to: say why where the code does not", got)
	}
	if got := ratio(100*f.bare, f.long); got > 30 {
		t.Errorf("%.0f %% of the functions of %d lines or more have no comment inside, and at most 30 %% are to", got, longFunction)
	}
}

func TestLinks(t *testing.T) {
	for _, bad := range badLinks("../..", project(t)) {
		t.Error(bad)
	}
}

// TestWhereIs sees that the table for newcomers in CONTRIBUTING is true.
func TestWhereIs(t *testing.T) {
	bad, answers := badAnswers(project(t))
	for _, b := range bad {
		t.Error(b)
	}
	if answers < 12 {
		t.Errorf("%d answers: the table cannot be read", answers)
	}
}

func TestBadAnswers(t *testing.T) {
	code := goFile(t, "a/b.go", "package a\n\ntype T struct{}\n\nfunc (t *T) M() {}\n\nfunc F() {}\n\nvar v, w int\n")
	page := &file{path: whereIs, text: []byte("# C\n\n## Where is\n\n| question | answer |\n|---|---|\n" +
		"| good | `a/b.go`: `T.M`, `F`; then `a/b.go`: `w`, `T` |\n| bad | `a/b.go`: `M`, `T.F` or `a/c.go`: `F` |\n| none | who knows |\n")}
	got, answers := badAnswers([]*file{code, page})
	want := []string{"a/b.go has no M", "a/b.go has no T.F", "a/c.go is not there", "no file and name in: | none | who knows |\n"}
	if !slices.Equal(got, want) || answers != 2 {
		t.Errorf("got %q of %d answers, want %q", got, answers, want)
	}
}

func goFile(t *testing.T, path, text string) *file {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return &file{path: path, text: []byte(text), set: set, ast: parsed}
}

func TestMeasure(t *testing.T) {
	const text = `package p

// T is documented.
type T[K any] struct {
	a, b int
	error
}

type U struct{}

func (t *T[K]) M(in int) (out int) {
	// why
	for i, v := range "x" {
		out += i + int(v) // twice
	}
	return out
}

func bare() {
	var name = 1
	_ = name
` + "\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n\t_ = 2\n}\n"
	f := measure([]*file{goFile(t, "d/p.go", text), goFile(t, "d/p_test.go", text)})
	for _, tc := range []struct {
		what      string
		got, want int
	}{
		{"lines of bodies", f.bodies, 5 + 18},
		{"of them with a comment", f.comments, 2},
		{"functions", f.functions, 2},
		{"long ones", f.long, 1},
		{"without a comment", f.bare, 1},
		{"local names", f.locals, 6}, // t, in, out, i, v, name
		{"of one letter", f.short, 3},
		{"letters", f.letters, 12},
		{"methods", f.methods["d.T"], 1},
		{"fields", f.fields["d.T"], 3},
		{"exported", f.exported, 3},
		{"documented", f.documented, 1},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.what, tc.got, tc.want)
		}
	}
}

func TestIndex(t *testing.T) {
	code := goFile(t, "x.go", `package past

// Prose has Words.
type Keeper struct{ gate int "json:\"mourner\"" }

func (k *Keeper) takeOff(run func()) { flying, HTTPFold := "in the keepers", 1; _, _ = flying, HTTPFold; run() }
`)
	page := &file{path: "p.md", text: []byte("first\na ghost-like thing\n")}
	ix := newIndex([]*file{code, page})
	for _, tc := range []struct {
		word, kinds, want string
	}{
		{"past", "package", "x.go:1"},
		{"Keeper", "type", "x.go:4"},
		{"keeper", "part", "x.go:4"},
		{"gate", "var", "x.go:4"},
		{"takeOff", "func", "x.go:6"},
		{"take", "part", "x.go:6"},
		{"run", "func", "x.go:6"},
		{"run", "var", ""},
		{"fold", "part", "x.go:6"},
		{"http", "part", "x.go:6"},
		{"words", "text", "x.go:3"},
		{"keepers", "text", "x.go:6"},
		{"ghost", "text", "p.md:2"},
		{"ghost,", "part", ""},
		{"mourner", "text", ""},
	} {
		if got := strings.Join(ix.uses(word{word: tc.word, kinds: []string{tc.kinds}}), " "); got != tc.want {
			t.Errorf("%s as %s: got %q, want %q", tc.word, tc.kinds, got, tc.want)
		}
	}
	for _, bad := range []string{"a\tpart\tb", "a\tpart\tb\tmaybe", "a\tverb\tb\ton"} {
		if _, err := parseWords(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestWideLinesOfAFile(t *testing.T) {
	long := strings.Repeat("x", 130)
	page := &file{path: "p.md", text: []byte("short\n" + long + "\n| " + long + "\n```\n" + long + "\n```\n" + long)}
	if got := wideLines(page); !slices.Equal(got, []int{2, 7}) {
		t.Errorf("page: %v", got)
	}
	code := goFile(t, "x.go", "package p\n\n// "+long+"\nvar a = `"+long+"`\nvar b = `"+long+long+"`\n")
	if got := wideLines(code); !slices.Equal(got, []int{3, 5}) {
		t.Errorf("code: %v", got)
	}
	if counts, err := parseWide(formatWide(map[string]int{"b": 2, "a": 1, "c": 0})); err != nil || len(counts) != 2 || counts["b"] != 2 {
		t.Errorf("%v, %v", counts, err)
	}
}

func TestLinksOfAPage(t *testing.T) {
	root := t.TempDir()
	text := "# One *Two*: `three`\n[a](q.md) [b](#one-two-three) [c](https://x.org/y) `[d](none)`\n" +
		"[e](none.md)\n[f](#none) [g](q.md#there)\n`fs/none.go` `fs/` `fs.Mount` `fs/x.Name`\n"
	for name, content := range map[string]string{"p.md": text, "q.md": "```\n# no\n```\n## There\n", "fs/x": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	want := "p.md:3: none.md: no such file\np.md:4: #none: no such heading\np.md:5: fs/none.go is not there"
	if got := strings.Join(badLinks(root, files), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
