package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/clustertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quarxfs-node": main})
}

// TestScripts runs testdata: real programs, three nodes on one machine.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../quarxfs").CombinedOutput(); err != nil {
		t.Fatalf("build quarxfs: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", env.Getenv("PATH")+string(os.PathListSeparator)+bin)
			env.Setenv("TZ", "UTC")
			for i := range 3 {
				port, err := clustertest.FreePorts(3)
				if err != nil {
					return err
				}
				env.Setenv(fmt.Sprintf("PORT%d", i+1), fmt.Sprint(port))
			}
			// So do daemons, until nothing is mounted any more.
			env.Defer(func() {
				table, _ := os.ReadFile("/proc/self/mountinfo")
				for line := range strings.Lines(string(table)) {
					if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], env.WorkDir+"/") {
						_ = unix.Unmount(f[4], unix.MNT_DETACH)
					}
				}
			})
			// Agents run on when a script fails; each says itself which process it is.
			env.Defer(func() {
				dirs, _ := filepath.Glob(filepath.Join(env.WorkDir, "*", client.SocketName))
				for _, socket := range dirs {
					if self, err := client.Local(filepath.Dir(socket)).Self(t.Context()); err == nil {
						_ = kill(self.PID)
					}
				}
			})
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "fuse" {
				return false, fmt.Errorf("condition %q is not known", name)
			}
			f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until, "named": named},
	})
}

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// until runs a command again until its output has the text: until TEXT COMMAND...
func until(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...) // a status that is not OK ends with an error, too
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never said %q: %v", args[1:], args[0], err)
		}
	}
}

// named sets $NAMED to what a command tells to confirm with a flag: named FLAG COMMAND...
func named(ts *testscript.TestScript, _ bool, args []string) {
	_ = ts.Exec(args[1], args[2:]...) // it changes nothing, and so ends with an error
	_, name, ok := strings.Cut(strings.TrimSpace(ts.ReadFile("stderr")), ": "+args[0]+" ")
	if !ok {
		ts.Fatalf("%q names nothing to confirm", args)
	}
	ts.Setenv("NAMED", name)
}

// quarxfs is not linked with what a cluster needs: a single machine pays nothing for it.
func TestProgramStaysLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../quarxfs").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "quarxfs/remote/cluster/client") {
		t.Fatal("the list is not that of the program's packages")
	}
	for pkg := range strings.Lines(string(out)) {
		for _, heavy := range []string{"google.golang.org/grpc", "go.etcd.io/", "remote/cluster/agent"} {
			if strings.Contains(pkg, heavy) {
				t.Errorf("quarxfs is linked with %s", strings.TrimSpace(pkg))
			}
		}
	}
}
