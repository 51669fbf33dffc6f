package posix

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"agentdrive/metaserver/metatest"
	"agentdrive/metaserver/model"
	"agentdrive/metaserver/posixtest"
)

// length is the number of operations in a random sequence.
const length = 250

// pair makes two fresh targets that must behave alike. done ends them.
type pair func(t *testing.T) (a, b metatest.Target, done func())

// compare runs random sequences over pairs of targets. A failure is shrunk and
// printed with the command that repeats it.
func compare(t *testing.T, cfg metatest.Config, fresh pair) {
	first, n := uint64(0), uint64(8)
	if s := os.Getenv("POSIX_SEEDS"); s != "" {
		n = number(t, s)
	}
	if s := os.Getenv("POSIX_SEED"); s != "" {
		first, n = number(t, s), 1
	}
	once := func(ops []metatest.Op) string {
		a, b, done := fresh(t)
		defer done()
		return metatest.Run(a, b, ops, metatest.Compare{})
	}
	for seed := first; seed < first+n; seed++ {
		c := cfg
		c.Names = 3 + int(seed%4)
		ops := metatest.Gen(seed, length, c)
		d := once(ops)
		if d == "" {
			continue
		}
		small := metatest.Shrink(ops, func(ops []metatest.Op) bool { return once(ops) != "" })
		t.Fatalf("seed %d: %s\nshrunk:\n%s%s\nreplay: POSIX_SEED=%d go test ./bench/posix -run '^%s$'",
			seed, d, metatest.Format(small), once(small), seed, t.Name())
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSessionRandom compares a session, without a kernel, with the model.
func TestSessionRandom(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	runs := 0
	compare(t, metatest.Config{}, func(t *testing.T) (a, b metatest.Target, done func()) {
		runs++
		s := newSession(c, mkdir(t, c, c.Root().Ino, fmt.Sprint(runs)))
		return s, model.New(0o755, 0), s.closeAll
	})
}

// closeAll closes all handles.
func (s *session) closeAll() {
	for h := 1; h <= metatest.Handles; h++ {
		s.Do(metatest.Op{Kind: metatest.Close, Handle: h})
	}
}

// TestSessionSuite runs the conformance suite over a session.
func TestSessionSuite(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	runs := 0
	posixtest.Run(t, posixtest.Options{Users: true, Xattrs: true}, func(t *testing.T) metatest.Target {
		runs++
		s := newSession(c, mkdir(t, c, c.Root().Ino, fmt.Sprint(runs)))
		t.Cleanup(s.closeAll)
		return s
	})
}

// TestMountRandom compares a mount with the model. Only root works in it: the
// model does not know which directories a user may search.
func TestMountRandom(t *testing.T) {
	dir := newMount(t)
	runs := 0
	compare(t, metatest.Config{Root: true, Local: true}, func(t *testing.T) (a, b metatest.Target, done func()) {
		runs++
		m := metatest.NewOS(subdir(t, dir, fmt.Sprint(runs)))
		return m, model.New(0o755, 0), m.Close
	})
}

// TestMountRandomUsers compares a mount with the local disk, with operations
// of several users.
func TestMountRandomUsers(t *testing.T) {
	dir := newMount(t)
	disk := real.local(t)
	runs := 0
	compare(t, metatest.Config{Local: true}, func(t *testing.T) (a, b metatest.Target, done func()) {
		runs++
		m := metatest.NewOS(subdir(t, dir, fmt.Sprint(runs)))
		l := metatest.NewOS(subdir(t, disk, fmt.Sprint(runs)))
		// Otherwise users can do nothing.
		for _, o := range [...]metatest.Target{m, l} {
			o.Do(metatest.Op{Kind: metatest.Chmod, Mode: 0o777})
		}
		return m, l, func() { l.Close(); m.Close() }
	})
}

// TestMountSuite runs the conformance suite over a mount.
func TestMountSuite(t *testing.T) {
	dir := newMount(t)
	runs := 0
	posixtest.Run(t, posixtest.Options{Users: true, Xattrs: true}, func(t *testing.T) metatest.Target {
		runs++
		m := metatest.NewOS(subdir(t, dir, fmt.Sprint(runs)))
		t.Cleanup(m.Close)
		return m
	})
}

// alternate does every second operation on another mount of one drive. A
// handle belongs to the mount that opened it. What is written is published at
// once: until there are leases, this is what another mount may rely on.
type alternate struct {
	mounts [2]*metatest.OS
	turn   int
	opened [metatest.Handles + 1]int
}

// Do implements metatest.Target.
func (a *alternate) Do(op metatest.Op) metatest.Outcome {
	a.turn ^= 1
	m := a.turn
	if op.Handle > 0 && op.Kind != metatest.Open {
		m = a.opened[op.Handle]
	}
	out := a.mounts[m].Do(op)
	if op.Kind == metatest.Open && out.Errno == 0 && a.opened[op.Handle] != m {
		a.mounts[m^1].Do(metatest.Op{Kind: metatest.Close, Handle: op.Handle})
		a.opened[op.Handle] = m
	}
	if op.Kind == metatest.Write && out.Errno == 0 {
		out.Errno = a.mounts[m].Sync(op.Handle)
	}
	return out
}

// TestTwoMountsRandom compares two mounts of one drive, used in turns, with
// the model.
func TestTwoMountsRandom(t *testing.T) {
	p := needMount(t)
	drive := p.drive(t)
	a, b := p.mount(t, drive), p.mount(t, drive)
	runs := 0
	compare(t, metatest.Config{Root: true, Local: true}, func(t *testing.T) (x, y metatest.Target, done func()) {
		runs++
		name := fmt.Sprint(runs)
		alt := &alternate{mounts: [2]*metatest.OS{metatest.NewOS(subdir(t, a, name)), metatest.NewOS(filepath.Join(b, name))}}
		return alt, model.New(0o755, 0), func() { alt.mounts[1].Close(); alt.mounts[0].Close() }
	})
}
