package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
)

// The words of usage lines, and something that each can be. A new word belongs here.
var sampleOf = map[string]string{
	"A": "s1", "B": "s1", "[B]": "s1", "FROM": "s1", "TO": "s1", "REMOTE": "nobody", "TOKEN": "nobody", "BLOCK": "0000",
	"BLOCK|PATH": "0000", "FILE|-": "-", "NAME": "nobody", "NEWPATH": ":new", "OBJECT": "nothing",
	"PATH": ":f", "SNAPSHOT": "s1", "SNAPSHOT[:PATH]": "s1:f", "[REMOTE:]SNAPSHOT:PATH": "s1:f", "TARGET": ":f", "URL": "http://127.0.0.1:1",
	"cold": "cold", "DIR|s3://BUCKET/PREFIX": "cold-tier", "OBJECT|PATH|SNAPSHOT": "nothing", "PATH|SNAP|OBJECT": "nothing",
}

// storeCommands are all commands that work on a store that is named, with arguments that could be.
// They are those of the program, so that a new one is among them.
func storeCommands(t *testing.T) (all map[string][]string, many map[string]bool) {
	all, many = make(map[string][]string), make(map[string]bool)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasSubCommands() || c.Hidden || c.RunE == nil {
			return
		}
		list := words(c)
		if len(list) == 0 || list[0].name != storeWord || !list[0].optional {
			return
		}
		args := []string{}
		name := strings.TrimPrefix(c.CommandPath(), "quarxfs ")
		for _, w := range list[1:] {
			sample, ok := sampleOf[w.name]
			if !ok {
				t.Errorf("%s: the word %q is not in the test's table", c.CommandPath(), w.name)
			}
			args = append(args, sample)
			many[name] = many[name] || w.many
		}
		all[name] = args
	}
	walk(newRoot())
	if len(all) < 40 {
		t.Fatalf("only %d commands", len(all))
	}
	return all, many
}

// A rig of arguments has a mounted store and, as what must never be taken in its place, another
// one in $QUARXFS_STORE.
type argumentRig struct {
	top, store, mnt, decoy string
}

func newArgumentRig(t *testing.T) *argumentRig {
	if testing.Short() || openFUSE() != nil {
		t.Skip("no FUSE, or -short")
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cleanUp(top); err != nil {
			t.Error(err)
		}
	})
	r := &argumentRig{top: top, store: filepath.Join(top, "s"), mnt: filepath.Join(top, "m"), decoy: filepath.Join(top, "decoy")}
	for _, dir := range []string{"m", "b", "empty"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(storeVariable, r.decoy)
	t.Chdir(top)
	must := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	must("quarxfs", "init", r.decoy)
	must("quarxfs", "mount", "--init", r.store, r.mnt)
	r.write(t, "f", "top")
	r.write(t, "sub/f", "below")
	r.write(t, "w\xff", "bytes")
	r.write(t, "w\ufffd", "precious")
	must("quarxfs", "snapshot", "create", r.mnt, "s1")
	must("quarxfs", "snapshot", "create", r.decoy, "s1")
	must("cp", "-a", r.decoy, filepath.Join(r.mnt, "nested"))
	if err := os.Symlink("m/sub", filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(top, filepath.Join(r.mnt, "away")); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *argumentRig) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(r.mnt, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// bind mounts a part of the store, and something else over another part.
func (r *argumentRig) bind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	if err := os.Mkdir(filepath.Join(r.mnt, "over"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		source, dir, kind string
		flags             uintptr
	}{{r.mnt + "/sub", r.top + "/b", "", unix.MS_BIND}, {"tmpfs", r.mnt + "/over", "tmpfs", 0}} {
		if err := unix.Mount(m.source, m.dir, m.kind, m.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// state is what a store shows of itself: snapshots and files.
func (r *argumentRig) state(t *testing.T, store string) string {
	t.Helper()
	snapshots, code := quarxfs(t, nil, "snapshot", "list", store, "--json")
	files, code2 := quarxfs(t, nil, "list-files", store, "--json")
	if code+code2 != 0 {
		t.Fatalf("%s: %s %s", store, snapshots, files)
	}
	return snapshots + allocated.ReplaceAllString(files, "")
}

// allocated is what maintenance may lower at any time: zeroes that were written become holes.
var allocated = regexp.MustCompile(`"allocated_bytes":\d+,`)

// TestArgumentsThatNameNoStore: whatever the command, what leads to no store is refused, and no
// store that happens to be found is taken instead.
func TestArgumentsThatNameNoStore(t *testing.T) {
	r := newArgumentRig(t)
	r.bind(t)
	before := []string{r.state(t, r.store), r.state(t, r.decoy)}
	commands, many := storeCommands(t)
	for _, arg := range []string{
		"./missing", r.mnt + "/missing", "link/missing", "empty", r.mnt + "/over", "m/over/x", "m/away", "m/f/below", "m/\xff", "http://",
	} {
		for name, args := range commands {
			line := slices.Concat(strings.Fields(name), []string{arg}, args)
			if name == "serve" {
				line = append(line, "--listen", "127.0.0.1:0")
			}
			out, code := quarxfs(t, nil, line...)
			refused := []int{2, 3, 9}
			if many[name] { // it may be the first of several names
				refused = append(refused, 7)
			}
			if arg == "m/away" && many[name] {
				continue // a link is a path like any other
			}
			if !slices.Contains(refused, code) {
				t.Errorf("%q: exit code %d: %s", line, code, out)
			}
		}
	}
	for i, store := range []string{r.store, r.decoy} {
		if after := r.state(t, store); after != before[i] {
			t.Errorf("%s has changed from\n%s to\n%s", store, before[i], after)
		}
	}
}

// TestArgumentsThatNameTheStore: all ways to name a store lead to it.
func TestArgumentsThatNameTheStore(t *testing.T) {
	r := newArgumentRig(t)
	r.bind(t)
	for _, c := range []struct{ cd, arg, want string }{
		{r.top, "s", r.store}, {r.top, r.store, r.store}, {r.top, "m", r.store}, {r.top, "m/sub/f", r.store}, {r.top, "b", r.store},
		{r.top, "b/f", r.store}, {r.top, "link", r.store}, {r.mnt, "", r.store}, {r.mnt + "/sub", "", r.store}, {r.top + "/b", "", r.store},
		{r.top, "", r.decoy}, {r.mnt + "/over", "", r.decoy}, {r.mnt, "../decoy", r.decoy}, {r.mnt, "nested", r.mnt + "/nested"},
		{r.top, "m/nested", r.mnt + "/nested"}, {r.top, "m/w\xff", r.store}, {r.top, "m/away/s", r.store},
	} {
		t.Chdir(c.cd)
		if got, err := locate(c.arg); err != nil || got != c.want {
			t.Errorf("%q in %s is %q, %v, want %q", c.arg, c.cd, got, err, c.want)
		}
	}
	// A name is no store because something of that name is there.
	t.Chdir(r.mnt)
	for _, name := range []string{"sub", "f", "monday"} {
		if out, code := quarxfs(t, nil, "snapshot", "create", name); code != 0 || !strings.HasPrefix(out, name+": ") {
			t.Errorf("snapshot create %s: exit code %d: %s", name, code, out)
		}
	}
	// The directory that a mount names is another one now.
	t.Chdir(r.top)
	if err := os.Rename(r.store, r.store+"-moved"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", r.decoy, r.store).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	before := r.state(t, r.store)
	if out, code := quarxfs(t, nil, "snapshot", "create", "m", "tuesday"); code != 0 && code != 9 {
		t.Errorf("exit code %d: %s", code, out)
	}
	if after := r.state(t, r.store); after != before {
		t.Errorf("what is at the path of the mounted store was taken for it:\n%s", after)
	}
	if err := errors.Join(os.RemoveAll(r.store), os.Rename(r.store+"-moved", r.store)); err != nil {
		t.Fatal(err)
	}
}

// TestDeadDaemonAsArgument: the mount of a daemon that was killed still names its store, where what
// is beside it in the environment does not, and a path in it is from where the mount shows it.
func TestDeadDaemonAsArgument(t *testing.T) {
	r := newArgumentRig(t)
	r.bind(t)
	before := r.state(t, r.decoy)
	_, pidfd, err := daemonProcess(t.Context(), r.store)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := errors.Join(unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0), daemon.WaitForEnd(t.Context(), pidfd, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"m", "m/sub", "m/sub/f", "m/missing", "b", "b/f", "link", "link/f"} {
		if got, err := locate(arg); err != nil || got != r.store {
			t.Errorf("%s is %q, %v", arg, got, err)
		}
	}
	for _, line := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"list-files", "m", "m/sub/f"}, 0, " sub/f\n"}, {[]string{"list-files", "m", "b/f"}, 0, " sub/f\n"},
		{[]string{"list-files", "s", "m/sub/f"}, 0, " sub/f\n"}, {[]string{"list-files", "m", "f"}, 0, " f\n"},
		{[]string{"list-files", "m", "m/missing"}, 7, "not found"}, {[]string{"snapshot", "create", "m", "dead"}, 0, "dead: "},
		{[]string{"snapshot", "clone", "m", "s1:sub", "b/new"}, 0, "cloned to sub/new"}, {[]string{"mount", "--dry-run", "s", "m"}, 9, "quarxfs umount"},
		{[]string{"mount", "--dry-run", "s", "m/sub"}, 9, ""}, {[]string{"init", "m/inner"}, 2, "of another store"},
	} {
		if out, code := quarxfs(t, nil, line.args...); code != line.code || !strings.Contains(out, line.want) {
			t.Errorf("%q: exit code %d: %s", line.args, code, out)
		}
	}
	if after := r.state(t, r.decoy); after != before {
		t.Errorf("the store that was not named has changed to\n%s", after)
	}
}

// TestChrootAsArgument: what a process in a chroot sees of a mount leads to its store, or to none.
func TestChrootAsArgument(t *testing.T) {
	r := newArgumentRig(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can chroot")
	}
	exe, err := exec.LookPath("quarxfs")
	if err != nil {
		t.Fatal(err)
	}
	// All of this machine but for its mounts, and a part of the store where something else is
	// outside.
	jail := filepath.Join(r.top, "jail")
	bind := func(from, to string) {
		t.Helper()
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(jail, 0o755); err != nil {
		t.Fatal(err)
	}
	bind("/", jail)
	bind("/proc", jail+"/proc")
	if _, err := os.Stat(jail + exe); err != nil {
		t.Skip("the program is in another filesystem:", err)
	}
	bind(r.mnt+"/sub", jail+r.top+"/empty")
	before := r.state(t, r.decoy)
	check := func(code int, want string, args ...string) {
		t.Helper()
		cmd := exec.Command(exe, args...)
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: jail}, r.top
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%q: exit code %d: %s", args, got, out)
		}
	}
	check(0, " sub/f\n", "list-files", "empty/f")
	check(0, " sub/f\n", "list-files", "s", "empty/f")
	check(0, "inside: ", "snapshot", "create", "empty", "inside")
	check(3, "an empty directory", "snapshot", "create", "m", "inside") // the mount is not seen there
	bind(r.decoy, jail+r.store)
	for _, args := range [][]string{{"list-files", "empty"}, {"snapshot", "create", "empty", "wrong"}, {"gc", "empty"}, {"umount", "empty"}} {
		check(9, "somewhere else now", args...)
	}
	if after := r.state(t, r.decoy); after != before {
		t.Errorf("the store at that path in the chroot has changed to\n%s", after)
	}
}

// TestContains: a mountpoint and a store that have each other inside are recognised through bind
// mounts, also of parts, and symbolic links.
func TestContains(t *testing.T) {
	r := newArgumentRig(t)
	for _, dir := range []string{"p/in/deep", "whole", "part"} {
		if err := os.MkdirAll(filepath.Join(r.top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("p/in", "way"); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root {
		for from, to := range map[string]string{"p": "whole", "p/in": "part"} {
			if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		outer, inner string
		want, bound  bool
	}{
		{"p", "p", true, false}, {"p", "p/in/deep", true, false}, {"p", "p/new/one", true, false}, {"way", "p/in/deep", true, false},
		{"p", "way/deep", true, false}, {"p/in", "p", false, false}, {"p/i", "p/in", false, false}, {"p/in/deep", "way", false, false},
		{"p", "whole/in", true, true}, {"whole", "p/in/new", true, true}, {"p", "part/deep", true, true}, {"p/in", "part", true, true},
		{"part", "p", false, true}, {"part/deep", "p/in", false, true}, {"part", "p/in/deep", true, true}, {"part", "whole/in/deep", true, true},
	} {
		if c.bound && !root {
			continue
		}
		if got := contains(c.outer, c.inner); got != c.want {
			t.Errorf("%s contains %s: %v", c.outer, c.inner, got)
		}
	}
	if !root {
		return
	}
	for _, args := range [][]string{{"mount", "--dry-run", "--init", "whole/in", "part/deep"}, {"tier", "add", "m", "cold", "m/sub/cold"}, {"init", "m/sub/store"}} {
		if out, code := quarxfs(t, nil, args...); code != 9 && code != 2 {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
	if out, code := quarxfs(t, nil, "init", "p/in/deep/store"); code != 0 {
		t.Fatal(out)
	}
	if err := os.Mkdir("part/deep/store/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := quarxfs(t, nil, "mount", "--dry-run", "whole/in/deep/store", "part/deep/store/mnt"); code != 9 || !strings.Contains(out, "contain each other") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestPathArguments: a path leads to the same file in all commands.
func TestPathArguments(t *testing.T) {
	r := newArgumentRig(t)
	r.bind(t)
	for _, c := range []struct {
		cd, store, arg string
		want           string // the path from the top; "2" or "7": refused with that code
	}{
		{r.top, "m", "f", "f"}, {r.top, "m", ":f", "f"}, {r.top, "m", "/sub/f", "sub/f"}, {r.top, "m", "m/sub/f", "sub/f"},
		{r.top, "m", "b/f", "sub/f"}, {r.top, "m", "link/f", "sub/f"}, {r.top, "s", r.mnt + "/sub/f", "sub/f"}, {r.top, "b", "b/f", "sub/f"},
		{r.mnt + "/sub", "", "f", "sub/f"}, {r.mnt + "/sub", r.mnt, "f", "sub/f"}, {r.mnt + "/sub", "", ":f", "f"}, {r.mnt + "/sub", "", "../f", "f"},
		{r.top + "/b", r.store, "f", "sub/f"}, {r.mnt, "", "w\xff", "w\xff"}, {r.top, "s", "w\xff", "w\xff"}, {r.top, "", "m/sub/f", "sub/f"},
		{r.top, "s", "w\ufffd", "w\ufffd"}, {r.top, "", "b/f", "sub/f"}, {r.mnt + "/over", r.mnt, "f", "f"},
		{r.top, "b", "f", "2"}, {r.top, "m/sub", "f", "2"}, {r.top, "m", r.top, "2"}, {r.top, "m", "m/over", "2"}, {r.top, "m", "m/over/x", "2"},
		{r.top, "m", "m/away/s", "2"}, {r.mnt, r.mnt, "../s", "2"}, {r.top, "m", "../f", "2"}, {r.mnt, "", "missing", "7"}, {r.top, "m", "m/no/f", "7"},
	} {
		t.Chdir(c.cd)
		for _, command := range [][]string{{"list-files"}, {"du"}, {"graph", "show"}, {"graph", "similar"}, {"tier", "pin"}, {"tier", "unpin"}, {"graph", "export", "--root"}} {
			line := slices.Concat(command, []string{c.store, c.arg})
			if command[len(command)-1] == "--root" {
				line = slices.Concat(command, []string{c.arg, c.store})
			}
			if c.store == "" {
				line = slices.DeleteFunc(line, func(s string) bool { return s == "" })
			}
			out, code := quarxfs(t, nil, line...)
			if c.want == "2" || c.want == "7" {
				if fmt.Sprint(code) != c.want {
					t.Errorf("%q in %s: exit code %d, want %s: %s", line, c.cd, code, c.want, out)
				}
				continue
			}
			if code != 0 {
				t.Errorf("%q in %s: exit code %d: %s", line, c.cd, code, out)
			}
			if command[0] == "list-files" || command[0] == "du" {
				r.checkPath(t, append(line, "--json"), c.want)
			}
			if line[1] == "show" && c.want[0] != 'w' && !strings.Contains(out, c.want+"  ") {
				t.Errorf("%q in %s: %s", line, c.cd, out)
			}
		}
	}
}

// checkPath compares the path in the JSON that a command prints, with the bytes that it has.
func (r *argumentRig) checkPath(t *testing.T, line []string, want string) {
	t.Helper()
	out, _ := quarxfs(t, nil, line...)
	var got struct {
		Path string `json:"path"`
		Raw  []byte `json:"path_bytes"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%q: %v: %s", line, err, out)
	}
	if got.Raw != nil {
		got.Path = string(got.Raw)
	}
	if got.Path != want || strings.Contains(out, `\ufffd`) {
		t.Errorf("%q: %q, want %q", line, got.Path, want)
	}
}

// TestRestoreKeepsWhatItReplaces: restores act on what they name, and lose nothing.
func TestRestoreKeepsWhatItReplaces(t *testing.T) {
	r := newArgumentRig(t)
	r.bind(t)
	r.write(t, "sub/f", "new")
	r.write(t, "work/notes", "unsaved")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"b", "s1:sub/f", "b/f"}, 0, "restored to sub/f in the store\nwhat was there is in snapshot before-restore_"},
		{[]string{"m", "s1:f", "m/w\xff"}, 0, `restored to "w\xff" in the store`},
		{[]string{"m", "s1:f", "out"}, 0, "restored to out in the store\n"},
		{[]string{"m", "s1:f", "m/work"}, 16, `"work": it is a directory, and what would take its place is none: it can be replaced: add --replace`},
		{[]string{"m", "s1:sub", "m/f"}, 16, `"f": it is no directory, and what would take its place is one: it can be replaced: add --replace`},
		{[]string{"m", "s1:f", "m/over/x"}, 2, ""},
		{[]string{"m", "s1:sub", "m/over"}, 2, ""},
		{[]string{"m", "s1:f", r.top + "/outside"}, 2, ""},
		{[]string{"m", "s1:missing", "m/f"}, 7, ""},
		{[]string{"m", "s1:f", "m/work", "--replace", "--no-safety"}, 0, "restored to work in the store\n"},
	} {
		out, code := quarxfs(t, nil, append([]string{"snapshot", "restore"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("restore %q: exit code %d: %s", c.args, code, out)
		}
	}
	for path, want := range map[string]string{"f": "top", "sub/f": "below", "w\xff": "top", "w\ufffd": "precious", "out": "top", "work": "top"} {
		if b, err := os.ReadFile(filepath.Join(r.mnt, path)); err != nil || string(b) != want {
			t.Errorf("%q: %q, %v, want %q", path, b, err, want)
		}
	}
	list, _ := quarxfs(t, nil, "snapshot", "list", "m")
	if n := strings.Count(list, "before-restore_"); n != 2 {
		t.Errorf("%d snapshots of what was replaced, want 2:\n%s", n, list)
	}
	if names, err := os.ReadDir(filepath.Join(r.mnt, "over")); err != nil || len(names) > 0 {
		t.Errorf("what is mounted over a part: %v, %v", names, err)
	}
}

// TestOtherNamespace: from where a mount cannot be seen, its store is found, and a path in it is
// not guessed.
func TestOtherNamespace(t *testing.T) {
	r := newArgumentRig(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can make a namespace")
	}
	exe, err := exec.LookPath("quarxfs")
	if err != nil {
		t.Fatal(err)
	}
	// The mount is made in a namespace that nobody else sees.
	script := `mkdir in && mount --bind m/sub in && "$1" list-files s in/f && exec sleep 1000`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", exe)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Skip("no namespaces:", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil {
		t.Skip("no namespaces:", errs.String())
	}
	if !strings.HasSuffix(string(line[:n]), " sub/f\n") {
		t.Errorf("in the namespace: %s", line[:n])
	}
	there := fmt.Sprintf("/proc/%d/root%s/in", cmd.Process.Pid, r.top)
	if dir, err := locate(there); err != nil || dir != r.store {
		t.Errorf("%s is of %q, %v", there, dir, err)
	}
	for _, line := range [][]string{{"list-files", "m", there + "/f"}, {"du", there}, {"snapshot", "restore", "m", "s1:f", there + "/f"}} {
		if out, code := quarxfs(t, nil, line...); code != 2 {
			t.Errorf("%q: exit code %d: %s", line, code, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(r.mnt, "f")); err != nil || string(b) != "top" {
		t.Errorf("f: %q, %v", b, err)
	}
}
