package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func directoryCases() []testCase {
	return []testCase{
		{"dir/nlink", directoryLinks},
		{"dir/entries", directoryEntries},
		{"dir/seek", directorySeek},
		{"dir/changing", directoryChanging},
		{"dir/open-removed", directoryRemoved},
		{"dir/cwd", currentDirectory},
		{"dir/remove-while-listing", removeWhileListing},
		{"dir/remove-and-list-again", removeAndListAgain},
	}
}

func directoryLinks(r *execution) {
	r.mkdir("d", 0o755)
	for i := range 5 {
		r.mkdir("d/"+itoa(i), 0o755)
		r.stat(fmt.Sprint("made ", i), "d")
	}
	r.file("d/f", "", 0o644)
	must(unix.Symlink("x", r.p("d/l")))
	r.stat("files do not count", "d")
	for i := range 5 {
		must(unix.Rmdir(r.p("d/" + itoa(i))))
		r.stat(fmt.Sprint("removed ", i), "d")
	}
}

type dirent struct {
	name string
	ino  uint64
	next int64
	typ  byte
}

func getdents(fd, size int) []dirent {
	buf := make([]byte, size)
	n := try(unix.Getdents(fd, buf))
	var list []dirent
	for b := buf[:n]; len(b) > 0; {
		// The record is linux_dirent64: inode 8 bytes, position 8, length 2, type 1, then the name.
		k := binary.LittleEndian.Uint16(b[16:])
		name, _, _ := strings.Cut(string(b[19:k]), "\x00")
		list = append(list, dirent{name, binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:])), b[18]})
		b = b[k:]
	}
	return list
}

func allDents(fd int) (all []dirent) {
	for {
		list := getdents(fd, 4096)
		if len(list) == 0 {
			return all
		}
		all = append(all, list...)
	}
}

func directoryEntries(r *execution) {
	r.file("file", "", 0o644)
	r.mkdir("dir", 0o755)
	must(unix.Symlink("x", r.p("link")))
	must(unix.Mkfifo(r.p("fifo"), 0o600))
	must(unix.Mknod(r.p("sock"), unix.S_IFSOCK|0o600, 0))
	must(unix.Mknod(r.p("chr"), unix.S_IFCHR|0o600, 0))
	must(unix.Mknod(r.p("blk"), unix.S_IFBLK|0o600, 0))
	list := allDents(r.open("", unix.O_RDONLY))
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	for _, e := range list {
		// The inode as a boolean: numbers differ between the two filesystems.
		r.note(e.name, e.typ, e.ino == r.ino(e.name))
	}
	fd := r.open("", unix.O_RDONLY)
	// No entry fits in ten bytes: an error, where an empty answer would mean the end.
	_, err := unix.Getdents(fd, make([]byte, 10))
	r.note("short buffer", err)
}

// directorySeek goes back to each position that a listing gave.
func directorySeek(r *execution) {
	for i := range 500 {
		r.file(fmt.Sprintf("a-longer-name-%d", i), "", 0o644)
	}
	// 500 names of some length take several buffers, so that positions lead to another page as
	// well.
	fd := r.open("", unix.O_RDONLY)
	all := allDents(fd)
	r.note("entries", len(all))
	bad := 0
	// Backwards: a server that only keeps where its last reply ended would fail at the first.
	for i := len(all) - 2; i >= 0; i -= 7 {
		try(unix.Seek(fd, all[i].next, 0))
		if again := getdents(fd, 1024); len(again) == 0 || again[0].name != all[i+1].name {
			bad++
		}
	}
	r.note("wrong after seek", bad)
	try(unix.Seek(fd, 0, 0))
	r.note("rewound", len(allDents(fd)))
	try(unix.Seek(fd, all[len(all)-1].next, 0))
	r.note("at the end", len(allDents(fd)))
}

// directoryChanging lists while entries come and go: those that stay must be
// seen exactly once.
func directoryChanging(r *execution) {
	for i := range 2000 {
		r.file(fmt.Sprintf("keep%d", i), "", 0o644)
		r.file(fmt.Sprintf("drop%d", i), "", 0o644)
	}
	fd := r.open("", unix.O_RDONLY)
	seen := map[string]int{}
	for i := 0; ; i++ {
		// A small buffer, for many calls with changes between them.
		list := getdents(fd, 2048)
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			seen[e.name]++
		}
		for k := range 40 {
			_ = os.Remove(r.p(fmt.Sprintf("drop%d", i*40+k)))
		}
		_ = os.WriteFile(r.p(fmt.Sprintf("new%d", i)), nil, 0o644)
		if i%5 == 0 { // stat everything, as ls -l does meanwhile
			r.listing("")
		}
	}
	// What came or went meanwhile may be seen or not; POSIX promises nothing of it.
	kept, twice := 0, 0
	for i := range 2000 {
		n := seen[fmt.Sprintf("keep%d", i)]
		if n > 0 {
			kept++
		}
		if n > 1 {
			twice++
		}
	}
	r.note("kept", kept, "twice", twice)
}

func removeWhileListing(r *execution) {
	r.mkdir("d", 0o755)
	for i := range 3000 {
		r.file(fmt.Sprintf("d/%d", i), "", 0o644)
	}
	fd := r.open("d", unix.O_RDONLY)
	for {
		// What rm -r does. Positions that count entries would skip as many as were removed, and
		// rmdir would then fail.
		list := getdents(fd, 4096)
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			if e.name != "." && e.name != ".." {
				must(unix.Unlink(r.p("d/" + e.name)))
			}
		}
	}
	r.note("rmdir", unix.Rmdir(r.p("d")))
}

// removeAndListAgain goes on with a listing after what it gave was removed and
// somebody else has listed the directory. Linux keeps FUSE's listings in pages, and
// takes a position that is not in one for the end if the last page is full to
// the byte: with one of these numbers of names it is.
func removeAndListAgain(r *execution) {
	missed := 0
	for n := range 40 {
		n += 140
		dir := fmt.Sprint("d", n)
		r.mkdir(dir, 0o755)
		for i := range n {
			r.file(fmt.Sprintf("%s/name%04d", dir, i), "", 0o644)
		}
		// Fills the kernel's cache of the listing, which the next descriptor then reads from.
		allDents(r.open(dir, unix.O_RDONLY))
		fd := r.open(dir, unix.O_RDONLY)
		seen := getdents(fd, 1024)
		for _, e := range seen {
			if e.name != "." && e.name != ".." {
				must(unix.Unlink(r.p(dir + "/" + e.name)))
			}
		}
		// Somebody else's listing after the removal fills the cache anew, with other positions at
		// other places.
		// Somebody else's listing after the removal fills the cache anew, with other positions at
		// other places.
		allDents(r.open(dir, unix.O_RDONLY))
		missed += n + 2 - len(seen) - len(allDents(fd))
	}
	r.note("missed", missed)
}

func directoryRemoved(r *execution) {
	r.mkdir("d", 0o755)
	fd := r.open("d", unix.O_RDONLY)
	must(unix.Rmdir(r.p("d")))
	r.fstat("stat", fd)
	r.note("entries", len(allDents(fd)))
	var st unix.Stat_t
	r.note("dot", unix.Fstatat(fd, ".", &st, 0))
	r.note("chmod", unix.Fchmod(fd, 0o700), unix.Fsync(fd))
	r.mkdir("d", 0o755)
	r.file("d/new", "", 0o644)
	r.note("old is still empty", len(allDents(fd)))
}

func currentDirectory(r *execution) {
	r.mkdir("a", 0o755)
	r.mkdir("a/b", 0o755)
	r.thread(func() {
		raw(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0)
		must(unix.Chdir(r.p("a/b")))
		must(unix.Rename(r.p("a"), r.p("z")))
		buf := make([]byte, 4096)
		n := try(unix.Getcwd(buf))
		r.note("after rename", strings.HasSuffix(string(buf[:n-1]), "/z/b"))
		must(unix.Rmdir(r.p("z/b")))
		_, err := unix.Getcwd(buf)
		r.note("after rmdir", err)
		_, err = unix.Open(".", unix.O_RDONLY, 0)
		r.note("open dot", err)
		r.note("mkdir", unix.Mkdir("x", 0o755), unix.Chdir(".."))
		r.note("chdir to a file", unix.Chdir(r.file("f", "", 0o644)))
	})
}
