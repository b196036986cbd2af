package carrier

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// What a frame may say is read back as it was written; whatever else comes is an error.
func FuzzFrames(f *testing.F) {
	for _, c := range []change{
		{kind: kindMake, path: "hot/1.open"},
		{kind: kindWrite, path: "hot/1.open", offset: 1 << 30, data: []byte("bytes")},
		{kind: kindTruncate, path: "hot/1.open", offset: 7},
		{kind: kindRename, path: "hot/1.open", to: "hot/1.seg"},
		{kind: kindRemove, path: "hot/1.seg"},
		{kind: kindRoot, path: "quarxfs.json", data: []byte("{}")},
	} {
		b := c.encode(nil)
		got, err := decodeChange(c.kind, b)
		if got.data = bytes.Clone(got.data); err != nil || got.path != c.path || got.to != c.to || got.offset != c.offset || !bytes.Equal(got.data, c.data) {
			f.Errorf("%+v, %v, want %+v", got, err, c)
		}
		f.Add(byte(c.kind), b)
	}
	f.Add(byte(kindRows), appendRow(appendRow(nil, []byte("key"), []byte("value")), []byte("gone"), nil))
	f.Add(byte(kindListed), encodeListed("hot/1.seg", 5, []byte("tail")))
	f.Add(byte(kindMake), appendText(nil, "../out"))
	f.Add(byte(kindMake), appendText(nil, "hot/a/b"))
	log := mirror.Log{}.Append(1).Append(1).Append(4)
	f.Add(byte(kindCommit), encodeLog(log))
	if got, err := decodeLog(encodeLog(log)); err != nil || !reflect.DeepEqual(got, log) {
		f.Errorf("%+v, %v", got, err)
	}
	f.Fuzz(func(t *testing.T, k byte, b []byte) {
		if c, err := decodeChange(kind(k), b); err == nil {
			if again, err := decodeChange(c.kind, c.encode(nil)); err != nil || !reflect.DeepEqual(again, c) && len(again.data)+len(c.data) > 0 {
				t.Errorf("%+v became %+v, %v", c, again, err)
			}
		}
		_ = eachRow(b, func(key, value []byte) error { return nil })
		_, _, _, _ = decodeListed(b)
		if l, err := decodeLog(b); err == nil {
			if again, err := decodeLog(encodeLog(l)); err != nil || !reflect.DeepEqual(again, l) {
				t.Errorf("%+v became %+v, %v", l, again, err)
			}
		}
	})
}
