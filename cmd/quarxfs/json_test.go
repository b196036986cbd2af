package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/remote/transfer"
)

var updateShapes = flag.Bool("update-shapes", false, "write testdata/json.golden anew")

// clusterStatusShape has a value in all that may be null.
var clusterStatusShape = health.Judge(health.Facts{AsOf: time.Now(), Volumes: []cluster.Volume{volumeShape}, Repairs: []cluster.Repair{
	{Volume: volumeShape.Name, Node: "n"},
}, Nodes: []health.NodeFacts{
	{
		Node: cluster.Node{Name: "n", Roles: []cluster.Role{""}}, DownSince: new(time.Time), Heard: new(time.Time),
		Said: &health.Answer{
			Homes:  []health.Home{{ID: "v", Online: true, Pushes: []health.Push{{Vault: "n", Moved: new(time.Time)}}}},
			Copies: []health.Copy{{ID: "v", Newest: &health.Snapshot{Created: time.Now()}}},
		},
	},
}})

var volumeShape = cluster.Volume{ID: "v", Home: "n", Vaults: []string{"n"}, From: &cluster.Origin{}}

// A listing prints a JSON object for each item; another command prints one document.
var listings = []string{"audit", "cluster nodes", "cluster volume list", "cluster where",
	"graph path", "graph show", "graph why", "list-blocks", "list-files", "objects", "remote list", "snapshot diff",
	"snapshot list", "snapshot prune", "tier list", "token list"}

// TestJSONShapes pins the keys and types of what each command with --json prints, that each
// value is one line, and that an empty listing is nothing.
func TestJSONShapes(t *testing.T) {
	file, err := filepath.Abs("testdata/json.golden")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(storeVariable, "")
	t.Chdir(t.TempDir())
	must := func(stdin string, args ...string) string {
		t.Helper()
		out, code := quarxfs(t, []byte(stdin), args...)
		if code != 0 {
			t.Fatalf("%q: %d, %s", args, code, out)
		}
		return out
	}
	must("", "init", "s")
	must("", "init", "empty")
	if err := os.Mkdir("data", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("data/file", []byte("some text"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(strings.Repeat("some bytes ", 100), "put", "s", "--name", "one")
	must("other", "put", "s", "--name", "two")
	must("", "snapshot", "create", "s", "a", "-m", "why", "--tag", "x")
	must("", "snapshot", "create", "s", "b")
	must("", "remote", "add", "s", "nas", "http://127.0.0.1:1")
	must("", "token", "create", "s", "laptop")
	must("", "tier", "add", "s", "cold", "cold")
	lines := map[string]string{ // behind the command
		"du": "s", "fsck": "s", "gc": "s", "graph path": "s one one", "graph show": "s one", "graph similar": "s one", "graph why": "s one",
		"list-blocks": "s", "list-files": "s", "objects": "s", "optimize": "s", "put": "s data/file", "rebuild": "s", "remote list": "s", "scrub": "s",
		"simulate": "data", "snapshot create": "s c", "snapshot diff": "s a b", "snapshot list": "s", "snapshot clone": "s a :copy",
		"snapshot restore": "s a :restored", "snapshot policy": "s", "snapshot prune": "s --keep-last 9",
		"snapshot rollback": "s a", "snapshot show": "s a", "stats": "s", "sync follow": "s nas --every 1h", "sync status": "s", "tier demote": "s /",
		"tier drain": "s cold", "tier list": "s", "tier policy": "s", "tier promote": "s /", "tier status": "s", "token create": "s other", "token list": "s",
	}
	held := true
	values := map[string]any{ // of what needs another machine
		"audit": serve.AuditEvent{From: "a", Query: "q", Missed: 1, About: serve.AuditBody{
			Name: "n", Snapshot: "s", Path: "p", To: "t", ID: "i", For: "f", Held: &held, Until: "u", Scopes: []string{"s"}}},
		"sync push": transfer.Report{Sent: []string{""}, Pruned: []string{""}, Refused: []string{""}, Damaged: []string{""}},
		"sync pull": transfer.Report{Sent: []string{""}, Pruned: []string{""}, Refused: []string{""}, Damaged: []string{""}},
		"serve":     daemon.Announcement{URL: "u", Fingerprint: "f", Metrics: "m"},

		"cluster token":  client.Token{},
		"cluster status": clusterStatusShape,
		"cluster health": clusterStatusShape,
		"cluster where":  clusterStatusShape.Volumes[0],

		"cluster balance":  client.Balance{Moves: []client.Move{{}}},
		"cluster blast":    client.Blast{Nodes: []string{""}, Losses: []client.Loss{{}}, NoRoom: []client.Left{{}}},
		"cluster settings": client.ClusterSettings{},

		"cluster volume list":     clusterStatusShape.Volumes[0],
		"cluster volume create":   volumeShape,
		"cluster volume adopt":    volumeShape,
		"cluster volume vault":    volumeShape,
		"cluster volume takeover": volumeShape,
		"cluster nodes":           client.NodeView{Node: cluster.Node{Roles: []cluster.Role{""}}, Alive: &cluster.Alive{}},
	}
	var got strings.Builder
	everyCommand(newRoot(), nil, func(c *cobra.Command, path []string) {
		name := strings.Join(path, " ")
		if c.Flags().Lookup("json") == nil || c.HasSubCommands() {
			return
		}
		if v, ok := values[name]; ok {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "%s: %s\n", name, shapeOf(t, name, string(b), nil))
			return
		}
		line, ok := lines[name]
		if !ok {
			t.Errorf("%s has no line in this test", name)
			return
		}
		isListing := slices.Contains(listings, name)
		out := must("", append(append(slices.Clone(path), strings.Fields(line)...), "--json")...)
		fmt.Fprintf(&got, "%s: %s\n", name, shapeOf(t, name, out, &isListing))
		if isListing && line == "s" && name != "tier list" { // a store has a tier always
			if out := must("", append(slices.Clone(path), "empty", "--json")...); out != "" && name != "list-blocks" && name != "list-files" {
				t.Errorf("%s of nothing: %q", name, out)
			}
		}
	})
	if *updateShapes {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if upper := regexp.MustCompile(`(?m)^.*\.\w*[A-Z]`).FindString(got.String()); upper != "" {
		t.Errorf("keys are lower case: %s", upper)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("what programs read has changed; if that is meant, go test ./cmd/quarxfs -run JSONShapes -update-shapes: %s", diff)
	}
}

// shapeOf is the union of the shapes of all values in an output.
func shapeOf(t *testing.T, name, out string, listing *bool) string {
	dec := json.NewDecoder(strings.NewReader(out))
	all, n := map[string]bool{}, 0
	for ; dec.More(); n++ {
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		addShape(all, "", v)
	}
	if listing != nil && (n != strings.Count(out, "\n") || !*listing && n != 1) {
		t.Errorf("%s prints %d values in %d lines: listing: %v", name, n, strings.Count(out, "\n"), *listing)
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), " ")
}

func addShape(all map[string]bool, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			addShape(all, path+"."+k, x)
		}
	case []any:
		all[path+"[]"] = true
		for _, x := range v {
			addShape(all, path+"[]", x)
		}
	case nil:
		all[path+"=null"] = true
	default:
		kind := map[string]string{"float64": "number", "string": "string", "bool": "bool"}[fmt.Sprintf("%T", v)]
		all[path+"="+kind] = true
	}
}
