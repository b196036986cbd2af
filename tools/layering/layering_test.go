package layering

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/quarxtor/quarxfs"

func TestModuleKeepsToTheDrawing(t *testing.T) {
	imports, err := Imports("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) == 0 {
		t.Fatal("found no imports at all: the walk is broken")
	}
	for _, line := range Check(module, Drawing(), imports) {
		t.Error(line)
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		imp   Import
		wrong string // "" is allowed
	}{
		{"drawn arrow", Import{"store", module + "/tiering", false}, ""},
		{"inside a layer", Import{"tiering", module + "/tiering/disk", false}, ""},
		{"inner package along its layer's arrow", Import{"tiering/disk/faultdisk", module + "/tiering/segment", false}, ""},
		{"wiring", Import{"cmd/quarxfs", module + "/tiering/segment", false}, ""},
		{"standard library", Import{"store", "os", false}, ""},
		{"fuse in the mount", Import{"fs", "github.com/hanwen/go-fuse/v2/fuse", false}, ""},
		{"http in remote", Import{"remote", "net/http", false}, ""},
		{"name that only begins alike", Import{"store", "net/httpx", false}, ""},
		{"test skips layers", Import{"fs", module + "/store", true}, ""},

		{"code skips a layer", Import{"fs", module + "/store", false}, "no arrow from fs to store"},
		{"call up", Import{"store", module + "/graph", false}, "no arrow from store to graph"},
		{"call up from the bottom", Import{"tiering/segment", module + "/tiering", false}, "no arrow from tiering/segment to tiering"},
		{"sideways", Import{"store/db", module + "/store/chunk", false}, "no arrow from store/db to store/chunk"},
		{"part of the layer above", Import{"tiering/segment", module + "/tiering/disk", false}, "no arrow from tiering/segment to tiering"},
		{"test looks up", Import{"store", module + "/fs/volume", true}, "no arrow from store to fs/volume"},
		{"anything to tools", Import{"cmd/quarxfs", module + "/tools/bench/fs", false}, "no arrow from cmd/quarxfs to tools"},
		{"test to tools", Import{"fs", module + "/tools/serve", true}, "no arrow from fs to tools"},
		{"cobra below the surface", Import{"store", "github.com/spf13/cobra", false}, "may not know of github.com/spf13/cobra"},
		{"http below the surface", Import{"tiering", "net/http", false}, "may not know of net/http"},
		{"part of http", Import{"store/chunk", "net/http/httputil", false}, "may not know of net/http"},
		{"fuse below the surface, in a test", Import{"store/db", "github.com/hanwen/go-fuse/v2/fuse", true}, "may not know of github.com/hanwen/go-fuse"},
		{"etcd in its layer", Import{"remote/cluster/etcd", "go.etcd.io/etcd/client/v3", false}, ""},
		{"etcd beside its layer", Import{"remote/cluster/agent", "go.etcd.io/etcd/client/v3", false}, "may not know of go.etcd.io"},
		{"grpc in the program", Import{"cmd/quarxfs", "google.golang.org/grpc", false}, "may not know of google.golang.org/grpc"},
		{"etcd in the program, by a package of ours", Import{"cmd/quarxfs-node", module + "/remote/cluster/etcd", false}, "no arrow"},
		{"importer without a layer", Import{"internal/util", "os", false}, "belongs to no layer"},
		{"importer without a layer, beside one", Import{"storeutil", "os", false}, "belongs to no layer"},
		{"imported without a layer", Import{"store", module + "/internal/util", false}, "belongs to no layer"},
		{"package in the root", Import{".", "os", false}, "belongs to no layer"},
		{"import of the root", Import{"store", module, false}, "belongs to no layer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(Check(module, Drawing(), []Import{tc.imp}), "\n")
			if tc.wrong == "" && got != "" {
				t.Errorf("allowed import reported: %s", got)
			}
			if tc.wrong != "" && !strings.Contains(got, tc.wrong) {
				t.Errorf("got %q, want it to say %q", got, tc.wrong)
			}
		})
	}
}

// The walk must see a wrong arrow wherever the compiler might: under a build
// tag, in a test, and not in testdata.
func TestImportsOfATree(t *testing.T) {
	root := t.TempDir()
	write := func(name, body string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("store/tagged.go", "//go:build plan9\n\npackage store\n\nimport _ \""+module+"/graph\"\n")
	write("store/store_test.go", "package store_test\n\nimport renamed \""+module+"/fs\"\n")
	write("store/testdata/x.go", "package x\n\nimport \""+module+"/remote\"\n")

	imports, err := Imports(root)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(Check(module, Drawing(), imports), "\n")
	want := "store (test) -> " + module + "/fs: no arrow from store to fs\n" +
		"store -> " + module + "/graph: no arrow from store to graph"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
