package volume

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// A suspect is a directory of which snapshots are taken, by name.
type suspect struct {
	rnd   *rand.Rand
	files map[string][]byte
}

// documents makes text, programs, pictures and a database of a few hundred bytes to 300 KB each.
func documents() *suspect {
	s := &suspect{rnd: rand.New(rand.NewPCG(14, 5)), files: make(map[string][]byte)}
	for i := range 60 {
		s.files[fmt.Sprintf("text%02d.txt", i)] = s.text(300 + s.rnd.IntN(30_000))
	}
	for i := range 15 {
		s.files[fmt.Sprintf("program%02d", i)] = s.program(20_000 + s.rnd.IntN(40_000))
		s.files[fmt.Sprintf("picture%02d.jpg", i)] = s.random(20_000 + s.rnd.IntN(40_000))
	}
	s.files["data.db"] = s.program(300_000)
	return s
}

func (s *suspect) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rnd.Uint32())
	}
	return b
}

func (s *suspect) text(n int) []byte {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "the %d files of %x are %v\n", s.rnd.IntN(1000), s.rnd.Uint32(), s.rnd.IntN(2) == 0)
	}
	return []byte(b.String()[:n])
}

// program makes bytes of some 6 bits of entropy each.
func (s *suspect) program(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rnd.IntN(48)) * byte(1+s.rnd.IntN(3))
	}
	return b
}

// each calls fn for the files whose names begin so, in order.
func (s *suspect) each(prefix string, fn func(name string, b []byte)) {
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if strings.HasPrefix(name, prefix) {
			fn(name, s.files[name])
		}
	}
}

// replace gives each file other bytes and perhaps another name.
func (s *suspect) replace(prefix string, fn func(name string, b []byte) (string, []byte)) {
	s.each(prefix, func(name string, b []byte) {
		to, bytes := fn(name, b)
		delete(s.files, name)
		s.files[to] = bytes
	})
}

// scramble encrypts, of each so many bytes, the first few.
func (s *suspect) scramble(b []byte, first, of int) []byte {
	out := bytes.Clone(b)
	for i := 0; i < len(out); i += of {
		copy(out[i:min(i+first, len(out))], s.random(first))
	}
	return out
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// The warning of encryption finds what malware leaves, and does not take for it what people do.
func TestAlarm(t *testing.T) {
	for _, x := range []struct {
		name  string
		alarm bool
		do    func(s *suspect)
	}{
		{"encrypted in place", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name, s.random(len(b)) })
		}},
		{"encrypted in place, with a header", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name, s.random(len(b) + 512) })
		}},
		{"encrypted under a longer name", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name + ".locked", s.random(len(b) + 100) })
		}},
		{"encrypted under another ending", true, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) {
				return strings.TrimSuffix(name, ".txt") + ".crypt", s.random(len(b))
			})
		}},
		{"encrypted under names by chance", true, func(s *suspect) {
			s.replace("", func(_ string, b []byte) (string, []byte) {
				return fmt.Sprintf("%016x", s.rnd.Uint64()), s.random(len(b) + 300)
			})
		}},
		{"every fourth piece of 16 bytes", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name, s.scramble(b, 16, 64) })
		}},
		{"every other kilobyte, renamed", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name + ".x", s.scramble(b, 1024, 2048) })
		}},
		{"the first 4 KiB", true, func(s *suspect) {
			s.replace("", func(name string, b []byte) (string, []byte) { return name, s.scramble(b, 4096, 1<<30) })
		}},
		{"a fifth of the text", true, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) {
				if name >= "text20" {
					return name, b
				}
				return name, s.random(len(b))
			})
		}},
		{"encrypted beside other work", true, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) { return name, s.random(len(b)) })
			s.replace("program", func(name string, b []byte) (string, []byte) { return name, s.program(len(b)) })
			s.files["new.txt"] = s.text(50_000)
		}},

		{"a large random file", false, func(s *suspect) { s.files["disk.img"] = s.random(4_000_000) }},
		{"pictures", false, func(s *suspect) {
			for i := range 100 {
				s.files[fmt.Sprintf("holiday%03d.jpg", i)] = s.random(30_000)
			}
		}},
		{"pictures in the place of others", false, func(s *suspect) {
			s.replace("picture", func(name string, b []byte) (string, []byte) { return name, s.random(len(b)) })
		}},
		{"text edited", false, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) {
				return name, slices.Concat(b[:100], []byte("edit"), b[100:])
			})
		}},
		{"all text written anew", false, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) { return name, s.text(len(b)) })
		}},
		{"programs built anew", false, func(s *suspect) {
			s.replace("program", func(name string, b []byte) (string, []byte) { return name, s.program(len(b) + 1000) })
			s.replace("data", func(name string, b []byte) (string, []byte) { return name, s.program(len(b)) })
		}},
		{"text compressed", false, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) { return name + ".gz", zipped(b) })
		}},
		{"text compressed in its place", false, func(s *suspect) {
			s.replace("text", func(name string, b []byte) (string, []byte) { return name, zipped(b) })
		}},
		{"text in one archive", false, func(s *suspect) {
			var all []byte
			s.each("text", func(name string, b []byte) { all = append(all, b...); delete(s.files, name) })
			s.files["text.tar.gz"] = zipped(all)
		}},
		{"text removed, pictures added", false, func(s *suspect) {
			s.each("text", func(name string, _ []byte) { delete(s.files, name) })
			for i := range 60 {
				s.files[fmt.Sprintf("new%02d.jpg", i)] = s.random(100_000 + s.rnd.IntN(100_000))
			}
		}},
		{"room filled that was made before", false, func(s *suspect) { s.files["film.mp4"] = s.random(1_000_000) }},
		{"a few files encrypted", false, func(s *suspect) {
			s.replace("text0", func(name string, b []byte) (string, []byte) {
				if name > "text05" {
					return name, b
				}
				return name + ".gpg", s.random(len(b))
			})
		}},
		{"nothing", false, func(*suspect) {}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s := documents()
			s.files["film.mp4"] = make([]byte, 1_000_000)
			why := s.alarm(t, x.do)
			if (why != "") != x.alarm {
				t.Errorf("%q", why)
			}
			if x.alarm && !strings.Contains(why, "bits a byte") {
				t.Errorf("%q says nothing", why)
			}
		})
	}
}

// In a disk image a guest's film may come to lie where its text was removed. Encryption takes most
// of the image.
func TestAlarmOfAnImage(t *testing.T) {
	for _, x := range []struct {
		replaced int // of 6 MB of text
		alarm    bool
	}{{2_000_000, false}, {5_000_000, true}, {6_000_000, true}} {
		s := &suspect{rnd: rand.New(rand.NewPCG(1, 2)), files: make(map[string][]byte)}
		s.files["guest.img"] = s.text(6_000_000)
		why := s.alarm(t, func(s *suspect) {
			s.files["guest.img"] = slices.Concat(s.random(x.replaced), s.files["guest.img"][x.replaced:])
		})
		if (why != "") != x.alarm {
			t.Errorf("%d bytes replaced: %q", x.replaced, why)
		}
	}
}

// alarm returns what is said of the files after something was done with them.
func (s *suspect) alarm(t *testing.T, do func(*suspect)) string {
	t.Helper()
	r := testRig(t, chunk.Config{Name: "fastcdc-v1.0.0", Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10, Key: bytes.Repeat([]byte{7}, 32)}, Options{})
	was := s.lay(t, r, nil, "before")
	before := maps.Clone(s.files)
	do(s)
	is := s.lay(t, r, before, "after")
	why, err := graph.Suspect(t.Context(), r.st, &was.Snapshot, &is.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return why
}

// lay makes the volume's root what the files are, of which those before are there, and takes a
// snapshot. Bytes that stay are not written, as malware that works in place leaves them.
func (s *suspect) lay(t *testing.T, r *rig, before map[string][]byte, name string) Snapshot {
	t.Helper()
	for old := range before {
		if s.files[old] == nil {
			if err := r.v.Unlink(meta.Root, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.each("", func(name string, b []byte) {
		old, ok := before[name]
		var ino meta.Ino
		if !ok {
			ino = mustCreate(t, r.v, meta.Root, name, syscall.S_IFREG|0o644)
		} else if a, err := r.v.Lookup(meta.Root, name); err != nil {
			t.Fatal(err)
		} else {
			ino = a.Ino
		}
		if ok && len(b) < len(old) {
			if err := truncate(r.v, ino, int64(len(b))); err != nil {
				t.Fatal(err)
			}
		}
		const piece = 4096
		for at := 0; at < len(b); at += piece {
			end := min(at+piece, len(b))
			if end > len(old) || !bytes.Equal(b[at:end], old[at:end]) {
				mustWrite(t, r.v, ino, int64(at), b[at:end])
			}
		}
	})
	return mustSnapshot(t, r.v, name)
}
