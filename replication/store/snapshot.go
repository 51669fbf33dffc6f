package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"agentdrive/internal/errs"
)

// Export writes the whole state of the view as a snapshot stream (stream.go
// has the format), in memory bounded by one chunk. Errors of w are returned
// as they are.
func (v *View) Export(w io.Writer) error {
	s, err := newStreamWriter(w)
	if err != nil {
		return err
	}
	if err := s.frame(&frame{Kind: frameHeader, Applied: v.at}); err != nil {
		return err
	}
	x := exporter{s: s}
	err = v.scan([]byte{prefixReserved}, []byte{prefixUser + 1}, x.pair)
	if err == nil {
		err = x.err
	}
	if err == nil {
		err = x.flush()
	}
	if err != nil {
		return err
	}
	if err := s.frame(&frame{Kind: frameEnd, Seq: x.seq, Count: x.count}); err != nil {
		return err
	}
	return s.w.Flush()
}

// exporter gathers pairs into chunks.
type exporter struct {
	s     *streamWriter
	pairs []pair
	size  int
	seq   uint64
	count uint64
	err   error
}

func (x *exporter) pair(key, val []byte) bool {
	if string(key) == string(appliedKey) {
		return true // in the header
	}
	buf := append(append(make([]byte, 0, len(key)+len(val)), key...), val...)
	x.pairs = append(x.pairs, pair{Key: buf[:len(key):len(key)], Val: buf[len(key):]})
	x.size += len(buf)
	if x.size >= chunkTarget {
		x.err = x.flush()
	}
	return x.err == nil
}

func (x *exporter) flush() error {
	if len(x.pairs) == 0 {
		return nil
	}
	x.seq++
	x.count += uint64(len(x.pairs))
	err := x.s.frame(&frame{Kind: frameChunk, Seq: x.seq, Pairs: x.pairs})
	x.pairs, x.size = x.pairs[:0], 0
	return err
}

// Restore replaces the whole state by that of a snapshot stream, durably. A
// crash on the way leaves the old state or the new one, never a mix; an error
// (errs.Corrupt for a bad stream) leaves the old one. It waits for the open
// transaction. Open views keep showing the state they were opened on.
func (s *Store) Restore(r io.Reader) error {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed("store.restore")
	}
	old := s.gen
	s.mu.Unlock()

	num := old.num + 1
	at, err := s.fill(num, r)
	if err != nil {
		if rerr := os.RemoveAll(generationDir(s.opts.Dir, num)); rerr != nil {
			s.opts.Log.Warn("left-over generation of the store stays until the next start", "err", rerr)
		}
		return err
	}
	g, got, err := openGeneration(s.opts, num)
	if err != nil {
		return err
	}
	if got != at {
		return errors.Join(errs.E("store.restore", errs.Corrupt,
			fmt.Sprintf("restored state is at %d, the snapshot at %d", got.Index, at.Index), nil), g.close())
	}
	if err := syncDir(s.opts.Dir); err != nil {
		return errors.Join(err, g.close())
	}
	if err := writeCurrent(s.opts.Dir, num); err != nil {
		// Whether the switch is durable is unknown: neither state may go on.
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		return errors.Join(err, g.close())
	}
	s.adopt(g, at)
	s.mu.Lock()
	s.failed = nil
	s.retireLocked(old)
	s.mu.Unlock()
	s.bg.Add(1)
	go s.dispose(old)
	return nil
}

// fill writes the stream into generation num and closes it: Close brings all
// memory tables to disk.
func (s *Store) fill(num uint64, r io.Reader) (Applied, error) {
	stream, at, err := newStreamReader(r)
	if err != nil {
		return Applied{}, err
	}
	if at.Index == 0 {
		return Applied{}, errs.E("store.restore", errs.Invalid, "snapshot of the empty state", nil)
	}
	if err := os.RemoveAll(generationDir(s.opts.Dir, num)); err != nil {
		return Applied{}, errs.E("store.restore", errs.IO, "", err)
	}
	g, _, err := openGeneration(s.opts, num)
	if err != nil {
		return Applied{}, err
	}
	if err := g.fill(stream, at); err != nil {
		return Applied{}, errors.Join(err, g.close())
	}
	if err := g.close(); err != nil {
		return Applied{}, err
	}
	return at, syncDir(g.dir)
}

func (g *generation) fill(stream *streamReader, at Applied) error {
	c := newCommit(g, at.Index)
	defer func() { c.discard() }()
	for {
		pairs, err := stream.chunk()
		if err != nil {
			return err
		}
		if pairs == nil {
			break
		}
		for _, p := range pairs {
			if p.Key[0] != prefixUser && p.Key[0] != prefixReserved || string(p.Key) == string(appliedKey) {
				return stream.corrupt(fmt.Sprintf("key with prefix %q", p.Key[0]), nil)
			}
			if err := c.put(p.Key, p.Val, false); err != nil {
				return badgerError("store.restore", g.dir, err)
			}
		}
	}
	if err := c.end(at); err != nil {
		return badgerError("store.restore", g.dir, err)
	}
	return nil
}

// dispose removes a replaced generation once nobody reads it.
func (s *Store) dispose(g *generation) {
	defer s.bg.Done()
	<-g.idle
	if err := g.close(); err != nil {
		s.opts.Log.Warn("closing the replaced generation of the store", "err", err)
	}
	if err := os.RemoveAll(g.dir); err != nil {
		s.opts.Log.Warn("left-over generation of the store stays until the next start", "err", err)
	}
}

// Verify reads every table and checks its checksums. A scan that meets a
// damaged block ends early inside Badger without an error, so owners run this
// beside their work after Open. Kind errs.Corrupt.
func (s *Store) Verify() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed("store.verify")
	}
	g := s.gen
	g.refs++
	s.mu.Unlock()
	defer s.unref(g)
	return g.verify()
}

// verify turns the crash of Badger's check into an error: on a damaged block
// Badger 4.9.6 formats its message from the block that it could not read
// (table.VerifyChecksum), a nil dereference.
func (g *generation) verify() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errs.E("store.verify", errs.Corrupt, fmt.Sprintf("%s: a table has a damaged block (%v)", g.dir, r), nil).
				WithHint(HintRebuild)
		}
	}()
	if err := g.db.VerifyChecksum(); err != nil {
		return badgerError("store.verify", g.dir, err)
	}
	return nil
}
