package db

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary a program that works on a database until it is
// killed: the value is "job:directory".
const childEnv = "QUARXFS_DB_CHILD"

func child(arg string) int {
	job, dir, _ := strings.Cut(arg, ":")
	run := map[string]func(string) error{"commit": commitForever, "full": fillDisk}[job]
	if err := run(dir); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func startChild(t *testing.T, job, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+job+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

const crashKeys = 300

func crashKey(n int) []byte { return fmt.Appendf(nil, "key%06d", n) }

// commitForever sets all keys to the number of the commit, and prints the
// number when the commit is acknowledged. Some commits need the journal, and
// values are large enough for memtables to fill up.
func commitForever(dir string) error {
	d, err := Open(testOptions(dir))
	if err != nil {
		return err
	}
	start, err := crashState(d)
	if err != nil {
		return err
	}
	rows := d.maxRows
	for n := start + 1; ; n++ {
		d.maxRows = rows
		if n%3 == 0 {
			d.maxRows = crashKeys / 5
		}
		for k := range crashKeys {
			d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 1000), uint64(n))[:1000])
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// crashState returns the number that all rows hold, or 0 if there are none.
func crashState(d *DB) (int, error) {
	state, rows := 0, 0
	err := d.Scan(nil, nil, func(k, v []byte) error {
		n := int(binary.BigEndian.Uint64(v))
		if rows > 0 && n != state {
			return fmt.Errorf("%s is of commit %d, others of %d", k, n, state)
		}
		state = n
		rows++
		return nil
	})
	if err == nil && rows != 0 && rows != crashKeys {
		err = fmt.Errorf("%d rows of %d", rows, crashKeys)
	}
	return state, err
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	for range 8 {
		cmd, out := startChild(t, "commit", dir)
		time.AfterFunc(time.Duration(100+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		acked := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(lines.Text())
			}
			acked = n
		}
		_ = cmd.Wait()
		d, err := Open(testOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		state, err := crashState(d)
		if err != nil {
			t.Error(err)
		}
		if acked > 0 && state != acked && state != acked+1 {
			t.Errorf("found commit %d, acknowledged was %d", state, acked)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// image copies the database's directory as a power cut would leave it: of the
// pages of the logs that changed since synced, a random half reached the disk.
func image(t *testing.T, dir string, synced map[string][]byte, rng *rand.Rand) string {
	t.Helper()
	to := t.TempDir()
	for name, data := range readDir(t, dir) {
		if old, ok := synced[name]; ok && filepath.Ext(name) == memExt && len(old) == len(data) {
			for off := 0; off < len(data); off += 4096 {
				end := min(off+4096, len(data))
				if !bytes.Equal(data[off:end], old[off:end]) && rng.IntN(2) == 0 {
					copy(data[off:end], old[off:end])
				}
			}
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = data
	}
	return files
}

// TestPowerCut cuts the power after every step of an oversize commit and of the
// recovery from it, and finds the state before or after as a whole.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	d := openTest(t, testOptions(dir))
	write := func(n int) {
		for k := range crashKeys {
			d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 3000), uint64(n))[:3000])
		}
		commit(t, d)
	}
	write(1)
	d.maxRows = crashKeys / 4
	synced := readDir(t, dir)
	var images []string
	d.committed = func() {
		images = append(images, image(t, dir, synced, rng))
		if !d.wal.dirty {
			synced = readDir(t, dir)
		}
	}
	write(2)
	d.committed = nil
	if len(images) < 8 {
		t.Fatalf("only %d steps", len(images))
	}
	var states []int
	for i, img := range images {
		states = append(states, recoverTwice(t, i, img))
	}
	if states[0] != 1 || states[len(states)-1] != 2 || !slices.IsSorted(states) {
		t.Fatalf("states found: %v", states)
	}
}

// recoverTwice opens an image, cutting the power once more meanwhile.
func recoverTwice(t *testing.T, step int, dir string) int {
	t.Helper()
	state := func() int {
		d, err := Open(testOptions(dir))
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		n, err := crashState(d)
		if err = errors.Join(err, d.Close()); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		return n
	}
	first := state()
	if second := state(); second != first {
		t.Fatalf("step %d: %d, and %d after opening again", step, first, second)
	}
	return first
}
