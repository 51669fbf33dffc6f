package fuseclient_test

import (
	"fmt"
	"testing"

	"agentdrive/fuseclient"
	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// TestStrict: a strict session never has anything that the servers do not have,
// and believes what it read all the same.
func TestStrict(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.createDrive("d", 1)
	a := c.openWith("a", "d", func(cfg *fuseclient.Config) { cfg.Strict = true })
	durable := func(what string) {
		t.Helper()
		if s := a.Stats(); s.LogRecords != 0 || s.UnpublishedBytes != 0 || s.WriteLeases != 0 || len(kept(t, a)) != 0 {
			t.Fatalf("after %s: %+v", what, s)
		}
	}
	dir := do[*meta.EntryResult](t, a, &meta.Make{Parent: a.Root().Ino, Name: "dir", Mode: meta.ModeDir | 0o755}).Attr.Ino
	durable("mkdir")
	for i := range 3 {
		f := create(t, a, dir, fmt.Sprint("f", i))
		durable("create")
		do[*meta.AttrResult](t, a, core.WriteFile{Ino: f.Ino, Data: []byte("strict")})
		durable("write")
		do[*meta.AttrResult](t, a, &meta.Rename{OldParent: dir, OldName: fmt.Sprint("f", i), NewParent: dir, NewName: fmt.Sprint("g", i)})
		durable("rename")
	}
	for range 2 {
		do[*meta.EntryResult](t, a, &meta.Lookup{Parent: dir, Name: "g1"})
	}
	before := a.Stats().Waits
	do[*meta.EntryResult](t, a, &meta.Lookup{Parent: dir, Name: "g1"})
	if after := a.Stats().Waits; after != before {
		t.Errorf("a name that was looked up before costs %d round trips", after-before)
	}
	b := c.open("b", "d", "/")
	if _, err := b.Exec(&meta.Lookup{Parent: dir, Name: "f1"}); !errs.Is(err, errs.NotExist) {
		t.Errorf("another session finds the old name: %v", err)
	}
	if got := read(t, b, do[*meta.EntryResult](t, b, &meta.Lookup{Parent: dir, Name: "g1"}).Attr.Ino, 0, 10); got != "strict" {
		t.Errorf("another session reads %q", got)
	}
}
