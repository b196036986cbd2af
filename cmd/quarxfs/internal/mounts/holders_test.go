package mounts

import (
	"slices"
	"testing"
)

// TestHolders: a mount's holders are what the kernel leaves mounted when it is unmounted.
func TestHolders(t *testing.T) {
	const root = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
	const mount = "9 1 0:9 / /m rw - fuse.quarxfs /s rw\n"
	for _, c := range []struct {
		name   string
		own    string // besides the mount
		others []string
		want   []string
	}{
		{name: "nothing else", own: root},
		{name: "a bind mount", own: root + "10 1 0:9 / /b rw - fuse.quarxfs /s rw\n", want: []string{"/b"}},
		{name: "one of a directory", own: root + "10 1 0:9 /d /b rw - fuse.quarxfs /s rw\n", want: []string{"/b"}},
		{name: "one below the same directory", own: root + "8 1 0:9 / /m rw - fuse.quarxfs /s rw\n", want: []string{}},
		{name: "on it", own: root + "10 9 0:7 / /m/t rw - tmpfs none rw\n", want: []string{"/m/t"}},
		{name: "another store", own: root + "10 1 0:8 / /b rw - fuse.quarxfs /s2 rw\n"},
		{name: "a peer of the parent", own: root + "2 1 8:1 / /r rw shared:1 - ext4 /dev/a rw\n10 2 0:9 / /r/m rw - fuse.quarxfs /s rw\n"},
		{
			name: "a peer of the parent's directory elsewhere",
			own:  root + "2 1 8:1 /m2 /r rw shared:1 - ext4 /dev/a rw\n10 2 0:9 / /r rw - fuse.quarxfs /s rw\n",
			want: []string{"/r"},
		},
		{
			name: "a private namespace", own: root,
			others: []string{"21 0 8:1 / / rw - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n"}, want: []string{"2:/m"},
		},
		{
			name: "a namespace of peers", own: root,
			others: []string{"21 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n"},
		},
		{
			name: "a following namespace", own: root,
			others: []string{"21 0 8:1 / / rw master:1 - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n"},
		},
		{
			name: "one that follows a follower", own: root,
			others: []string{
				"31 0 8:1 / / rw master:2 - ext4 /dev/a rw\n39 31 0:9 / /m rw - fuse.quarxfs /s rw\n",
				"21 0 8:1 / / rw shared:2 master:1 - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n",
			},
		},
		{
			name: "a following one with a bind mount", own: root,
			others: []string{"21 0 8:1 / / rw master:1 - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n30 21 0:9 / /b rw - fuse.quarxfs /s rw\n"}, want: []string{"2:/b"},
		},
		{
			name: "a private parent", own: "1 0 8:1 / / rw - ext4 /dev/a rw\n",
			others: []string{"21 0 8:1 / / rw master:1 - ext4 /dev/a rw\n29 21 0:9 / /m rw - fuse.quarxfs /s rw\n"}, want: []string{"2:/m"},
		},
	} {
		all := []Namespace{{Table: Parse(c.own + mount)}}
		for i, text := range c.others {
			all = append(all, Namespace{PID: string(rune('2' + i)), Table: Parse(text)})
		}
		own := all[0].Table
		var got []string
		for _, h := range findHolders(all, own[len(own)-1]) {
			at := h.Dir
			if h.PID != "" {
				at = h.PID + ":" + at
			}
			got = append(got, at)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
