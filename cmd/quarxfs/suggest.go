package main

import (
	"cmp"
	"slices"
	"strings"
)

// synonyms are words that other programs have for ours.
var synonyms = map[string][]string{
	"delete": {"rm", "remove", "revoke"}, "del": {"rm", "remove", "revoke"}, "remove": {"rm", "revoke"}, "rm": {"remove", "revoke"},
	"destroy": {"rm", "remove"}, "erase": {"rm", "remove"}, "drop": {"rm", "remove"}, "unlink": {"rm"}, "forget": {"rm", "remove", "prune"},
	"ls": {"list", "list-files", "objects"}, "dir": {"list", "list-files"}, "list": {"objects", "list-files", "list-blocks"},
	"find": {"list-files"}, "files": {"list-files"}, "blocks": {"list-blocks"}, "snapshots": {"snapshot"},
	"make": {"create", "init"}, "new": {"create", "add", "init"}, "add": {"create", "put"}, "take": {"create"}, "mkfs": {"init"}, "format": {"init"},
	"create": {"add", "init", "snapshot"}, "unmount": {"umount"}, "status": {"stats", "list"}, "info": {"show", "stats", "status"}, "show": {"list", "stats", "status"},
	"get": {"show", "cat"}, "df": {"stats"}, "usage": {"du"}, "size": {"du", "stats"}, "mv": {"rename"}, "move": {"rename", "relocate", "demote"}, "cp": {"clone", "put"},
	"copy": {"clone", "sync"}, "restore": {"snapshot"}, "rollback": {"snapshot"}, "revert": {"rollback"}, "undo": {"rollback"}, "clone": {"snapshot"}, "diff": {"snapshot"},
	"lock": {"hold"}, "unlock": {"release"}, "unhold": {"release"}, "fetch": {"pull"}, "send": {"push"}, "receive": {"pull"}, "push": {"sync"}, "pull": {"sync"},
	"check": {"fsck", "scrub"}, "verify": {"scrub", "fsck"}, "repair": {"fsck"}, "clean": {"gc"}, "prune": {"snapshot", "gc"}, "compact": {"gc", "optimize"}, "trim": {"gc"},
	"recompress": {"optimize"}, "compress": {"optimize"},
	"store": {"put"}, "upload": {"put"}, "download": {"get"}, "man": {"help"}, "schedule": {"policy"}, "quiet": {"json"}, "yes": {"force"},
	"replace": {"relocate"}, "set-dir": {"relocate"}, "detach": {"drain", "remove"}, "evacuate": {"drain"}, "freeze": {"demote"},
	"thaw": {"promote"}, "login": {"token"}, "dryrun": {"dry-run"}, "simulate": {"dry-run"},
}

// nearest returns which of the known words may be meant: those that begin with what was typed or
// hardly differ from it, the nearest first, else its synonyms among them.
func nearest(typed string, known []string) []string {
	typed = strings.ToLower(typed)
	type candidate struct {
		word string
		off  int
	}
	var near []candidate
	for _, k := range known {
		off := distance(typed, k)
		// Two letters off are a slip in a long word, and another word among short ones.
		allowed := min(2, len(typed)/3+1, len(k)/2)
		if strings.HasPrefix(k, typed) && typed != "" {
			off, allowed = 0, 0
		}
		if off <= allowed {
			near = append(near, candidate{k, off})
		}
	}
	for _, k := range synonyms[typed] {
		if slices.Contains(known, k) {
			near = append(near, candidate{k, 1})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.off, b.off) })
	var words []string
	for _, c := range near {
		if c.off == near[0].off && !slices.Contains(words, c.word) && len(words) < 3 {
			words = append(words, c.word)
		}
	}
	return words
}

// distance is how many letters must be put in, left out, changed or swapped with their
// neighbour to make a of b (Damerau and Levenshtein, each letter edited once).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			// Swapped neighbours are one slip and not two.
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
