package posix

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"agentdrive/fuseclient"
	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metatest"
)

// testLog sends log lines to the test's log.
type testLog struct{ t testing.TB }

func (w testLog) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// openSession opens a session until the test ends.
func openSession(t testing.TB, cfg fuseclient.Config) *fuseclient.Client {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := fuseclient.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

// session does to a client what the kernel would: it holds references to the
// inodes of open handles, flushes at close, and forgets all else at once.
type session struct {
	*metatest.Client
	c    *fuseclient.Client
	refs map[meta.Ino]uint64
	open map[meta.Ino]bool
}

var _ metatest.ContentBackend = (*sessionBackend)(nil)

// sessionBackend is the side of a session that metatest.Client calls.
type sessionBackend struct{ *session }

// newSession makes a target of the directory root.
func newSession(c *fuseclient.Client, root meta.Ino) *session {
	s := &session{c: c, refs: map[meta.Ino]uint64{}, open: map[meta.Ino]bool{}}
	s.Client = metatest.NewClient(sessionBackend{s}, root, 1)
	return s
}

// Do implements metatest.Target.
func (s *session) Do(op metatest.Op) metatest.Outcome {
	out := s.Client.Do(op)
	for ino := range s.refs {
		switch {
		case !s.Holds(ino):
			s.c.Forget(ino, s.refs[ino])
			delete(s.refs, ino)
		case !s.open[ino]:
			s.open[ino] = true
			s.c.OpenFile(ino)
		}
	}
	return out
}

// Do implements metatest.Backend.
func (b sessionBackend) Do(op meta.Op, _ int64) (meta.Result, error) {
	res, err := b.c.Exec(op)
	if err != nil {
		return nil, err
	}
	switch r := res.(type) {
	case *meta.EntryResult:
		b.refs[r.Attr.Ino]++
	case *meta.DirResult:
		for _, e := range r.Entries {
			if r.Plus {
				b.refs[e.Attr.Ino]++
			}
		}
	}
	return res.(meta.Result), nil
}

// Forget implements metatest.Backend: the last handle was closed, perhaps to
// be opened again. References go when the operation is over.
func (b sessionBackend) Forget(ino meta.Ino) {
	if b.open[ino] {
		b.c.Exec(core.Flush{Ino: ino}) // what it reports, the next reader misses
		b.c.CloseFile(ino)
		delete(b.open, ino)
	}
}

// WriteFile implements metatest.ContentBackend.
func (b sessionBackend) WriteFile(cred meta.Cred, ino meta.Ino, off uint64, data []byte, end bool) error {
	_, err := b.c.Exec(core.WriteFile{Cred: cred, Ino: ino, Off: off, Data: data, Append: end, KillPriv: cred.UID != 0})
	return err
}

// ReadFile implements metatest.ContentBackend.
func (b sessionBackend) ReadFile(ino meta.Ino, off, n uint64) ([]byte, error) {
	res, err := b.c.Exec(core.ReadFile{Ino: ino, Off: off, Len: uint32(n)})
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	got, err := b.c.ReadData(nil, res.(*core.FilePlan), buf)
	return buf[:got], err
}

// mkdir makes a directory in a session, to which the session keeps its
// reference.
func mkdir(t testing.TB, c *fuseclient.Client, parent meta.Ino, name string) meta.Ino {
	t.Helper()
	res, err := c.Exec(&meta.Make{Parent: parent, Name: name, Mode: meta.ModeDir | 0o755, Excl: true})
	if err != nil {
		t.Fatal(errs.E("mkdir", errs.KindOf(err), name, err))
	}
	return res.(*meta.EntryResult).Attr.Ino
}
