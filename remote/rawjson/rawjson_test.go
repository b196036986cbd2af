package rawjson

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

type inner struct {
	Name  string   `json:"name"`
	Paths []string `json:"paths,omitempty"`
}

type deep struct{ Label string }

type sample struct {
	inner
	*deep
	Path   string    `json:"path"`
	To     *string   `json:"to,omitempty"`
	Bytes  int64     `json:"raw_bytes"`
	At     time.Time `json:"at"`
	Zero   time.Time `json:"zero,omitzero"`
	Raw    []byte    `json:"blob,omitempty"`
	Below  []inner   `json:"below"`
	One    *inner    `json:"one,omitempty"`
	Any    any       `json:"any,omitempty"`
	Hidden string    `json:"-"`
	//lint:ignore U1000 what is not exported is left out
	private string
}

func values() []sample {
	bad := "a%\xff/\xf0\x9f"
	return []sample{
		{},
		{inner: inner{Name: "name", Paths: []string{"a", "\ufffd"}}, Path: "w\ufffd\u2028<&>\"\\\x01", Bytes: 5, Raw: []byte{1, 255}},
		{Path: bad, To: &bad, Bytes: 1 << 60, At: time.Unix(5, 6).UTC()},
		{inner: inner{Name: bad, Paths: []string{"good", bad, ""}}, deep: &deep{bad}, Below: []inner{{Name: bad}, {Paths: []string{bad}}}, One: &inner{Name: bad}},
	}
}

// TestRoundTrip: all bytes of a name arrive, and what is no name is as encoding/json has it.
func TestRoundTrip(t *testing.T) {
	for _, want := range values() {
		b, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(b) || bytes.Contains(b, []byte(`\ufffd`)) {
			t.Errorf("not exact: %s", b)
		}
		for _, read := range []func([]byte, any) error{Unmarshal, UnmarshalStrict} {
			var got sample
			if want.deep != nil {
				got.deep = new(deep) // encoding/json sets no embedded pointer to what is not exported
			}
			if err := read(b, &got); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{})); diff != "" {
				t.Errorf("%s: %s", b, diff)
			}
		}
	}
}

// TestSameAsJSON: where all is UTF-8, and beside the members for bytes, nothing is different.
func TestSameAsJSON(t *testing.T) {
	for _, v := range values() {
		b, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := plain(v)
		var got, want map[string]any
		for text, to := range map[*[]byte]*map[string]any{&b: &got, &p: &want} {
			if err := json.Unmarshal(*text, to); err != nil {
				t.Fatal(err)
			}
		}
		dropBytes(got)
		if diff := cmp.Diff(keys(want), keys(got)); diff != "" {
			t.Error(diff)
		}
	}
}

func dropBytes(m map[string]any) {
	for k := range m {
		if base, ok := strings.CutSuffix(k, Suffix); ok && m[base] != nil {
			delete(m, k)
		}
	}
}

func keys(m map[string]any) map[string]bool {
	all := make(map[string]bool)
	for k := range m {
		all[k] = true
	}
	return all
}

func TestReadable(t *testing.T) {
	for name, want := range map[string]string{"a%b": "a%b", "w\xff": "w%FF", "50%\xff": "50%25%FF", "\xe2\x82": "%E2%82", "€\xff": "€%FF", "\ufffd": "\ufffd"} {
		got := readable(name)
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		if back, err := url.PathUnescape(got); !utf8.ValidString(name) && (err != nil || back != name) {
			t.Errorf("%q: back it is %q, %v", name, back, err)
		}
	}
}

// TestRefused: nothing is guessed.
func TestRefused(t *testing.T) {
	for _, text := range []string{
		"{\"path\":\"w\xff\"}", `{"path":"w\udcff"}`, `{"path":"\ud800x"}`, `{"path":"\ud800\n"}`, `{"path":"\ud800"}`,
		`{"path_bytes":"%"}`, `{"paths_bytes":["%"]}`, `{"paths_bytes":[1]}`, `{"path":"a"} {}`, `{"path":`,
	} {
		if err := Unmarshal([]byte(text), new(sample)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if err := UnmarshalStrict([]byte(`{"path":"a","colour_bytes":"eA=="}`), new(sample)); err == nil {
		t.Error("an unknown member was read")
	}
	for text, want := range map[string]string{
		`{"path":"\ud83d\ude00"}`: "😀", `{"path":"\\ud800"}`: `\ud800`, `{"path":"\ufffd"}`: "\ufffd", `{"path_bytes" : "d/8="}`: "w\xff", "{\"path\":\"?\",\n\"path_bytes\":\t\"d/8=\"}": "w\xff",
	} {
		var got sample
		if err := UnmarshalStrict([]byte(text), &got); err != nil || got.Path != want {
			t.Errorf("%s: %q, %v", text, got.Path, err)
		}
	}
}

func TestWriteOneLine(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, inner{Name: "\xff"}); err != nil || out.String() != "{\"name\":\"%FF\",\"name_bytes\":\"/w==\"}\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
