package main

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

//go:embed wide.tsv
var wideTable string

// How many columns a line may have; a tab takes four.
const (
	commentColumns = 100
	codeColumns    = 180
	docColumns     = 120 // outside of tables and of what a command printed
)

const wideComment = `# Files with lines that are too wide, and how many: a list that only gets shorter.
# After mending some: go test ./tools/house -update
`

// wideLines returns the numbers of a file's lines that are too wide.
func wideLines(f *file) []int {
	var wide []int
	literal := false
	for i, line := range strings.Split(string(f.text), "\n") {
		most := docColumns
		trimmed := strings.TrimSpace(line)
		switch {
		case f.ast != nil && strings.HasPrefix(trimmed, "//\t"):
			most = docColumns // a drawing or a table
		case f.ast != nil && strings.HasPrefix(trimmed, "//"):
			most = commentColumns
		case f.ast != nil:
			most = codeColumns
		case strings.HasPrefix(trimmed, "```"):
			literal = !literal
			continue
		case literal || strings.HasPrefix(trimmed, "|"):
			continue
		}
		if utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")) > most {
			wide = append(wide, i+1)
		}
	}
	return wide
}

// parseWide reads wide.tsv.
func parseWide(table string) (map[string]int, error) {
	counts := make(map[string]int)
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, count, _ := strings.Cut(line, "\t")
		n, err := strconv.Atoi(count)
		if err != nil {
			return nil, fmt.Errorf("wide.tsv: %q: want path, tab, count", line)
		}
		counts[path] = n
	}
	return counts, nil
}

func formatWide(counts map[string]int) string {
	var b strings.Builder
	b.WriteString(wideComment)
	for _, path := range slices.Sorted(maps.Keys(counts)) {
		if counts[path] > 0 {
			fmt.Fprintf(&b, "%s\t%d\n", path, counts[path])
		}
	}
	return b.String()
}
