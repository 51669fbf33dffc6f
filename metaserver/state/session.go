package state

import (
	"encoding/binary"
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// Session is a mount's session. What it may do was decided when it opened.
type Session struct {
	ID         meta.SessionID
	Epoch      uint64
	Nonce      [16]byte
	Drive      meta.DriveID
	Root       meta.Ino
	Path       string
	ReadOnly   bool
	Leases     bool // its client takes leases; others are answered without
	Client     meta.ClientInfo
	Opened     int64 // Unix nanoseconds
	LastLogSeq uint64
	Poisoned   bool // its log was refused; nothing of it is executed any more
}

// Wire codes the fields in order.
func (x *Session) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	c.U64(&x.Epoch)
	c.Fixed(x.Nonce[:])
	wire.Uint(c, &x.Drive)
	wire.Uint(c, &x.Root)
	c.String(&x.Path)
	c.Bool(&x.ReadOnly)
	c.Bool(&x.Leases)
	x.Client.Wire(c)
	c.I64(&x.Opened)
	c.U64(&x.LastLogSeq)
	c.Bool(&x.Poisoned)
}

// Sessions lists the open sessions of this group by id.
func Sessions(v kv.View) ([]Session, error) {
	var list []Session
	err := scanRecords(v, prefix(spaceSession), func(s *Session) bool {
		list = append(list, *s)
		return true
	})
	return list, err
}

// Closed lists up to limit closed sessions above after, by id, whose
// unpublished blocks may still be on chunk servers.
func Closed(v kv.View, after meta.SessionID, limit int) ([]Session, error) {
	var list []Session
	err := scanRange(v, keyClosed(after+1), end(prefix(spaceClosed)), func(s *Session) bool {
		list = append(list, *s)
		return len(list) < limit
	})
	return list, err
}

// IsSwept reports whether a closed session's unpublished blocks are gone from
// a server.
func IsSwept(v kv.View, s meta.SessionID, server chunk.ServerID) (bool, error) {
	_, ok, err := v.Get(keySwept(s, server))
	return ok, err
}

func sessionsOf(v kv.View, d meta.DriveID) ([]meta.SessionID, error) {
	all, err := Sessions(v)
	if err != nil {
		return nil, err
	}
	var ids []meta.SessionID
	for _, s := range all {
		if s.Drive == d {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// openSession numbers sessions by entry index and position in the entry, so
// that ids never repeat.
func (m *Machine) openSession(tx kv.Tx, st tree.Stamp, pos int, op *OpenSession) (meta.Result, error) {
	capa := &op.Open.Capability
	d, err := LoadDrive(tx, capa.Drive)
	if err != nil {
		return nil, err
	}
	if d.Dropped {
		return nil, errs.E("session.open", errs.NotExist, fmt.Sprintf("drive %q was deleted", d.Name), nil)
	}
	if capa.Expires != 0 && capa.Expires*1e9 < st.Now {
		return nil, errs.E("session.open", errs.Refused, "the capability has expired", nil)
	}
	var n counter
	known, err := load(tx, keyNonce(op.Open.Nonce), &n)
	if err != nil {
		return nil, err
	}
	if known {
		return m.sessionResult(tx, d, meta.SessionID(n.n))
	}
	var root meta.Attr
	if op.Open.CreatePath && !capa.ReadOnly {
		root, err = d.Space().MakePath(tx, st, capa.Path)
	} else {
		root, err = d.Space().ResolvePath(tx, capa.Path)
	}
	if err != nil {
		return nil, errs.E("session.open", errs.Other, fmt.Sprintf("subtree %q of drive %q", capa.Path, d.Name), err)
	}
	s := Session{
		ID: meta.SessionID(st.Index<<12 | uint64(pos)), Epoch: 1, Nonce: op.Open.Nonce,
		Drive: d.ID, Root: root.Ino, Path: capa.Path, ReadOnly: capa.ReadOnly, Leases: op.Open.Leases,
		Client: op.Open.Client, Opened: st.Now,
	}
	store(tx, keySession(s.ID), &s)
	store(tx, keyNonce(s.Nonce), &counter{uint64(s.ID)})
	return &meta.SessionResult{Session: s.ID, Epoch: s.Epoch, Root: root}, nil
}

func (m *Machine) sessionResult(v kv.View, d DriveState, id meta.SessionID) (meta.Result, error) {
	var s Session
	ok, err := load(v, keySession(id), &s)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, expired(id)
	}
	res, err := d.Space().Read(v, &meta.GetAttr{Ino: s.Root})
	if err != nil {
		return nil, err
	}
	return &meta.SessionResult{Session: s.ID, Epoch: s.Epoch, Root: res.(*meta.AttrResult).Attr, LastLogSeq: s.LastLogSeq}, nil
}

// ResumeInfo reads what Resume needs to know of a session.
func ResumeInfo(v kv.View, id meta.SessionID, epoch uint64, nonce [16]byte) (Session, *meta.SessionResult, error) {
	var s Session
	ok, err := load(v, keySession(id), &s)
	if err != nil {
		return s, nil, err
	}
	if !ok || s.Epoch != epoch || s.Nonce != nonce {
		return s, nil, expired(id)
	}
	d, err := LoadDrive(v, s.Drive)
	if err != nil {
		return s, nil, err
	}
	res, err := new(Machine).sessionResult(v, d, id)
	if err != nil {
		return s, nil, err
	}
	return s, res.(*meta.SessionResult), nil
}

// Recorded is a recorded reply of a session.
type Recorded struct {
	ID  meta.OpID
	Ino meta.Ino // that it gives by name, 0 = none
}

// Replies lists the recorded replies of a session by id: those that its client
// has not acknowledged, at most about meta.OpWindow. One that gives an inode
// pins it, since the client may still ask for the reply (rule S6).
func Replies(v kv.View, id meta.SessionID) ([]Recorded, error) {
	var list []Recorded
	var bad error
	pre := keyReplies(id)
	err := v.Scan(pre, end(pre), func(k, b []byte) bool {
		var o meta.Outcome
		if bad = decode(append([]byte(nil), b...), &o); bad != nil {
			bad = errs.E("state.scan", errs.Other, "recorded reply", bad)
			return false
		}
		r := Recorded{ID: meta.OpID(binary.BigEndian.Uint64(k[len(pre):]))}
		if e, ok := o.Result.(*meta.EntryResult); ok {
			r.Ino = e.Attr.Ino
		}
		list = append(list, r)
		return true
	})
	if err == nil {
		err = bad
	}
	return list, err
}

func expired(id meta.SessionID) error {
	return errs.E("session", errs.Expired, fmt.Sprintf("session %d has ended", id), nil)
}

// closeSession ends a session. The nonce's record stays until the sweep is
// done, so that a late Open with the same nonce finds the session ended
// rather than opening another.
func (m *Machine) closeSession(tx kv.Tx, st tree.Stamp, id meta.SessionID) error {
	var s Session
	ok, err := load(tx, keySession(id), &s)
	if err != nil || !ok {
		return err
	}
	d, err := LoadDrive(tx, s.Drive)
	if err != nil && !errs.Is(err, errs.NotExist) {
		return err
	}
	if err == nil {
		if err := d.Space().UnpinOrphans(tx, st, s.ID, nil); err != nil {
			return err
		}
	}
	for _, pre := range [...][]byte{keyReplies(id), keyGroups(id)} {
		if err := wipe(tx, pre); err != nil {
			return err
		}
	}
	tx.Delete(keySession(id))
	store(tx, keyClosed(id), &s)
	return nil
}

// wipe deletes all keys below a prefix.
func wipe(tx kv.Tx, pre []byte) error {
	var keys [][]byte
	err := tx.Scan(pre, end(pre), func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		tx.Delete(k)
	}
	return err
}

// swept notes that a chunk server holds no unpublished block of the session
// any more. A closed session is forgotten by SweptAll's proposal with server 0.
func swept(tx kv.Tx, op *Swept) error {
	var s Session
	ok, err := load(tx, keyClosed(op.Session), &s)
	if err != nil || !ok {
		return err
	}
	if op.Server != 0 {
		tx.Set(keySwept(op.Session, op.Server), []byte{})
		return nil
	}
	if err := wipe(tx, key64(spaceSwept, uint64(op.Session))); err != nil {
		return err
	}
	tx.Delete(keyClosed(op.Session))
	tx.Delete(keyNonce(s.Nonce))
	return nil
}

// applyOp executes a synchronous operation exactly once.
func (m *Machine) applyOp(tx kv.Tx, st tree.Stamp, it *Item) meta.Outcome {
	var s Session
	ok, err := load(tx, keySession(it.Session), &s)
	if err != nil {
		return meta.Failed(err)
	}
	if !ok || s.Epoch != it.Epoch || s.Poisoned {
		return meta.Failed(expired(it.Session))
	}
	for _, id := range it.Acked {
		tx.Delete(keyReply(s.ID, id))
	}
	var rec meta.Outcome
	known, err := load(tx, keyReply(s.ID, it.ID), &rec)
	if err != nil {
		return meta.Failed(err)
	}
	if known {
		return rec
	}
	if it.After > s.LastLogSeq {
		return meta.Failed(errs.E("session.op", errs.Again, fmt.Sprintf("waits for log record %d", it.After), nil))
	}
	res, err := m.execute(tx, &s, it.Op, func(d *DriveState) (meta.Result, error) {
		return d.Space().ApplyWithin(tx, st, it.Op, d.room(it.Reserved))
	})
	if errs.Is(err, errs.Again) {
		return meta.Failed(err) // not executed, so not recorded
	}
	rec = outcome(res, err)
	store(tx, keyReply(s.ID, it.ID), &rec)
	return rec
}

// execute runs a mutation for a session: apply does what concerns the drive.
func (m *Machine) execute(tx kv.Tx, s *Session, op meta.Op, apply func(*DriveState) (meta.Result, error)) (meta.Result, error) {
	if late, ok := op.(*meta.LateAck); ok {
		return &meta.EmptyResult{}, tree.LateAck(tx, late.Copies)
	}
	if s.ReadOnly {
		return nil, errs.E("session.op", errs.ReadOnly, "mounted read-only", nil)
	}
	if mk, ok := op.(*meta.Make); ok && mk.Ino != 0 {
		if err := checkOwnGroup(tx, s.ID, mk.Ino); err != nil {
			return nil, err
		}
	}
	d, err := LoadDrive(tx, s.Drive)
	if err != nil {
		return nil, err
	}
	return apply(&d)
}

// executeLogged runs a record of a session's log. Its client has answered for
// it already: it is not held against the quota (its credit was), and must not
// be put off.
func (m *Machine) executeLogged(tx kv.Tx, index uint64, s *Session, rec *meta.LogRecord) error {
	st := tree.Stamp{Index: index, Now: rec.Now}
	_, err := m.execute(tx, s, rec.Op, func(d *DriveState) (meta.Result, error) {
		res, err := d.Space().Apply(tx, st, rec.Op)
		if errs.Is(err, errs.Again) || errs.Is(err, errs.TooBig) {
			res, err = d.Space().Unbounded().Apply(tx, st, rec.Op)
		}
		return res, err
	})
	return err
}

// onDead reports whether an operation failed because the inode that it changes
// is gone. A session that took references over from one that ended may change
// an inode that nobody keeps for it: nobody can miss the change, and it must
// not cost the session everything else.
func onDead(op meta.Op, err error) bool {
	switch op.(type) {
	case *meta.Write, *meta.SetAttr, *meta.SetXattr, *meta.RemoveXattr:
		return errs.Is(err, errs.Stale)
	}
	return false
}

// applyLog executes delegated operations in order. One that fails poisons the
// session: it and all behind it count as never done, and the client learns
// how far the log got. Result: *meta.SessionResult with LastLogSeq.
func (m *Machine) applyLog(tx kv.Tx, st tree.Stamp, it *Item) (meta.Result, error) {
	var s Session
	ok, err := load(tx, keySession(it.Session), &s)
	if err != nil {
		return nil, err
	}
	if !ok || s.Epoch != it.Epoch || s.Poisoned {
		return nil, expired(it.Session)
	}
	if it.First == 0 || it.First > s.LastLogSeq+1 {
		return nil, errs.E("session.log", errs.Invalid, fmt.Sprintf("record %d after %d leaves a gap", it.First, s.LastLogSeq), nil)
	}
	var refused error
	for i := range it.Records {
		rec := &it.Records[i]
		seq := it.First + uint64(i)
		if seq <= s.LastLogSeq {
			continue
		}
		if err := m.executeLogged(tx, st.Index, &s, rec); err != nil && !onDead(rec.Op, err) {
			refused = errs.E("session.log", errs.Other, fmt.Sprintf("record %d", seq), err)
			break
		}
		s.LastLogSeq = seq
	}
	s.Poisoned = s.Poisoned || refused != nil
	store(tx, keySession(s.ID), &s)
	if refused != nil {
		return nil, refused
	}
	return &meta.SessionResult{Session: s.ID, Epoch: s.Epoch, LastLogSeq: s.LastLogSeq}, nil
}
