package pressure

import (
	"os"
	"path/filepath"
	"testing"
)

func tree(t *testing.T, files map[string]string) group {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return group{root}
}

func TestMemory(t *testing.T) {
	const v1, v2, parent = "sys/fs/cgroup/memory/job/", "sys/fs/cgroup/a/b/", "sys/fs/cgroup/a/"
	own := map[string]string{"proc/self/cgroup": "4:memory:/job\n1:cpu:/\n0::/a/b\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  GroupMemory
	}{
		{"no groups", nil, GroupMemory{}},
		{"no limits", map[string]string{v2 + "memory.max": "max\n", v1 + "memory.limit_in_bytes": "9223372036854771712\n", v2 + "memory.current": "5"}, GroupMemory{}},
		{"its own", map[string]string{v2 + "memory.max": "1000\n", v2 + "memory.current": "600\n",
			v2 + "memory.stat": "anon 100\nfile 100\nfile_mapped 300\n"}, GroupMemory{1000, 0.5}},
		{"the parent's", map[string]string{v2 + "memory.max": "1000", parent + "memory.max": "500", parent + "memory.current": "400"}, GroupMemory{500, 0.8}},
		{"the fuller", map[string]string{v2 + "memory.max": "1000", v2 + "memory.current": "900", parent + "memory.max": "5000",
			parent + "memory.current": "1000"}, GroupMemory{1000, 0.9}},
		{"high", map[string]string{v2 + "memory.max": "1000", v2 + "memory.high": "800", v2 + "memory.current": "400"}, GroupMemory{800, 0.5}},
		{"a namespace's", map[string]string{"sys/fs/cgroup/memory.max": "700"}, GroupMemory{700, 0}},
		{"version 1", map[string]string{v1 + "memory.limit_in_bytes": "1000", v1 + "memory.usage_in_bytes": "700",
			v1 + "memory.stat": "cache 1\ntotal_cache 200\n"}, GroupMemory{1000, 0.5}},
		{"strange", map[string]string{v2 + "memory.max": "-5", v2 + "memory.high": "x"}, GroupMemory{}},
	} {
		files := map[string]string{}
		for _, m := range []map[string]string{own, c.files} {
			for name, text := range m {
				files[name] = text
			}
		}
		if got := tree(t, files).memory(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := tree(t, nil).memory(); got != (GroupMemory{}) {
		t.Errorf("nothing: %+v", got)
	}
	if got := tree(t, map[string]string{"proc/self/cgroup": "0::/../../x\nbroken\n"}).memory(); got != (GroupMemory{}) {
		t.Errorf("outside of a namespace: %+v", got)
	}
}

func TestStalled(t *testing.T) {
	const text = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n"
	g := tree(t, map[string]string{"proc/self/cgroup": "0::/a\n", "proc/pressure/memory": text, "sys/fs/cgroup/a/memory.pressure": "some avg10=20.00 avg60\n"})
	for _, c := range []struct {
		resource, line string
		want           float64
		stalled        bool
	}{{"memory", "some", 20, true}, {"memory", "full", 3, true}, {"cpu", "some", 0, false}} {
		if got, stalled := g.stalled(c.resource, c.line); got.percent != c.want || stalled != c.stalled || stalled == (got.where == "") {
			t.Errorf("%s, %s: %+v, %t", c.resource, c.line, got, stalled)
		}
	}
}
