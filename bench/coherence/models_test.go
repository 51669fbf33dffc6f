package coherence

import (
	"strings"
	"testing"
)

// at is a call of a worker from one time to another that tells one fact.
func at(worker int, start, end int64, f Fact) Call {
	return Call{Worker: worker, Mount: worker, Text: f.String(), Start: start, End: end, Facts: []Fact{f}}
}

// Small histories by hand: the models and the checker can tell right from
// wrong, and tell where it is.
func TestModels(t *testing.T) {
	names := func(kind string, a, b int, ino uint64) Fact {
		return Fact{Part: namesPart, Kind: kind, A: a, B: b, N: ino}
	}
	reg := func(kind string, v uint64) Fact { return Fact{Part: "reg/0", Kind: kind, N: v} }
	txt := func(kind string, a int, s string) Fact { return Fact{Part: textPart, Kind: kind, A: a, S: s} }
	log := func(kind, s string) Fact { return Fact{Part: logPart, Kind: kind, A: 0, S: s} }
	lock := func(kind string, w, mode int) Fact { return Fact{Part: "lock/flock", Kind: kind, A: w, B: mode} }
	for _, tt := range []struct {
		name  string
		calls []Call
		wrong string // a part of the text of the violation; "": none
	}{
		{"read of what was written", []Call{at(0, 1, 2, reg("write", 7)), at(1, 3, 4, reg("read", 7))}, ""},
		{"stale read", []Call{at(0, 1, 2, reg("write", 7)), at(1, 3, 4, reg("read", 0))}, "* "},
		{"read during the write", []Call{at(0, 1, 9, reg("write", 7)), at(1, 2, 3, reg("read", 7)), at(2, 2, 3, reg("read", 0))}, ""},
		{"new, then old, during the write", []Call{at(0, 1, 9, reg("write", 7)), at(1, 2, 3, reg("read", 7)), at(2, 4, 5, reg("read", 0))}, "? "},
		{"two exclusive creations", []Call{at(0, 1, 9, names("make", 0, isFile, 5)), at(1, 2, 8, names("make", 0, isFile, 6))}, "make"},
		{"negative lookup after creation", []Call{at(0, 1, 2, names("make", 0, isFile, 5)), at(1, 3, 4, names("is", 0, absent, 0))}, "is(0,0)"},
		{"both names during a rename", []Call{
			at(0, 1, 2, names("make", 0, isFile, 5)), at(0, 3, 9, names("move", 0, 1, 0)),
			at(1, 4, 5, names("is", 1, isFile, 5)), at(1, 6, 7, names("is", 0, isFile, 5)),
		}, "is(0,1 5)"},
		{"two renames of one file to the same name", []Call{
			at(0, 1, 2, names("make", 0, isFile, 5)), at(0, 3, 9, names("move", 0, 1, 0)), at(1, 3, 9, names("move", 0, 1, 0)),
			at(1, 10, 11, names("is", 0, absent, 0)), at(1, 10, 11, names("is", 1, isFile, 5)),
		}, ""},
		{"rename that did nothing", []Call{
			at(0, 1, 2, names("make", 0, isFile, 5)), at(0, 3, 4, names("move", 0, 1, 0)), at(1, 5, 6, names("is", 0, isFile, 5)),
		}, "is(0,1 5)"},
		{"links", []Call{
			at(0, 1, 2, names("make", 0, isFile, 5)), at(0, 3, 4, names("link", 0, 1, 5)), at(1, 5, 6, names("count", 0, 2, 5)),
			at(1, 7, 8, names("del", 0, isFile, 0)), at(0, 9, 10, names("count", 0, 1, 5)),
		}, ""},
		{"links not seen", []Call{
			at(0, 1, 2, names("make", 0, isFile, 5)), at(0, 3, 4, names("link", 0, 1, 5)), at(1, 5, 6, names("count", 0, 1, 5)),
		}, "count"},
		{"file in a removed directory", []Call{
			at(0, 1, 2, Fact{Part: treePart, Kind: "make", A: 0, B: isDir}), at(0, 3, 4, Fact{Part: treePart, Kind: "rmdir"}),
			at(1, 5, 6, Fact{Part: treePart, Kind: "make", A: 1, B: isFile, N: 5}),
		}, "make(1,1 5)"},
		{"size before content", []Call{at(0, 1, 2, txt("pwrite", 2, "ab")), at(1, 3, 4, txt("size", 4, "")), at(1, 3, 4, txt("bytes", 0, "\x00\x00ab"))}, ""},
		{"cut, then longer", []Call{at(0, 1, 2, txt("pwrite", 0, "abcd")), at(0, 3, 4, txt("trunc", 1, "")), at(1, 5, 6, txt("size", 4, ""))}, "size"},
		{"bytes behind the cut", []Call{
			at(0, 1, 2, txt("pwrite", 0, "abcd")), at(0, 3, 4, txt("trunc", 1, "")), at(0, 5, 6, txt("trunc", 4, "")),
			at(1, 7, 8, txt("bytes", 0, "abcd")),
		}, "bytes"},
		{"appends", []Call{at(0, 1, 9, log("append", "a1")), at(1, 1, 9, log("append", "b1")), at(1, 10, 11, log("read", "b1a1"))}, ""},
		{"record lost", []Call{at(0, 1, 9, log("append", "a1")), at(1, 1, 9, log("append", "b1")), at(1, 10, 11, log("read", "a1"))}, "lost"},
		{"records in the wrong order", []Call{at(0, 1, 2, log("append", "a1")), at(1, 3, 4, log("append", "b1")), at(1, 10, 11, log("read", "b1a1"))}, "append"},
		{"two shared locks", []Call{at(0, 1, 2, lock("lock", 0, shared)), at(1, 3, 4, lock("lock", 1, shared)), at(2, 5, 6, lock("busy", 2, exclusive))}, ""},
		{"two exclusive locks", []Call{at(0, 1, 2, lock("lock", 0, exclusive)), at(1, 3, 4, lock("lock", 1, exclusive))}, "lock(1,2)"},
		{"busy without a holder", []Call{at(0, 1, 2, lock("lock", 0, exclusive)), at(0, 3, 4, lock("unlock", 0, 0)), at(1, 5, 6, lock("busy", 1, exclusive))}, "busy"},
		{"time goes back", []Call{at(0, 1, 2, Fact{Part: "time/r", Kind: "stat", N: 9}), at(1, 3, 4, Fact{Part: "time/r", Kind: "stat", N: 8})}, "back"},
		{"time stands still", []Call{
			at(0, 1, 2, Fact{Part: "time/r", Kind: "stat", N: 9}), at(1, 3, 4, Fact{Part: "time/r", Kind: "change"}), at(0, 5, 6, Fact{Part: "time/r", Kind: "stat", N: 9}),
		}, "still"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := Check(tt.calls, "", false)
			switch {
			case tt.wrong == "" && len(found) > 0:
				t.Errorf("found %+v", found)
			case tt.wrong != "" && len(found) != 1:
				t.Fatalf("%d violations", len(found))
			case tt.wrong != "" && (found[0].Undecided || !strings.Contains(found[0].Text, tt.wrong)):
				t.Errorf("%q not in:\n%s", tt.wrong, found[0].Text)
			}
		})
	}
}

// The window shows where it goes wrong, and not all that went well before.
func TestWindow(t *testing.T) {
	var calls []Call
	for i := range int64(100) {
		f := Fact{Part: "reg/0", Kind: "write", N: uint64(i)}
		calls = append(calls, at(0, 10*i, 10*i+5, f), at(1, 10*i+6, 10*i+9, Fact{Part: "reg/0", Kind: "read", N: uint64(i)}))
	}
	calls[81].Facts[0].N = 3 // what was read then
	dir := t.TempDir()
	found := Check(calls, dir, false)
	if len(found) != 1 || found[0].Page != dir+"/reg-0.html" {
		t.Fatalf("%+v", found)
	}
	lines := strings.Split(strings.TrimSpace(found[0].Text), "\n")
	if len(lines) > 10 || !strings.Contains(lines[len(lines)-1], "*") || !strings.Contains(lines[len(lines)-2], "state {40}") {
		t.Errorf("window:\n%s", found[0].Text)
	}
}
