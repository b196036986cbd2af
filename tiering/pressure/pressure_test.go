package pressure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPressure(t *testing.T) {
	const calm = "some avg10=%s avg60=0.00 avg300=0.00 total=1\nfull avg10=%s avg60=0.00 avg300=0.00 total=1\n"
	stall := func(some, full string) string {
		return strings.Replace(strings.Replace(calm, "%s", some, 1), "%s", full, 1)
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		load  float64
		free  float64
		want  string
	}{
		{"calm", map[string]string{"proc/pressure/cpu": stall("39.00", "39.00"), "proc/pressure/io": stall("99.00", "10.00")}, 9, 1, ""},
		{"cpu", map[string]string{"proc/pressure/cpu": stall("41.00", "0.00")}, 0, 1, "cpu"},
		{"io", map[string]string{"proc/pressure/io": stall("90.00", "70.00")}, 0, 1, "io"},
		{"memory", map[string]string{"proc/pressure/memory": stall("11.00", "0.00")}, 0, 1, "memory"},
		{"group", map[string]string{"proc/pressure/cpu": stall("0.00", "0.00"), "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/cpu.pressure": stall("80.00", "0.00")}, 0, 1, "a/b"},
		{"limit", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n",
			"sys/fs/cgroup/a/memory.current": "990\n", "sys/fs/cgroup/a/memory.stat": "anon 980\nfile 10\n"}, 0, 1, "98 %"},
		{"cached", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n",
			"sys/fs/cgroup/a/memory.current": "990\n", "sys/fs/cgroup/a/memory.stat": "anon 490\nfile 500\n"}, 0, 1, ""},
		{"no limit", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "990\n"}, 0, 1, ""},
		{"no information", nil, 2, 1, "load"},
		{"machine", nil, 0, 0.01, "free"},
		{"strange", map[string]string{"proc/pressure/cpu": "some thing\n", "proc/self/cgroup": "x"}, 1, 1, ""},
	} {
		root := t.TempDir()
		p := &Gauge{group: group{root}, load: func() (float64, error) { return c.load, nil }, free: func() (float64, error) { return c.free, nil }}
		for name, text := range c.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.Busy(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// The real sources answer.
func TestBusyHere(t *testing.T) {
	if l, err := loadPerCPU(); err != nil || l < 0 {
		t.Errorf("load %v, %v", l, err)
	}
	if f, err := freeMemory(); err != nil || f <= 0 || f > 1 {
		t.Errorf("free memory %v, %v", f, err)
	}
	New().Busy()
	if m := New().Memory(); m.Free <= 0 || m.Free > 1 || m.Used < 0 || m.Limit < 0 {
		t.Errorf("%+v", m)
	}
}
