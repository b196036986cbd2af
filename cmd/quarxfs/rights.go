package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// rights says of an error for rights that are missing whose it is that may not be used, and what
// to do; "": it is no such error.
func rights(err error) string {
	if !errors.Is(err, syscall.EACCES) {
		return ""
	}
	path := deniedPath(err)
	owner, at := ownerAbove(path)
	me := userName(uint32(os.Geteuid()))
	if path == "" || owner == "" || owner == me {
		return joinLines(err.Error()) + ": run it as root or as the owner, or have the owner give the right with chmod"
	}
	return fmt.Sprintf("%s: permission denied: %s belongs to %s, and this is %s: run it as %s, or have %s give the right with chmod",
		printable(path), printable(at), owner, me, owner, owner)
}

// deniedPath is the path that an error is about: of a file, or of a socket; "": it is about none.
func deniedPath(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Path
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Old
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		if a, ok := e.Addr.(*net.UnixAddr); ok {
			return a.Name
		}
	}
	return ""
}

// ownerAbove is the owner of what a path leads to, or of the nearest directory above it that can be
// seen: that is the one that lets nobody in.
func ownerAbove(path string) (owner, at string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", ""
	}
	for ; ; path = filepath.Dir(path) {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			return userName(st.Uid), path
		}
		if path == filepath.Dir(path) {
			return "", ""
		}
	}
}

// userName is a user's name, or its number where it has none.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return "user " + number
}
