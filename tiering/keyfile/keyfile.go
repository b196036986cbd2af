// Package keyfile reads the small files that settings and flags name: keys, certificates, tokens.
package keyfile

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// mostBytes is more than any list of certificates has.
const mostBytes = 4 << 20

// ErrTooLarge: what a path leads to is no file of this kind, but a disk or an archive perhaps.
var ErrTooLarge = errors.New("it is too large to be a key, a certificate or a token")

// Read returns what is in a file, and the file's mode. It never waits: a pipe that nobody
// writes to is an empty file, and a device is read no further than any such file goes.
func Read(path string) (data []byte, mode fs.FileMode, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	// Of the open file, so that it is the one that is read.
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err == nil && len(data) > mostBytes {
		err = fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return data, info.Mode(), err
}

// Pair is tls.LoadX509KeyPair for such files.
func Pair(cert, key string) (tls.Certificate, error) {
	c, _, err := Read(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	k, _, err := Read(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(c, k)
}
