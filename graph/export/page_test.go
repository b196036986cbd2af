package export

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dop251/goja"
)

//go:embed testdata/browser.js
var browser string

// TestPage runs the page's scripts: it draws, finds, tells and hides.
func TestPage(t *testing.T) {
	g := sample()
	vm := goja.New()
	eval := func(code string) goja.Value {
		t.Helper()
		v, err := vm.RunString(code)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	drawn := func() (arcs int, texts []string) {
		t.Helper()
		var d struct {
			Arcs  int      `json:"arcs"`
			Texts []string `json:"texts"`
		}
		vm.SetFieldNameMapper(goja.TagFieldNameMapper("json", true))
		if err := vm.ExportTo(eval(`settle()`), &d); err != nil {
			t.Fatal(err)
		}
		return d.Arcs, d.Texts
	}
	eval(browser)
	for _, s := range regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllSubmatch(render(t, g, "html"), -1) {
		eval(string(s[1]))
	}
	all, texts := drawn()
	if all != len(g.Nodes) || len(texts) == 0 {
		t.Errorf("%d circles for %d nodes, and the texts %q", all, len(g.Nodes), texts)
	}

	root := slices.IndexFunc(g.Nodes, func(n Node) bool { return n.Label != "" })
	label := strings.TrimSpace(g.Nodes[root].Label)
	vm.Set("label", label)
	eval(`elements.search.value = label; elements.search.fire('input'); elements.search.fire('keydown', {key: 'Enter'})`)
	if _, texts = drawn(); !slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, label) }) {
		t.Errorf("searched for %q, and the texts are %q", label, texts)
	}
	if hits := eval(`elements.hits.textContent`).String(); !strings.HasPrefix(hits, "1 / ") {
		t.Errorf("hits %q", hits)
	}
	if shown := eval(`elements.details.hidden ? '' : elements.details.textContent`).String(); !strings.Contains(shown, label) {
		t.Errorf("details %q", shown)
	}
	eval(`document.fire('keydown', {key: 'Escape'})`)
	if !eval(`elements.details.hidden`).ToBoolean() {
		t.Error("the details stay after Escape")
	}

	eval(`for (const li of elements.kinds.children) {
		const box = li.children[0].children[0];
		if (box.type === 'checkbox') { box.checked = false; box.onchange(); }
	}`)
	if arcs, _ := drawn(); arcs != 0 {
		t.Errorf("%d circles of kinds that are hidden", arcs)
	}
}
