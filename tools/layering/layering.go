// Package layering keeps the module's imports to the arrows that the design
// draws. Its test walks the source of the whole module and fails on any other.
package layering

import (
	"cmp"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Rule says what one layer may import. A layer is a directory of the module
// with all below it that is not a layer of its own; imports inside a layer are
// free.
type Rule struct {
	Layer   string
	Imports []string // layers; "*" is any but tools
	Tests   []string // layers that its tests look at what it has made with
	Shuns   []string // import paths from elsewhere, each with all below it
}

// surface lists what only the command line, the mount and the network may
// know of.
var surface = []string{
	"github.com/hanwen/go-fuse",
	"github.com/spf13/cobra",
	"net/http",
}

// Drawing returns the arrows of docs/design.md, "Layout and arrows". An arrow
// is added there first.
func Drawing() []Rule {
	return []Rule{
		{Layer: "cmd/quarxfs", Imports: []string{"*"}},
		{Layer: "cmd/quarxfs/internal/daemon", Imports: []string{
			"cmd/quarxfs/internal/localnode", "cmd/quarxfs/internal/mounts", "cmd/quarxfs/internal/termlog", "fs", "fs/meta", "fs/snapfs", "fs/volume",
			"graph", "remote", "remote/cluster/carrier", "remote/cluster/mirrored", "remote/serve", "remote/snapread", "remote/transfer", "store", "store/config",
			"store/handle", "store/owner", "store/routine", "tiering", "tiering/pressure",
		}, Shuns: []string{"github.com/spf13/cobra"}},
		{Layer: "cmd/quarxfs/internal/localnode", Imports: []string{
			"cmd/quarxfs/internal/mounts", "fs/fsck", "fs/meta", "fs/rows", "fs/volume", "graph", "remote", "store", "tiering/also",
		}},
		{Layer: "cmd/quarxfs/internal/mounts", Imports: []string{"graph"}},
		{Layer: "cmd/quarxfs/internal/termlog"},
		{Layer: "fs", Imports: []string{"fs/transport", "fs/volume"}},
		{Layer: "fs/transport"},
		{Layer: "fs/snapfs", Imports: []string{"fs", "graph", "store", "store/vertex"}},
		{Layer: "fs/volume", Imports: []string{
			"fs/meta", "fs/rows", "graph", "store", "store/config", "store/routine", "store/vertex", "tiering/also",
		}, Tests: []string{"fs/fsck"}},
		{Layer: "fs/fsck", Imports: []string{"fs/meta", "fs/rows", "graph", "store"}},
		{Layer: "fs/rows", Imports: []string{"fs/meta", "graph", "store"}},
		{Layer: "fs/meta", Imports: []string{"store/db"}},
		{Layer: "remote", Imports: []string{
			"graph", "graph/query", "store", "store/config", "store/durable", "store/handle", "store/routine", "store/vertex", "tiering/keyfile",
		}},
		{Layer: "remote/snapread", Imports: []string{"graph", "remote", "store", "store/config", "store/durable", "store/handle"}},
		{Layer: "remote/transfer", Imports: []string{"graph", "remote", "store", "store/config"}},
		{Layer: "cmd/quarxfs-node", Imports: []string{"cmd/internal/buildinfo", "remote/cluster", "remote/cluster/agent", "remote/cluster/etcd/embedded"}},
		{Layer: "cmd/internal/buildinfo"},
		{Layer: "remote/cluster", Imports: []string{"remote", "remote/cluster/mirror", "store", "store/chunk"}},
		{Layer: "remote/cluster/agent", Imports: []string{
			"remote", "remote/cluster", "remote/cluster/carrier", "remote/cluster/control", "remote/cluster/etcd", "remote/cluster/home", "remote/cluster/mirror",
			"remote/cluster/place", "remote/cluster/vault", "remote/transfer", "store", "store/db", "store/durable", "store/routine",
		},
			Tests: []string{"remote/cluster/etcd/embedded", "remote/cluster/mirrored"}},
		{Layer: "remote/cluster/etcd", Imports: []string{"remote/cluster"}},
		{Layer: "remote/cluster/etcd/embedded", Imports: []string{"remote/cluster/etcd"}},
		{Layer: "remote/cluster/vault", Imports: []string{"remote", "remote/cluster", "store", "store/durable"}, Tests: []string{"remote/transfer"}},
		{Layer: "remote/cluster/mirror", Shuns: surface},
		{Layer: "remote/cluster/carrier", Imports: []string{"remote/cluster/mirror", "store/db", "store/durable", "tiering"}, Tests: []string{"store"}, Shuns: surface},
		{Layer: "remote/cluster/mirrored", Imports: []string{"remote/cluster", "remote/cluster/carrier", "remote/cluster/mirror", "store/db"}},
		{Layer: "remote/cluster/home", Imports: []string{
			"remote", "remote/cluster", "remote/cluster/vault", "remote/transfer", "store", "store/config", "store/durable", "store/handle", "store/routine",
		}},
		{Layer: "remote/cluster/place", Shuns: surface},
		{Layer: "remote/cluster/control", Imports: []string{"remote/cluster", "remote/cluster/place"}, Shuns: surface},
		{Layer: "remote/cluster/sim", Imports: []string{"remote/cluster/mirror"}, Shuns: surface},
		{Layer: "graph", Imports: []string{"store", "store/config", "store/vertex"}},
		{Layer: "graph/query", Imports: []string{"graph", "store", "store/vertex"}},
		{Layer: "store", Imports: []string{
			"store/chunk", "store/config", "store/db", "store/durable", "store/errs", "store/handle", "store/routine", "store/vertex", "tiering", "tiering/latency", "tiering/s3",
		}, Shuns: surface},
		{Layer: "store/chunk", Shuns: surface},
		{Layer: "store/db", Imports: []string{"store/routine", "tiering/latency"}, Shuns: surface},
		{Layer: "store/errs", Imports: []string{"store/db", "store/handle"}, Shuns: surface},
		{Layer: "store/vertex", Imports: []string{"store/chunk", "store/errs", "tiering"}, Shuns: surface},
		{Layer: "store/durable", Shuns: surface},
		{Layer: "store/config", Imports: []string{"store/db", "store/durable", "store/errs", "tiering"}, Shuns: surface},
		{Layer: "store/handle", Shuns: surface},
		{Layer: "store/owner", Imports: []string{"store/handle"}, Shuns: surface},
		{Layer: "store/routine", Shuns: surface},
		{Layer: "tiering", Imports: []string{"tiering/also", "tiering/segment", "tiering/latency"}, Shuns: surface},
		{Layer: "tiering/also", Shuns: surface},
		{Layer: "tiering/latency", Shuns: surface},
		{Layer: "tiering/pressure", Shuns: surface},
		{Layer: "tiering/keyfile"},
		{Layer: "tiering/s3", Imports: []string{"tiering", "tiering/keyfile"}}, // is a client of HTTP
		{Layer: "tiering/segment", Shuns: surface},
		{Layer: "tools"},
		{Layer: "tools/bench/scale", Imports: []string{"fs/volume", "fs/meta", "store", "tools"}},
		{Layer: "tools/bench/tier", Imports: []string{"store", "store/config", "tiering", "tools"}},
		{Layer: "tools/verify/clustertest", Imports: []string{
			"remote", "remote/cluster", "remote/cluster/etcd", "remote/cluster/etcd/embedded", "remote/cluster/place", "store", "tools",
		}},
	}
}

// etcdLayer, with what is below it, alone knows of etcd: quarxfs is not linked with it, nor with
// gRPC.
const etcdLayer = "remote/cluster/etcd"

var etcdPaths = []string{"go.etcd.io", "google.golang.org/grpc"}

// An Import is one import declaration. Test marks those of _test.go files.
type Import struct {
	Dir  string // of the importing package, slash-separated, relative to the module's root
	Path string
	Test bool
}

func (i Import) String() string {
	if i.Test {
		return fmt.Sprintf("%s (test) -> %s", i.Dir, i.Path)
	}
	return fmt.Sprintf("%s -> %s", i.Dir, i.Path)
}

// Check returns one line for each import that the rules do not allow, sorted.
// Code imports along one arrow. A test also wires up what its package stands
// on, so it may import whatever can be reached along arrows, but it may not
// look up either.
func Check(module string, rules []Rule, imports []Import) []string {
	byLayer := make(map[string]Rule, len(rules))
	for _, r := range rules {
		byLayer[r.Layer] = r
	}
	var wrong []string
	for _, imp := range imports {
		if why := judge(module, byLayer, imp); why != "" {
			wrong = append(wrong, imp.String()+": "+why)
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

func judge(module string, rules map[string]Rule, imp Import) string {
	from, ok := layerOf(rules, imp.Dir)
	if !ok {
		return fmt.Sprintf("%s belongs to no layer of the drawing", imp.Dir)
	}
	if imp.Path != module && !strings.HasPrefix(imp.Path, module+"/") {
		// Cloned: the rules are shared by all imports.
		shuns := rules[from].Shuns
		if !within(from, etcdLayer) {
			shuns = append(slices.Clone(shuns), etcdPaths...)
		}
		for _, s := range shuns {
			if within(imp.Path, s) {
				return fmt.Sprintf("%s may not know of %s", from, s)
			}
		}
		return ""
	}
	dir := strings.TrimPrefix(strings.TrimPrefix(imp.Path, module), "/")
	to, ok := layerOf(rules, dir)
	switch {
	case !ok:
		return fmt.Sprintf("%q belongs to no layer of the drawing", dir)
	case from == to, allowed(rules[from], to):
		return ""
	// A test may reach down along several arrows, since it builds what its package stands on.
	case imp.Test && (slices.Contains(rules[from].Tests, to) || reaches(rules, from, to, map[string]bool{})):
		return ""
	}
	return fmt.Sprintf("no arrow from %s to %s", from, to)
}

// layerOf returns the layer nearest above dir.
func layerOf(rules map[string]Rule, dir string) (string, bool) {
	for ; dir != "." && dir != ""; dir = path.Dir(dir) {
		if _, ok := rules[dir]; ok {
			return dir, true
		}
	}
	return "", false
}

func allowed(r Rule, to string) bool {
	return slices.Contains(r.Imports, to) || to != "tools" && slices.Contains(r.Imports, "*")
}

func reaches(rules map[string]Rule, from, to string, seen map[string]bool) bool {
	if seen[from] {
		return false
	}
	seen[from] = true
	return allowed(rules[from], to) || slices.ContainsFunc(rules[from].Imports, func(next string) bool {
		return reaches(rules, next, to, seen)
	})
}

func within(importPath, prefix string) bool {
	return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
}

// Imports reads the import declarations of all Go files under root, whatever
// their build tags. It opens the files itself, where `go list` would be
// shorter, because the go command reruns a cached test only when a file that
// the test opened has changed.
func Imports(root string) ([]Import, error) {
	var found []Import
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// The root is looked into whatever it is called.
			if name != root && skipped(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		imports, err := fileImports(root, name)
		found = append(found, imports...)
		return err
	})
	slices.SortFunc(found, func(a, b Import) int {
		return cmp.Or(cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Path, b.Path))
	})
	return found, err
}

// skipped tells the directories that the go command leaves out of "./...".
func skipped(dir string) bool {
	return dir == "testdata" || dir == "vendor" || strings.HasPrefix(dir, ".") || strings.HasPrefix(dir, "_")
}

func fileImports(root, name string) ([]Import, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	// No further than the imports, which come before all else in a file.
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Rel(root, filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	imports := make([]Import, 0, len(file.Imports))
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		imports = append(imports, Import{
			Dir:  filepath.ToSlash(dir),
			Path: p,
			Test: strings.HasSuffix(name, "_test.go"),
		})
	}
	return imports, nil
}
