package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// program runs quarxfs, or another program, with a clean output. Mounts are only
// ever touched by such children.
func program(t *testing.T, name string, args ...string) (stdout []byte, err error) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %q: %w: %s", name, args, err, errs.Bytes())
	}
	return out, err
}

func must(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := program(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// emptyMount returns the places of a store and its mount, neither of which is there yet
// but for the mountpoint. What is mounted below goes when the test ends.
func emptyMount(t *testing.T) (store, mnt string) {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := cleanUp(dir); err != nil {
			t.Error(err)
		}
	})
	store, mnt = filepath.Join(dir, "store"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	return store, mnt
}

// A rotten is a byte of a segment to be flipped.
type rotten struct {
	file   string
	offset int64
	what   string
	id     string   // of the block whose record it is in, or ""
	at     recordAt // of that record
}

// A recordAt is where a record begins.
type recordAt struct {
	segment uint64
	offset  int64
}

// rotSeed is that of the random flips. ROT_SEED chooses others.
func rotSeed(t *testing.T) uint64 {
	t.Helper()
	text, ok := os.LookupEnv("ROT_SEED")
	if !ok {
		return 5
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// indexed returns the records that the store uses, with the references to their
// blocks. Segments hold others: garbage that no sweep has taken yet, which is
// there or not as the commits happened to fall.
func indexed(t *testing.T, dir string) map[recordAt]uint64 {
	t.Helper()
	list := make(map[recordAt]uint64)
	lines := json.NewDecoder(bytes.NewReader(must(t, "quarxfs", "list-blocks", dir, "--json")))
	for lines.More() {
		var b store.BlockInfo
		if err := lines.Decode(&b); err != nil {
			t.Fatal(err)
		}
		list[recordAt{b.Segment, b.Offset}] = b.Refs
	}
	return list
}

// places lists one random recordAt of each class of fields of a segment file.
func places(t *testing.T, path string, rng *rand.Rand) (list []rotten) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	header, err := segment.ReadFileHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	var records []segment.Entry
	res, err := segment.Scan(f, header, fi.Size(), func(e segment.Entry, _ []byte) error { records = append(records, e); return nil })
	if err != nil || len(records) == 0 {
		return nil
	}
	sealed := strings.HasSuffix(path, string(segment.Sealed))
	if sealed {
		list = append(list, rotten{path, rng.Int64N(segment.FileHeaderSize), "file header", "", recordAt{}},
			rotten{path, res.End + rng.Int64N(fi.Size()-segment.TrailerSize-res.End), "footer", "", recordAt{}},
			rotten{path, fi.Size() - 1 - rng.Int64N(segment.TrailerSize), "trailer", "", recordAt{}})
	}
	for _, field := range []struct {
		what     string
		from, to int64
	}{
		{"magic", 0, 4}, {"check", 4, 8}, {"kind", 8, 9}, {"codec", 9, 10}, {"raw length", 12, 16}, {"stored length", 16, 20},
		{"payload check", 20, 24}, {"ID", 24, 56}, {"payload", segment.HeaderSize, -1},
	} {
		e := records[rng.IntN(len(records))]
		if field.to < 0 {
			field.to = int64(e.Length())
		}
		list = append(list, rotten{path, int64(e.Offset) + field.from + rng.Int64N(field.to-field.from), field.what, store.ID(e.ID).String(), recordAt{header.Number, int64(e.Offset)}})
	}
	return list
}

func (r rotten) flip(t *testing.T, bit byte) {
	t.Helper()
	f, err := os.OpenFile(r.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], r.offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b[:], r.offset); err != nil {
		t.Fatal(err)
	}
}

// TestBitRot flips bytes of segments below a mount: exactly the files that are hit
// give EIO, no read ever gives a wrong byte, scrub and fsck name the files, the log
// names block and inode, and copying the same bytes in again heals them.
func TestBitRot(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and root")
	}
	t.Parallel() // children alone touch the mount, so none that another test forks has it open
	store, mnt := emptyMount(t)
	must(t, "quarxfs", "init", store, "--segment-size", "1MiB")
	must(t, "quarxfs", "mount", store, mnt)
	rng := rand.New(rand.NewPCG(6, rotSeed(t)))
	src := filepath.Join(t.TempDir(), "src")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := make(map[string][]byte)
	for i := range 24 {
		data := make([]byte, 1+rng.IntN(300_000))
		for k := range data {
			data[k] = byte(rng.Uint32()) & byte(0xff>>(i%3*2)) // some of it compresses
		}
		path := fmt.Sprintf("sub/f%d", i)
		if i%3 == 0 {
			path = fmt.Sprintf("f%d", i)
		}
		want[path] = data
		if err := os.WriteFile(filepath.Join(src, path), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "cp", "-r", src+"/.", mnt)
	must(t, "sync", "-f", mnt)
	must(t, "quarxfs", "umount", mnt)

	for range 3 {
		refs := indexed(t, store)
		segments, err := filepath.Glob(filepath.Join(store, "hot", "*"))
		if err != nil {
			t.Fatal(err)
		}
		var all []rotten
		for _, path := range segments {
			all = append(all, places(t, path, rng)...)
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		// With both its header and its trailer lost a segment is lost.
		headless := make(map[string]bool)
		all = slices.DeleteFunc(all, func(r rotten) bool {
			if r.what != "file header" && r.what != "trailer" {
				return false
			}
			again := headless[r.file]
			headless[r.file] = true
			return again
		})
		hit := all[:min(len(all), 8)]
		bit := byte(1) << rng.IntN(8)
		blocks := make(map[string]bool)
		for _, r := range hit {
			r.flip(t, bit)
			if n, ok := refs[r.at]; ok && r.id != "" {
				blocks[r.id] = n > 0 || blocks[r.id]
			}
		}
		must(t, "quarxfs", "mount", store, mnt)
		bad := readAll(t, mnt, want)
		read := requireNamed(t, mnt, blocks, bad)
		log, err := os.ReadFile(filepath.Join(store, daemon.LogName))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range read {
			line := regexp.MustCompile("request failed.*inode [0-9]+.*" + id)
			if !line.Match(log) {
				t.Errorf("the log does not name block %s with an inode", id)
			}
		}
		// The same bytes in another recordAt.
		must(t, "cp", "-r", src, mnt+"/again")
		must(t, "sync", mnt+"/again/f0") // fsync of one commits all
		must(t, "rm", "-r", mnt+"/again")
		must(t, "quarxfs", "umount", mnt)
		must(t, "quarxfs", "mount", store, mnt)
		if bad := readAll(t, mnt, want); len(bad) > 0 {
			t.Errorf("not healed: %q", bad)
		}
		must(t, "quarxfs", "umount", mnt)
		for _, r := range hit { // the rest of the round's rot is of headers and footers
			if r.id == "" {
				r.flip(t, bit)
			}
		}
		must(t, "quarxfs", "scrub", store)
	}
}

// readAll reads every file and returns those that give EIO.
func readAll(t *testing.T, mnt string, want map[string][]byte) (bad []string) {
	t.Helper()
	for path, data := range want {
		got, err := program(t, "cat", filepath.Join(mnt, path))
		if err == nil {
			if !bytes.Equal(got, data) {
				t.Errorf("%s: wrong bytes", path)
			}
			continue
		}
		if !strings.Contains(err.Error(), "Input/output error") {
			t.Errorf("%s: %v", path, err)
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("%s: wrong bytes before the error", path)
		}
		bad = append(bad, path)
	}
	slices.Sort(bad)
	return bad
}

// requireNamed sees that scrub and fsck name the blocks and the files, and
// returns the first bad block of each file: what cat came upon. Blocks without
// references (false in blocks) may have been swept.
func requireNamed(t *testing.T, mnt string, blocks map[string]bool, bad []string) (first []string) {
	t.Helper()
	out, err := program(t, "quarxfs", "scrub", mnt, "--json")
	var exit *exec.ExitError
	if len(bad) > 0 && (!errors.As(err, &exit) || exit.ExitCode() != 14) {
		t.Errorf("scrub: %v", err)
	}
	var r scrubReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	firstOf := make(map[string]remote.Use)
	idOf := make(map[string]string)
	for _, b := range r.Damaged {
		named[b.ID.String()] = true
		for _, f := range b.Files {
			if u, ok := firstOf[f.Path]; !ok || f.Offset < u.Offset {
				firstOf[f.Path], idOf[f.Path] = f, b.ID.String()
			}
		}
	}
	if files := slices.Sorted(maps.Keys(firstOf)); !slices.Equal(files, bad) {
		t.Errorf("scrub names %q, and these give EIO: %q", files, bad)
	}
	for id, referred := range blocks {
		if referred && !named[id] {
			t.Errorf("scrub does not name block %s", id)
		}
	}
	for id := range named {
		if _, hit := blocks[id]; !hit {
			t.Errorf("scrub names block %s, which was not hit", id)
		}
	}
	out, _ = program(t, "quarxfs", "fsck", mnt)
	for _, path := range bad {
		if !bytes.Contains(out, []byte("damaged: "+path+": ")) {
			t.Errorf("fsck does not name %s", path)
		}
	}
	return slices.Collect(maps.Values(idOf))
}
