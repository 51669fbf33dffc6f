package kernel

import "testing"

// TestDropDueTwice: a drop that two changes kept is due once more when the
// second ends while it is carried out for the first.
func TestDropDueTwice(t *testing.T) {
	l := newLedger()
	a, b := &change{ino: 5, all: true}, &change{ino: 5, all: true}
	l.enter(a)
	l.enter(b)
	d := l.promise(5, span{0, pageSize})
	for _, ch := range []*change{a, b} {
		ch.drops = append(ch.drops, d)
	}
	if !l.makeDue(5, l.leave(a)) {
		t.Fatal("nobody looks after a drop that is due")
	}
	first := l.takeDue(5)
	l.makeDue(5, l.leave(b)) // while the first is under way
	l.dropped(first)
	l.dropped(l.takeDue(5))
	if due := l.takeDue(5); len(due) != 0 {
		t.Fatal("due a third time")
	}
	<-d.done
	if l.busy.Load() != 0 || len(l.files) != 0 {
		t.Fatalf("%d drops are counted, %d files remembered", l.busy.Load(), len(l.files))
	}
}
