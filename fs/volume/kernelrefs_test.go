package volume

import (
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// An inode is removed when it has neither a name nor a user, in whatever order it loses them, and
// not if it has got one again.
func TestKernelRefs(t *testing.T) {
	type refs = *kernelRefs
	unname, rename := func(k refs) { k.addOrphan(20) }, func(k refs) { k.removeOrphan(20) }
	learn, forget := func(k refs) { k.learn(20) }, func(k refs) { k.forget(20, 1) }
	for _, c := range []struct {
		name   string
		steps  []func(refs)
		reaped bool
	}{
		{"named", []func(refs){learn, forget}, false},
		{"without a name", []func(refs){unname}, true},
		{"in use", []func(refs){learn, unname}, false},
		{"no more in use", []func(refs){learn, unname, forget}, true},
		{"used twice", []func(refs){learn, learn, unname, forget}, false},
		{"forgotten first", []func(refs){learn, forget, unname}, true},
		{"named again", []func(refs){unname, rename}, false},
		{"found by a handle", []func(refs){unname, learn}, false},
		{"found by a handle and left", []func(refs){unname, learn, forget}, true},
		{"forgotten more often than known", []func(refs){learn, forget, forget, unname}, true},
	} {
		var k kernelRefs
		reap := make(chan struct{}, 1)
		k.init(nil, reap)
		for _, step := range c.steps {
			step(&k)
		}
		ino, ok := k.next()
		if ok != c.reaped || ok && ino != meta.Ino(20) || ok && len(reap) == 0 {
			t.Errorf("%s: inode %d is to be removed: %t, want %t; the reaper was woken: %t", c.name, ino, ok, c.reaped, len(reap) > 0)
		}
		if left, _ := k.reapable(); (left == 1) != c.reaped {
			t.Errorf("%s: %d inodes are left to be removed", c.name, left)
		}
	}
}
