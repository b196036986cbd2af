package main

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/chunk"
)

// holeUnit is what a disk gives a file at a time: fewer zeroes save nothing.
const holeUnit = 4096

// A holeWriter passes bytes on, and leaves holes in a regular file where a unit of them is
// zero, as cp --sparse=always does. It need not be told of holes, which do not travel as
// such in a stream.
type holeWriter struct {
	w    io.Writer
	file *os.File // w, if it may get holes
	off  int64    // in file, behind the hole
	hole int64    // zeroes that the file's offset has not been moved over yet
}

// leaveHoles makes a writer to w. What is not a regular file, is only appended to, or has
// bytes at the offset gets the zeroes themselves.
func leaveHoles(w io.Writer) *holeWriter {
	h := &holeWriter{w: w}
	if o, ok := w.(*output); ok {
		w = o.file // the writer of holes returns its errors
	}
	f, ok := w.(*os.File)
	if !ok {
		return h
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return h
	}
	// With O_APPEND a byte goes to the file's end, not behind the hole.
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_APPEND != 0 {
		return h
	}
	// A file with bytes behind the offset would show them where a hole is wanted.
	if off, err := f.Seek(0, io.SeekCurrent); err == nil && off >= st.Size() {
		h.file, h.off = f, off
	}
	return h
}

func (h *holeWriter) Write(p []byte) (done int, err error) {
	if h.file == nil {
		return h.w.Write(p)
	}
	for done < len(p) {
		n, zero := zeroRun(p[done:], h.off)
		// Nothing is written yet: the hole may go on in the next Write.
		if zero {
			h.hole += int64(n)
		} else {
			if err := h.skip(); err != nil {
				return done, err
			}
			n, err = h.file.Write(p[done : done+n])
		}
		done, h.off = done+n, h.off+int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// zeroRun returns how many bytes from an offset on are in units that are all zero, or in
// units that are not. A part of a unit counts for itself: behind the end of the file it may be
// left out, too, and the unit is a hole if all of its parts are.
func zeroRun(p []byte, off int64) (n int, zero bool) {
	n = min(len(p), holeUnit-int(off%holeUnit))
	zero = chunk.IsZero(p[:n])
	for n < len(p) {
		next := min(len(p)-n, holeUnit)
		if chunk.IsZero(p[n:n+next]) != zero {
			break
		}
		n += next
	}
	return n, zero
}

// skip moves the offset, which the shell's next command may write on from, over the hole.
func (h *holeWriter) skip() error {
	if h.hole == 0 {
		return nil
	}
	_, err := h.file.Seek(h.hole, io.SeekCurrent)
	h.hole = 0
	return err
}

// finish makes the file as long as it was written. A hole at its end needs this.
func (h *holeWriter) finish() error {
	if h.file == nil || h.hole == 0 {
		return nil
	}
	if err := h.skip(); err != nil {
		return err
	}
	st, err := h.file.Stat()
	// Only longer: what was there behind may be somebody's.
	if err == nil && st.Size() < h.off {
		err = h.file.Truncate(h.off)
	}
	return err
}

// A holeReader reads a file and makes up the zeroes of its holes, which the disk need not
// be asked for.
type holeReader struct {
	file           *os.File
	off, data, end int64 // a hole up to data, then bytes up to end
}

func (h *holeReader) Close() error { return h.file.Close() }

func (h *holeReader) Read(p []byte) (n int, err error) {
	if h.off >= h.end {
		if err := h.next(); err != nil {
			return 0, err
		}
	}
	if h.off < h.data {
		n = int(min(int64(len(p)), h.data-h.off))
		clear(p[:n])
	} else {
		n, err = h.file.ReadAt(p[:min(int64(len(p)), h.end-h.off)], h.off)
		// The file was cut meanwhile; next finds that out.
		if err == io.EOF && n > 0 {
			err = nil
		}
	}
	h.off += int64(n)
	return n, err
}

// next finds the next bytes. io.EOF: neither bytes nor a hole are left.
func (h *holeReader) next() (err error) {
	h.data, err = h.file.Seek(h.off, unix.SEEK_DATA)
	if err == nil {
		h.end, err = h.file.Seek(h.data, unix.SEEK_HOLE)
	}
	if !errors.Is(err, unix.ENXIO) {
		return err
	}
	st, err := h.file.Stat()
	if err != nil {
		return err
	}
	if h.data, h.end = st.Size(), st.Size(); h.off >= h.end {
		return io.EOF
	}
	return nil
}
