package core

import (
	"fmt"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// fakeServer is a metadata server in memory: one directory, exactly-once by
// recorded outcome, pins by the book. It complains about every breach of the
// protocol through fault.
type fakeServer struct {
	fault     func(format string, args ...any)
	clock     int64
	lastSes   meta.SessionID
	lastIno   meta.Ino
	opened    map[[16]byte]meta.SessionID
	sessions  map[meta.SessionID]*fakeSession
	inodes    map[meta.Ino]*fakeInode
	names     map[string]meta.Ino
	blocks    map[chunk.BlockID]fakeBlock
	executed  map[meta.Op]bool
	published map[chunk.BlockID]bool
	again     func() bool // refuse a truncate with errs.Again?
	mapMax    int         // extents in one MapResult
	noSpace   bool        // refuse every Write
	lates     int
	now       int64 // time of the record being executed, 0 none

	fakeLeases
}

type fakeBlock struct {
	data  []byte
	owner chunk.Owner
}

type fakeSession struct {
	nonce    [16]byte
	ended    bool
	recorded map[meta.OpID]meta.Outcome
	acked    map[meta.OpID]bool
	pins     map[meta.Ino]uint32
	claimed  bool // the last Reclaim came, or none was needed
	log      uint64
}

type fakeInode struct {
	attr meta.Attr
	data []byte
}

func newFakeServer(fault func(string, ...any)) *fakeServer {
	return &fakeServer{
		fault: fault, lastIno: 100, mapMax: 1000,
		opened: map[[16]byte]meta.SessionID{}, sessions: map[meta.SessionID]*fakeSession{},
		inodes: map[meta.Ino]*fakeInode{}, names: map[string]meta.Ino{},
		blocks: map[chunk.BlockID]fakeBlock{}, published: map[chunk.BlockID]bool{}, executed: map[meta.Op]bool{},
		again: func() bool { return false },
	}
}

func (s *fakeServer) root() meta.Attr {
	return meta.Attr{Ino: meta.RootIno, Mode: meta.ModeDir | 0o755, Nlink: 2}
}

// hello answers Open and Resume.
func (s *fakeServer) hello(f meta.Frame) (meta.SessionID, meta.Frame) {
	gone := &meta.Evicted{Err: errs.E("session", errs.Expired, "", nil)}
	switch f := f.(type) {
	case *meta.Open:
		id, known := s.opened[f.Nonce]
		if !known {
			s.lastSes++
			id = s.lastSes
			s.opened[f.Nonce] = id
			s.sessions[id] = &fakeSession{
				nonce: f.Nonce, recorded: map[meta.OpID]meta.Outcome{}, acked: map[meta.OpID]bool{},
				pins: map[meta.Ino]uint32{}, claimed: true,
			}
		}
		if s.sessions[id].ended {
			return 0, gone
		}
		return id, s.welcome(id)
	case *meta.Resume:
		ses := s.sessions[f.Session]
		if ses == nil || ses.nonce != f.Nonce || f.Epoch != 1 {
			s.fault("resume of session %d with wrong secret", f.Session)
			return 0, gone
		}
		if ses.ended {
			return 0, gone
		}
		ses.pins, ses.claimed = map[meta.Ino]uint32{}, false
		clear(s.lease)
		return f.Session, s.welcome(f.Session)
	}
	s.fault("stream begins with %T", f)
	return 0, gone
}

func (s *fakeServer) welcome(id meta.SessionID) *meta.Welcome {
	return &meta.Welcome{Session: id, Epoch: 1, Root: s.root(), TTLMillis: 15000, LastLogSeq: s.sessions[id].log}
}

// frame takes a frame of an open stream. It returns what is sent at once and
// the reply, which may be sent later.
func (s *fakeServer) frame(id meta.SessionID, f meta.Frame) (now meta.Frame, reply *meta.Reply) {
	ses := s.sessions[id]
	if _, err := meta.DecodeFrame(meta.EncodeFrame(nil, f)); err != nil {
		s.fault("frame does not survive the wire: %v", err)
	}
	switch f := f.(type) {
	case *meta.Reclaim:
		if len(f.Pins) > pinsPerReclaim {
			s.fault("reclaim of %d pins", len(f.Pins))
		}
		for _, p := range f.Pins {
			ses.pins[p.Ino] = p.Count
		}
		for _, g := range f.Leases {
			s.lease[g.Ino] = g.Kind
		}
		ses.claimed = f.Last
	case *meta.Renew:
		return &meta.Renewed{Seq: f.Seq}, nil
	case *meta.Unpin:
		for _, p := range f.Pins {
			if ses.pins[p.Ino] < p.Count {
				s.fault("unpin %d of inode %d, counted %d", p.Count, p.Ino, ses.pins[p.Ino])
			}
			if ses.pins[p.Ino] -= p.Count; ses.pins[p.Ino] == 0 {
				delete(ses.pins, p.Ino)
			}
		}
	case *meta.Close:
		ses.ended = true
		return &meta.Evicted{Err: errs.E("session", errs.Expired, "closed", nil)}, nil
	case *meta.OpFrame:
		return nil, s.op(id, ses, f)
	default:
		if s.on {
			return s.leaseFrame(id, ses, f), nil
		}
		s.fault("frame %T", f)
	}
	return nil, nil
}

func (s *fakeServer) op(id meta.SessionID, ses *fakeSession, f *meta.OpFrame) *meta.Reply {
	if !ses.claimed {
		s.fault("operation before the last reclaim")
	}
	for _, a := range f.Acked {
		delete(ses.recorded, a)
		ses.acked[a] = true
	}
	if f.After > ses.log {
		s.fault("%T after record %d, executed are %d", f.Op, f.After, ses.log)
	}
	if f.Op.Kind().IsRead() {
		r := &meta.Reply{ID: f.ID, Outcome: s.read(f.Op)}
		if s.on {
			s.note(r)
		}
		return r
	}
	if ses.acked[f.ID] {
		s.fault("operation %d sent after its acknowledgement", f.ID)
	}
	out, done := ses.recorded[f.ID]
	if !done {
		if s.executed[f.Op] {
			s.fault("operation %T %+v executed twice", f.Op, f.Op)
		}
		out = s.execute(id, f.Op)
		if out.Err == nil || out.Err.Kind != errs.Again {
			s.executed[f.Op] = true
		}
		ses.recorded[f.ID] = out
		if len(ses.recorded) > meta.OpWindow {
			s.fault("window overrun: %d", len(ses.recorded))
		}
	}
	r := &meta.Reply{ID: f.ID, Outcome: out}
	if s.on && !done { // a recorded outcome is old
		s.note(r)
	}
	return r
}

// sent counts the pins of a reply that goes to the client.
func (s *fakeServer) sent(id meta.SessionID, r *meta.Reply) {
	ses := s.sessions[id]
	switch x := r.Outcome.Result.(type) {
	case *meta.EntryResult:
		ses.pins[x.Attr.Ino]++
	case *meta.DirResult:
		if x.Plus {
			for _, e := range x.Entries {
				ses.pins[e.Attr.Ino]++
			}
		}
	}
}

func fail(k errs.Kind) meta.Outcome { return meta.Outcome{Err: errs.E("fake", k, "", nil)} }

func done(r meta.Result) meta.Outcome { return meta.Outcome{Result: r} }

func (s *fakeServer) read(o meta.Op) meta.Outcome {
	switch o := o.(type) {
	case *meta.Lookup:
		n := s.inodes[s.names[o.Name]]
		if n == nil {
			return fail(errs.NotExist)
		}
		return done(&meta.EntryResult{Attr: n.attr})
	case *meta.GetAttr:
		if o.Ino == meta.RootIno {
			return done(&meta.AttrResult{Attr: s.root()})
		}
		if n := s.inodes[o.Ino]; n != nil {
			return done(&meta.AttrResult{Attr: n.attr})
		}
		return fail(errs.Stale)
	case *meta.ReadDir:
		r := &meta.DirResult{EOF: true, Plus: o.Plus}
		var names []string
		for name := range s.names {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			r.Entries = append(r.Entries, meta.DirEntry{Name: name, Cookie: uint64(i + 1), Attr: s.inodes[s.names[name]].attr})
		}
		return done(r)
	case *meta.ReadMap:
		return s.readMap(o)
	case *meta.Acquire:
		r := &meta.AcquireResult{}
		for _, w := range o.Wants {
			switch n := s.inodes[w.Ino]; {
			case w.Ino == meta.RootIno:
				r.Attrs = append(r.Attrs, s.root())
			case n != nil:
				r.Attrs = append(r.Attrs, n.attr)
			default:
				r.Attrs = append(r.Attrs, meta.Attr{})
			}
		}
		return done(r)
	}
	return fail(errs.Unsupported)
}

func (s *fakeServer) readMap(o *meta.ReadMap) meta.Outcome {
	n := s.inodes[o.Ino]
	if n == nil {
		return fail(errs.Stale)
	}
	m := &meta.MapResult{Attr: n.attr, Covered: o.Off + o.Len}
	step := uint64(3000)
	for off := o.Off / step * step; off < min(uint64(len(n.data)), o.Off+o.Len); off += step {
		if len(m.Extents) == s.mapMax {
			m.Covered = off
			break
		}
		b := n.data[off:min(off+step, uint64(len(n.data)))]
		m.Extents = append(m.Extents, meta.Extent{Off: off, Len: uint32(len(b)), Kind: meta.ExtentInline, Inline: slices.Clone(b)})
	}
	return done(m)
}

func (s *fakeServer) touch(n *fakeInode) *meta.AttrResult {
	s.clock++
	n.attr.Size = uint64(len(n.data))
	n.attr.DataVersion++
	if s.on {
		s.changed[n.attr.Ino]++
	}
	now := s.clock * 1000
	if s.now != 0 {
		now = s.now
	}
	n.attr.Mtime, n.attr.Ctime = max(now, n.attr.Mtime+1), max(now, n.attr.Ctime+1)
	return &meta.AttrResult{Attr: n.attr}
}

func (s *fakeServer) execute(id meta.SessionID, o meta.Op) meta.Outcome {
	switch o := o.(type) {
	case *meta.Make:
		if n := s.inodes[s.names[o.Name]]; n != nil {
			return done(&meta.EntryResult{Attr: n.attr})
		}
		ino := o.Ino
		if ino == 0 {
			s.lastIno++
			ino = s.lastIno
		}
		n := &fakeInode{attr: meta.Attr{Ino: ino, Mode: o.Mode, Nlink: 1}}
		s.touch(n)
		n.attr.DataVersion = 0
		s.inodes[ino], s.names[o.Name] = n, ino
		return done(&meta.EntryResult{Attr: n.attr, Created: true})
	case *meta.Rename:
		ino, ok := s.names[o.OldName]
		if !ok {
			return fail(errs.NotExist)
		}
		delete(s.names, o.OldName)
		s.names[o.NewName] = ino
		return done(&meta.AttrResult{Attr: s.inodes[ino].attr})
	case *meta.Unlink:
		ino, ok := s.names[o.Name]
		if !ok {
			return fail(errs.NotExist)
		}
		delete(s.names, o.Name)
		a := s.inodes[ino].attr
		a.Nlink--
		return done(&meta.AttrResult{Attr: a})
	case *meta.SetAttr:
		n := s.inodes[o.Ino]
		if n == nil {
			return fail(errs.Stale)
		}
		if o.Set&meta.SetSize != 0 {
			if s.again() {
				return fail(errs.Again)
			}
			n.data = resize(n.data, o.Size)
		}
		return done(s.touch(n))
	case *meta.Write:
		return s.write(id, o)
	case *meta.LateAck:
		s.lates += len(o.Copies)
		return done(&meta.EmptyResult{})
	case *meta.SetXattr, *meta.RemoveXattr:
		return done(&meta.EmptyResult{})
	}
	return fail(errs.Unsupported)
}

func resize(b []byte, size uint64) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

func (s *fakeServer) write(id meta.SessionID, o *meta.Write) meta.Outcome {
	n := s.inodes[o.Ino]
	if n == nil {
		return fail(errs.Stale)
	}
	if s.noSpace {
		return fail(errs.NoSpace)
	}
	if size := len(meta.EncodeFrame(nil, &meta.OpFrame{Op: o})); size > 256<<10 {
		s.fault("write of %d bytes", size)
	}
	known := map[chunk.BlockID]bool{}
	for _, b := range o.Blocks {
		fb, ok := s.blocks[b.ID]
		if !ok || int(b.Len) != len(fb.data) || fb.owner.Session != uint64(id) {
			s.fault("write names block %v that is not durable here", b.ID)
		}
		known[b.ID] = true
		s.published[b.ID] = true
	}
	base := uint64(0)
	if o.Append {
		base = uint64(len(n.data))
	}
	for i, e := range o.Extents {
		for _, g := range o.Extents[:i] {
			if e.Off < g.Off+uint64(g.Len) && g.Off < e.Off+uint64(e.Len) {
				s.fault("extents of one write overlap")
			}
		}
		b := e.Inline
		if e.Kind == meta.ExtentBlock {
			if !known[e.Block] && !s.published[e.Block] {
				s.fault("extent of a block without its facts")
				return fail(errs.Invalid)
			}
			b = s.blocks[e.Block].data[e.BlockOff : e.BlockOff+e.Len]
		}
		if end := base + e.Off + uint64(e.Len); end > uint64(len(n.data)) {
			n.data = resize(n.data, end)
		}
		copy(n.data[base+e.Off:], b)
	}
	r := s.touch(n)
	r.Off = base + o.Extents[0].Off
	return done(r)
}

// testIDs makes block ids by counting.
func testIDs() func() chunk.BlockID {
	n := uint64(0)
	return func() (id chunk.BlockID) {
		n++
		copy(id[:], fmt.Sprintf("%016d", n))
		return id
	}
}

// assemble turns a plan into bytes.
func assemble(p *FilePlan, blocks map[chunk.BlockID]fakeBlock) []byte {
	var out []byte
	for _, q := range p.Pieces {
		switch {
		case q.Data != nil:
			out = append(out, q.Data[:q.Len]...)
		case q.Block != nil:
			out = append(out, blocks[q.Block.ID].data[q.BlockOff:q.BlockOff+q.Len]...)
		default:
			out = append(out, make([]byte, q.Len)...)
		}
	}
	return out
}
