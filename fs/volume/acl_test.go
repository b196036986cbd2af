package volume

import (
	"bytes"
	"errors"
	"reflect"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

const noID = 1<<32 - 1

func FuzzACL(f *testing.F) {
	f.Add(encodeACL([]aclEntry{{aclUserObj, 7, noID}, {aclGroupObj, 5, noID}, {aclOther, 0, noID}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		acl, err := parseACL(b)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeACL(acl), b) {
			t.Errorf("%x became %x", b, encodeACL(acl))
		}
		if mode, _ := modeOf(acl); mode&^0o777 != 0 {
			t.Errorf("mode %o", mode)
		}
	})
}

// TestACLModes goes over every mode: an ACL that was given a mode stands for
// it, and one that was limited to it grants no more than either.
func TestACLModes(t *testing.T) {
	minimal := []aclEntry{{aclUserObj, 6, noID}, {aclGroupObj, 4, noID}, {aclOther, 1, noID}}
	long := []aclEntry{
		{aclUserObj, 7, noID}, {aclUser, 5, 1000}, {aclGroupObj, 3, noID}, {aclGroup, 7, 50},
		{aclMask, 6, noID}, {aclOther, 2, noID},
	}
	for _, acl := range [][]aclEntry{minimal, long} {
		before, isMinimal := modeOf(acl)
		if isMinimal != (len(acl) == 3) {
			t.Errorf("%v is minimal: %t", acl, isMinimal)
		}
		for mode := range uint32(0o1000) {
			if got, _ := modeOf(withMode(acl, mode, false)); got != mode {
				t.Errorf("%v with mode %o stands for %o", acl, mode, got)
			}
			if got, _ := modeOf(withMode(acl, mode, true)); got != mode&before {
				t.Errorf("%v limited to mode %o stands for %o", acl, mode, got)
			}
			for i, e := range withMode(acl, mode, false) {
				if named := e.tag == aclUser || e.tag == aclGroup || e.tag == aclGroupObj && len(acl) > 3; named && e != acl[i] {
					t.Errorf("mode %o changed %v to %v", mode, acl[i], e)
				}
			}
		}
	}
	if mode, _ := modeOf(long); mode != 0o762 {
		t.Errorf("the mask is not the group's bits: %o", mode)
	}
	if again, err := parseACL(encodeACL(long)); err != nil || !reflect.DeepEqual(again, long) {
		t.Errorf("%v became %v (%v)", long, again, err)
	}
}

func TestBadACL(t *testing.T) {
	r := testRig(t, fixed4K(), tiny())
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100640)
	for _, b := range [][]byte{nil, {1}, {2, 0, 0, 0, 1}, {3, 0, 0, 0}, append(encodeACL(nil), 1, 2, 3)} {
		if err := r.v.SetXattr(ino, aclAccess, b, 0, false); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%x: %v", b, err)
		}
	}
	if a, err := r.v.Attr(ino); err != nil || a.Mode != 0o100640 {
		t.Errorf("mode %o, %v", a.Mode, err)
	}
}
