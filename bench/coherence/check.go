package coherence

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Limits of the search for an order, which is exponential at worst.
const (
	wholeLimit  = 5 * time.Second
	prefixLimit = 5 * time.Second
)

// Violation is a part of a history that no order explains.
type Violation struct {
	Part      string
	Undecided bool   // the search was given up
	Text      string // the window, for people
	Page      string // file that draws the window, or ""
}

// Check looks for an order of every part of the calls of one arena. Pages go
// to the directory dir, if one is given. local is for calls on a local
// filesystem, whose modification times are coarse and whose inode numbers come
// again.
func Check(calls []Call, dir string, local bool) (out []Violation) {
	parts := map[string][]*item{}
	for i := range calls {
		c := &calls[i]
		if c.Bad != "" {
			out = append(out, Violation{Part: "call", Text: fmt.Sprintf("%v: %s", c, c.Bad)})
		}
		for _, f := range c.Facts {
			parts[f.Part] = append(parts[f.Part], &item{Fact: f, call: c})
		}
	}
	var all []string
	for p := range parts {
		all = append(all, p)
	}
	slices.Sort(all)
	for _, p := range all {
		items := parts[p]
		slices.SortStableFunc(items, func(a, b *item) int { return cmp.Compare(a.call.End, b.call.End) })
		if strings.HasPrefix(p, "time/") {
			out = append(out, checkTimes(p, items, !local)...)
			continue
		}
		if local && strings.HasPrefix(p, "mode/") {
			continue
		}
		if p == logPart {
			lost := placeRecords(items)
			out = append(out, lost...)
			if len(lost) > 0 {
				continue // the search would only be long
			}
		}
		if porcupine.CheckOperationsTimeout(modelOf(p, nil), operations(items), wholeLimit) != porcupine.Ok {
			out = append(out, explain(p, items, dir))
		}
	}
	return out
}

// operations are the items for porcupine, of which one whose outcome is not
// known has no end.
func operations(items []*item) []porcupine.Operation {
	ops := make([]porcupine.Operation, len(items))
	for i, it := range items {
		ops[i] = porcupine.Operation{ClientId: it.call.Worker, Input: it, Call: it.call.Start, Return: it.call.End}
		if it.maybe {
			ops[i].Return = math.MaxInt64
		}
	}
	return ops
}

// prefix is what had happened when the n-th item, by its end, returned: of the
// calls still open then only the changes, whose outcome is not known.
func prefix(items []*item, n int) []*item {
	end := items[n-1].call.End
	out := slices.Clone(items[:n])
	for _, it := range items[n:] {
		switch {
		case it.call.End == end: // of the same call
			out = append(out, it)
		case it.call.Start <= end && changes(it.Fact):
			late := *it
			late.maybe = true
			out = append(out, &late)
		}
	}
	return out
}

// explain finds the shortest prefix without an order.
func explain(part string, items []*item, dir string) Violation {
	bad := func(n int) bool {
		return porcupine.CheckOperationsTimeout(modelOf(part, nil), operations(prefix(items, n)), prefixLimit) == porcupine.Illegal
	}
	n := 1
	for n < len(items) && !bad(n) {
		n *= 2
	}
	if n >= len(items) {
		n = len(items)
		if !bad(n) {
			return Violation{Part: part, Undecided: true, Text: fmt.Sprintf("no order of %d calls found, nor shown to be impossible, in %v", len(items), wholeLimit)}
		}
	}
	from := n/2 + 1
	n = from + sort.Search(n-from, func(i int) bool { return bad(from + i) })
	return window(part, items, n, dir)
}

// window cuts the history before the n-th item at the latest moment at which
// no call was open, such that what follows fails from the state that was then.
func window(part string, items []*item, n int, dir string) Violation {
	all := prefix(items, n)
	slices.SortStableFunc(all, func(a, b *item) int { return cmp.Compare(a.call.Start, b.call.Start) })
	v := Violation{Part: part}
	cut, start := 0, []any(nil)
	for i := len(all) - 1; i > 0; i-- {
		if !quiet(all, i) {
			continue
		}
		if s := stateAfter(part, all[:i]); s != nil &&
			porcupine.CheckOperationsTimeout(modelOf(part, s), operations(all[i:]), prefixLimit) == porcupine.Illegal {
			cut, start = i, s
			break
		}
	}
	m := modelOf(part, start)
	_, info := porcupine.CheckOperationsVerbose(m, operations(all[cut:]), prefixLimit)
	v.Text = describe(m, all, cut, items[n-1])
	if dir != "" {
		v.Page = filepath.Join(dir, strings.ReplaceAll(part, "/", "-")+".html")
		if err := porcupine.VisualizePath(m, info, v.Page); err != nil {
			v.Page = err.Error()
		}
	}
	return v
}

// quiet tells whether no call was open when the i-th began.
func quiet(all []*item, i int) bool {
	for _, it := range all[:i] {
		if it.maybe || it.call.End >= all[i].call.Start {
			return false
		}
	}
	return true
}

// stateAfter is a state in which the items can have left a part.
func stateAfter(part string, items []*item) []any {
	m := modelOf(part, nil)
	res, info := porcupine.CheckOperationsVerbose(m, operations(items), prefixLimit)
	if res != porcupine.Ok {
		return nil
	}
	state := m.Init()
	for _, op := range info.PartialLinearizationsOperations()[0][0] {
		_, state = m.Step(state, op.Input, op.Output)
	}
	return state.([]any)
}

// describe lists the window and a few calls before it.
func describe(m porcupine.Model, all []*item, cut int, last *item) string {
	const before, most = 6, 60
	var b strings.Builder
	zero := all[max(0, cut-before)].call.Start
	for i, it := range all {
		if i < cut-before || i < len(all)-most {
			continue
		}
		if i == cut {
			fmt.Fprintf(&b, "  --- state %s ---\n", m.DescribeState(m.Init()))
		}
		mark := " "
		switch {
		case it == last:
			mark = "*"
		case it.maybe:
			mark = "?"
		}
		fmt.Fprintf(&b, "%s %9.3f .. %9.3f ms  %v  [%v]\n", mark, float64(it.call.Start-zero)/1e6, float64(it.call.End-zero)/1e6, it.call, it.Fact)
	}
	return b.String()
}

// placeRecords tells each append of a log where its record stands in the
// longest content that was read: it must have been done at that length. This
// spares the search all other orders of appends. Records that a later read
// lacks are violations, the first alone is told.
func placeRecords(items []*item) []Violation {
	var longest *item
	for _, it := range items {
		if it.Kind == "read" && (longest == nil || len(it.S) > len(longest.S)) {
			longest = it
		}
	}
	if longest == nil {
		return nil
	}
	for _, it := range items {
		if it.Kind != "append" {
			continue
		}
		if i := strings.Index(longest.S, it.S); i >= 0 {
			it.A = i + 1
		} else if it.call.End < longest.call.Start {
			return []Violation{{Part: logPart, Text: fmt.Sprintf("record lost: %v, then %v", it.call, longest.call)}}
		}
	}
	return nil
}

// checkTimes demands that a modification time never goes back, and, if strict,
// that it grows with every change: facts stat(time) and change.
func checkTimes(part string, items []*item, strict bool) []Violation {
	for _, b := range items {
		if b.Kind != "stat" {
			continue
		}
		for _, a := range items {
			if a.Kind != "stat" || a.call.End >= b.call.Start {
				continue
			}
			if b.N < a.N {
				return []Violation{{Part: part, Text: fmt.Sprintf("time goes back by %d ns: %v, then %v", a.N-b.N, a.call, b.call)}}
			}
			for _, c := range items {
				if strict && b.N == a.N && c.Kind == "change" && a.call.End < c.call.Start && c.call.End < b.call.Start {
					return []Violation{{Part: part, Text: fmt.Sprintf("time stands still: %v, then %v, then %v", a.call, c.call, b.call)}}
				}
			}
		}
	}
	return nil
}
