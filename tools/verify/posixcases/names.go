package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func itoa(i int) string { return strconv.Itoa(i) }

func nameCases() []testCase {
	return []testCase{
		{"names/length", nameLength},
		{"names/bytes", nameBytes},
		{"names/path-max", pathMax},
		{"names/deep", deepTree},
		{"names/dots", dots},
		{"names/symlinks", symlinks},
		{"names/loops", loops},
		{"names/slashes", trailingSlashes},
		{"names/exists", alreadyThere},
		{"names/negative", negativeLookups},
	}
}

func nameLength(r *execution) {
	// 254 and 255 fit, 256 does not, in whatever operation.
	for _, n := range []int{1, 254, 255, 256, 1000} {
		name := strings.Repeat("n", n)
		r.note(itoa(n)+" mkdir", unix.Mkdir(r.p(name), 0o755))
		r.note(itoa(n)+" rename", unix.Rename(r.p(name), r.p(strings.Repeat("m", n))))
		r.note(itoa(n)+" symlink", unix.Symlink(name, r.p(name)))
		r.note(itoa(n)+" link", unix.Link(r.p(name), r.p(strings.Repeat("l", n))))
		r.note(itoa(n)+" fifo", unix.Mkfifo(r.p(strings.Repeat("f", n)), 0o600))
		r.note(itoa(n)+" unlink", unix.Unlink(r.p(name)))
		r.stat(itoa(n)+" stat", name)
		r.note(itoa(n)+" rmdir", unix.Rmdir(r.p(strings.Repeat("m", n))))
		_, err := unix.Open(r.p(strings.Repeat("o", n)), unix.O_RDONLY, 0)
		r.note(itoa(n)+" open", err)
		_, err = unix.Readlink(r.p(name), make([]byte, 10))
		r.note(itoa(n)+" readlink", err)
	}
	// The limit is in bytes: 128 letters here.
	wide := strings.Repeat("é", 127) + "x" // 255 bytes
	r.note("wide", unix.Mkdir(r.p(wide), 0o755))
	r.note("listed", r.listing(""))
}

func nameBytes(r *execution) {
	for i := 1; i < 256; i++ {
		if i == '/' || i == '.' {
			continue
		}
		r.file(string([]byte{byte(i)}), itoa(i), 0o644)
	}
	// Names are bytes: not UTF-8, with a newline, of dots or a space only.
	r.file("\xff\xfe\x80", "not UTF-8", 0o644)
	r.file("new\nline", "", 0o644)
	r.file("...", "", 0o644)
	r.file(" ", "", 0o644)
	r.note("list", r.listing(""))
	r.content("read back", "\xff\xfe\x80")
	// Two ways to write one letter are two names, as are two cases: nothing is normalized.
	r.file("é", "composed", 0o644)
	r.file("e\u0301", "decomposed", 0o644)
	r.content("composed", "é")
	r.file("A", "upper", 0o644)
	r.content("case", "a")
}

func pathMax(r *execution) {
	f := r.file("f", "here", 0o644)
	for _, total := range []int{4094, 4095, 4096, 5000} {
		// Slashes and dots make the path long, and lead nowhere.
		fill := total - len(f)
		p := r.dir + strings.Repeat("/", fill%2) + strings.Repeat("/.", fill/2) + "/f"
		var st unix.Stat_t
		r.note(itoa(total)+" stat", unix.Stat(p, &st))
		r.note(itoa(total)+" mkdir", unix.Mkdir(p+"d", 0o755))
	}
}

func deepTree(r *execution) {
	name := strings.Repeat("d", 200)
	fd := r.open("", unix.O_RDONLY|unix.O_DIRECTORY)
	var fds []int
	// 60 times 200 bytes: three times what a path can hold, so that only descriptors get there.
	for range 60 {
		must(unix.Mkdirat(fd, name, 0o755))
		fd = try(unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0))
		fds = append(fds, fd)
	}
	must(unix.Symlinkat("target", fd, "l"))
	b := make([]byte, 20)
	n, err := unix.Readlinkat(fd, "l", b)
	r.note("12,000 bytes down", string(b[:n]), err)
	// On a thread that leaves the others' working directory alone.
	r.thread(func() {
		raw(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0)
		must(unix.Fchdir(fd))
		_, err := unix.Getcwd(make([]byte, 4096))
		r.note("getcwd", err)
		r.note("relative", unix.Access("l", unix.F_OK), unix.Access("..", unix.F_OK))
	})
	must(unix.Unlinkat(fd, "l", 0))
	// From below, since no path is short enough for os.RemoveAll to begin with.
	for i := len(fds) - 1; i >= 0; i-- {
		unix.Close(fds[i])
		parent := r.open("", unix.O_RDONLY)
		if i > 0 {
			parent = fds[i-1]
		}
		must(unix.Unlinkat(parent, name, unix.AT_REMOVEDIR))
	}
}

func dots(r *execution) {
	r.mkdir("d", 0o755)
	r.mkdir("d/e", 0o755)
	// The kernel answers most of these itself; which errno it is depends on the order of its
	// checks, and those are the same for all filesystems.
	for _, p := range []string{".", "..", "d/.", "d/..", "d/e/..", "d/e/."} {
		p2 := r.dir + "/" + p
		r.note("rmdir "+p, unix.Rmdir(p2))
		r.note("unlink "+p, unix.Unlink(p2))
		r.note("mkdir "+p, unix.Mkdir(p2, 0o755))
		r.note("rename from "+p, unix.Rename(p2, r.dir+"/x"))
		r.note("rename to "+p, unix.Rename(r.dir+"/d", p2))
		r.note("symlink "+p, unix.Symlink("x", p2))
		r.note("mknod "+p, unix.Mknod(p2, unix.S_IFREG|0o600, 0))
	}
	r.note("list", r.listing(""), r.listing("d"))
	r.note("same", r.ino("d/..") == r.ino("."), r.ino("d/e/..") == r.ino("d"))
}

func symlinks(r *execution) {
	// Around 60 bytes ext4 stops keeping the target in the inode; 4,095 is the most there is.
	for _, n := range []int{0, 1, 59, 60, 255, 4094, 4095, 4096} {
		t := strings.Repeat("t", n)
		r.note(itoa(n), unix.Symlink(t, r.p("l"+itoa(n))))
		b := make([]byte, 5000)
		k, err := unix.Readlink(r.p("l"+itoa(n)), b)
		r.note(itoa(n)+" back", k, err)
		r.stat(itoa(n)+" stat", "l"+itoa(n))
	}
	must(unix.Symlink("f", r.p("l")))
	r.note("create through dangling", os.WriteFile(r.p("l"), []byte("made"), 0o644))
	r.content("made", "f")
	must(unix.Symlink("g", r.p("m")))
	// O_EXCL does not follow: the link itself is there already.
	_, err := unix.Open(r.p("m"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	r.note("exclusive through dangling", err)
	_, err = unix.Open(r.p("l"), unix.O_NOFOLLOW|unix.O_RDONLY, 0)
	r.note("nofollow", err)
	fd, err := unix.Open(r.p("l"), unix.O_NOFOLLOW|unix.O_PATH, 0)
	r.note("nofollow path", err)
	b := make([]byte, 10)
	n, err := unix.Readlinkat(fd, "", b)
	r.note("readlink of descriptor", string(b[:n]), err)
	unix.Close(fd)
	// Cut without an error.
	n, err = unix.Readlink(r.p("l4095"), b)
	r.note("short buffer", n, err)
	_, err = unix.Readlink(r.p("f"), b)
	r.note("readlink of a file", err)
	r.note("mkdir on dangling", unix.Mkdir(r.p("m"), 0o755))
	// A target is bytes as well, never cleaned or resolved.
	must(unix.Symlink("\xff\n/../f", r.p("odd")))
	n, err = unix.Readlink(r.p("odd"), b)
	r.note("odd", fmt.Sprintf("%q", b[:n]), err)
	r.note("truncate a link", unix.Truncate(r.p("m"), 0))
	// The same name for another link: a cached target would still be the old one.
	must(unix.Unlink(r.p("l")))
	must(unix.Symlink("other", r.p("l")))
	n, err = unix.Readlink(r.p("l"), b)
	r.note("replaced", string(b[:n]), err)
}

func loops(r *execution) {
	must(unix.Symlink("self", r.p("self")))
	_, err := unix.Open(r.p("self"), unix.O_RDONLY, 0)
	r.note("self", err)
	must(unix.Symlink("b", r.p("a")))
	must(unix.Symlink("a", r.p("b")))
	r.note("pair", unix.Access(r.p("a"), unix.F_OK), unix.Chmod(r.p("a"), 0o600), unix.Mkdir(r.p("a/x"), 0o755))
	r.file("0", "end", 0o644)
	// The kernel follows 40 links in a path. The 41st is one too many.
	for i := 1; i <= 42; i++ {
		must(unix.Symlink(itoa(i-1), r.p(itoa(i))))
	}
	for _, i := range []int{39, 40, 41, 42} {
		r.content("chain "+itoa(i), itoa(i))
	}
	r.note("stat chain", errors.Is(unix.Access(r.p("42"), unix.F_OK), unix.ELOOP))
}

func trailingSlashes(r *execution) {
	r.file("f", "x", 0o644)
	r.mkdir("d", 0o755)
	must(unix.Symlink("d", r.p("l")))
	must(unix.Symlink("f", r.p("lf")))
	d := r.dir + "/"
	// A slash behind a name asks for a directory; which error says that there is none depends on
	// the operation.
	_, err := unix.Open(d+"f/", unix.O_RDONLY, 0)
	r.note("open file/", err)
	_, err = unix.Open(d+"new/", unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("create new/", err)
	r.note("mkdir new/", unix.Mkdir(d+"new/", 0o755))
	r.note("unlink file/", unix.Unlink(d+"f/"))
	r.note("rmdir link/", unix.Rmdir(d+"l/"))
	r.note("rename file/", unix.Rename(d+"f/", d+"g"))
	r.note("rename to file/", unix.Rename(d+"f", d+"g/"))
	r.note("rename dir/", unix.Rename(d+"d/", d+"e/"))
	r.note("symlink new/", unix.Symlink("x", d+"sl/"))
	r.note("link new/", unix.Link(d+"f", d+"hl/"))
	// With a slash even lstat follows a link.
	var st unix.Stat_t
	r.note("lstat link/", unix.Lstat(d+"lf/", &st))
	r.note("through a file", unix.Access(d+"f/x", unix.F_OK), unix.Mkdir(d+"f/x", 0o755))
	r.note("list", r.listing(""))
}

func alreadyThere(r *execution) {
	f := r.file("f", "x", 0o644)
	d := r.mkdir("d", 0o755)
	r.file("d/in", "x", 0o644)
	must(unix.Symlink("nowhere", r.p("l")))
	// A file, a directory and a link that leads nowhere are all in the way of a new name.
	for _, p := range []string{f, d, r.p("l")} {
		n := p[len(r.dir):]
		_, err := unix.Open(p, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		r.note("open"+n, err)
		r.note("mkdir"+n, unix.Mkdir(p, 0o755))
		r.note("mknod"+n, unix.Mknod(p, unix.S_IFREG|0o644, 0))
		r.note("symlink"+n, unix.Symlink("x", p))
		r.note("link"+n, unix.Link(f, p))
	}
	// Each kind of inode has operations that are for another: the errno says which was expected.
	r.note("unlink dir", unix.Unlink(d))
	r.note("rmdir file", unix.Rmdir(f))
	r.note("rmdir full", unix.Rmdir(d))
	r.note("link dir", unix.Link(d, r.p("dl")))
	_, err := unix.Open(d, unix.O_WRONLY, 0)
	r.note("write a directory", err)
	_, err = unix.Open(d, unix.O_CREAT|unix.O_RDONLY, 0o644)
	r.note("create a directory", err)
	_, err = unix.Open(d, unix.O_RDONLY|unix.O_TRUNC, 0)
	r.note("truncate a directory", err, unix.Truncate(d, 0))
	_, err = unix.Open(f, unix.O_DIRECTORY, 0)
	r.note("file as directory", err)
	// A directory opens for reading, and still has no bytes.
	fd := r.open("d", unix.O_RDONLY)
	_, err = unix.Read(fd, make([]byte, 10))
	r.note("read a directory", err)
	_, err = unix.Pread(fd, make([]byte, 10), 0)
	r.note("pread a directory", err)
	_, err = os.ReadDir(f)
	r.note("list a file", err)
}

// negativeLookups makes names that were looked up in vain before.
func negativeLookups(r *execution) {
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		r.stat("before "+n, n)
	}
	// Each by another operation: all of them have to drop what the kernel keeps of a name that is
	// not there.
	r.file("a", "a", 0o644)
	r.mkdir("b", 0o755)
	must(unix.Symlink("a", r.p("c")))
	must(unix.Link(r.p("a"), r.p("d")))
	must(unix.Rename(r.p("b"), r.p("e")))
	must(unix.Mkfifo(r.p("f"), 0o600))
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		r.stat("after "+n, n)
	}
}

// listing returns a directory's names and types, sorted by os.ReadDir.
func (r *execution) listing(name string) string {
	es, err := os.ReadDir(r.p(name))
	if err != nil {
		return errno(err)
	}
	var b strings.Builder
	for _, e := range es {
		fmt.Fprintf(&b, "%q%s ", e.Name(), e.Type().String()[:1])
	}
	return summary([]byte(b.String()))
}
