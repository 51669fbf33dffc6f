package sim

import (
	"bytes"
	"fmt"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// oracle knows the committed log as it grows: what each entry did to a witness
// replica, what a model filesystem says that it should have done, and which
// state each read may have seen.
type oracle struct {
	w       *world
	machine state.Machine
	mem     *kv.Mem
	views   []kv.Snapshot // state after entry i+1

	outcomes [][]byte // of entry i+1, as the witness had them
	fs       *fsModel
	sessions map[meta.SessionID]bool // open in the log
	nonces   map[[16]byte]meta.SessionID
	orphans  map[meta.Ino]*orphanModel

	logged  map[meta.SessionID]uint64 // last record in the log; look-up only
	done    map[opKey]*executed
	doneBy  map[meta.Op]opKey // by the client's operation, whatever its id
	ops     map[opKey]*sentOp
	latest  map[meta.Op]*sentOp
	floor   uint64 // index of the newest state that an answer has proven
	checked int
	stats   Stats
}

// opKey names an operation for the servers.
type opKey struct {
	session meta.SessionID
	id      meta.OpID
}

// executed is a mutation in the log.
type executed struct {
	index   uint64
	outcome []byte
}

// sentOp is an operation that left a client.
type sentOp struct {
	key   opKey
	op    meta.Op
	floor uint64 // proven before it was sent first
	sends int
	reply *meta.Outcome // newest
}

type orphanModel struct {
	resolved bool
	pins     map[meta.SessionID]bool
}

func newOracle(w *world) *oracle {
	o := &oracle{
		w: w, mem: kv.NewMem(), sessions: map[meta.SessionID]bool{}, nonces: map[[16]byte]meta.SessionID{},
		orphans: map[meta.Ino]*orphanModel{}, logged: map[meta.SessionID]uint64{}, done: map[opKey]*executed{}, doneBy: map[meta.Op]opKey{},
		ops: map[opKey]*sentOp{}, latest: map[meta.Op]*sentOp{},
	}
	o.machine.Group = 1
	return o
}

func (o *oracle) live(s meta.SessionID) bool { return o.sessions[s] }

// committed takes an entry into the history.
func (o *oracle) committed(index, term uint64, cmd []byte) {
	list := o.w.rule.apply(&o.machine, o.mem, index, entry{term, cmd})
	o.outcomes = append(o.outcomes, list)
	o.views = append(o.views, o.mem.View())
	e, err := state.DecodeEntry(cmd)
	if err != nil {
		o.w.fail("entry %d cannot be read: %v", index, err)
		return
	}
	out, err := state.DecodeOutcomes(list)
	if err != nil || len(out.List) != len(e.Items) {
		o.w.fail("entry %d has %d outcomes for %d items: %v", index, len(out.List), len(e.Items), err)
		return
	}
	if e.Term != 0 && e.Term != term {
		o.refused(index, out.List)
		return
	}
	for i := range e.Items {
		it := &e.Items[i]
		switch {
		case it.Internal != nil:
			o.internal(index, e.Now, it.Internal, out.List[i])
		case it.Op == nil:
			o.delegated(index, it, out.List[i])
		default:
			o.mutation(index, e.Now, it, out.List[i])
		}
	}
}

// refused checks the outcomes of an entry meant for another term.
func (o *oracle) refused(index uint64, list []meta.Outcome) {
	o.stats.Refused++
	for i := range list {
		if list[i].Err == nil || list[i].Err.Kind != errs.NotLeader {
			o.w.fail("entry %d is of another term, its item %d gave %s", index, i, outcomeText(list[i]))
		}
	}
}

func (o *oracle) mutation(index uint64, now int64, it *state.Item, got meta.Outcome) {
	key := opKey{it.Session, it.ID}
	o.w.note("  %d: session %d op %d %T -> %s", index, it.Session, it.ID, it.Op, outcomeText(got))
	if !o.sessions[it.Session] {
		if got.Err == nil || got.Err.Kind != errs.Expired {
			o.w.fail("entry %d: an operation of session %d, which has ended, gave %s", index, it.Session, outcomeText(got))
		}
		return
	}
	enc := encodeOutcome(got)
	if was := o.done[key]; was != nil {
		if !bytes.Equal(was.outcome, enc) {
			o.w.fail("entry %d: operation %v was executed in entry %d with another outcome; now %s", index, key, was.index, outcomeText(got))
		}
		return
	}
	if got.Err != nil && got.Err.Kind == errs.Again {
		return
	}
	o.done[key] = &executed{index, enc}
	sent := o.ops[key]
	if sent == nil {
		o.w.fail("entry %d executes operation %v, which nobody sent", index, key)
		return
	}
	if other, ok := o.doneBy[sent.op]; ok {
		o.w.fail("entry %d executes %T of %v again: it was executed as %v in entry %d", index, it.Op, key, other, o.done[other].index)
		return
	}
	o.doneBy[sent.op] = key
	if index <= sent.floor {
		o.w.fail("entry %d executes operation %v, sent when entry %d was proven", index, key, sent.floor)
	}
	if err := o.fs.check(it.Op, now, got); err != nil {
		o.w.fail("entry %d, operation %v: %v", index, key, err)
		return
	}
	o.noteOrphans(it.Op, got)
	if got.Err != nil {
		return
	}
	m := o.w.history.byOp[sent.op]
	if m != nil {
		m.lost = o.w.history.lives[it.Session].lost
	}
	o.w.history.committed(index, m, o.fs.changes)
	switch x := it.Op.(type) {
	case *meta.Write:
		o.stats.Blocks += len(x.Blocks)
		o.w.data.order.published(index, x, got.Result.(*meta.AttrResult).Off)
	case *meta.Link:
		o.w.data.order.named(index, sent.op, x.Ino)
	case *meta.Rename:
		o.w.data.order.named(index, sent.op, got.Result.(*meta.AttrResult).Attr.Ino)
	}
}

// delegated takes records of a client's log.
func (o *oracle) delegated(index uint64, it *state.Item, got meta.Outcome) {
	o.w.note("  %d: session %d log %d+%d -> %s", index, it.Session, it.First, len(it.Records), outcomeText(got))
	if !o.sessions[it.Session] {
		if got.Err == nil || got.Err.Kind != errs.Expired {
			o.w.fail("entry %d: a log of session %d, which has ended, gave %s", index, it.Session, outcomeText(got))
		}
		return
	}
	if got.Err != nil && got.Err.Kind == errs.Invalid && it.First > o.logged[it.Session]+1 {
		return // what came before was lost with a reign; the client sends all of it again
	}
	if got.Err != nil {
		o.w.fail("entry %d: the log of session %d is refused: %s", index, it.Session, outcomeText(got))
		return
	}
	for i := range it.Records {
		if seq := it.First + uint64(i); seq == o.logged[it.Session]+1 {
			o.logged[it.Session] = seq
			o.record(index, it.Session, seq, &it.Records[i])
		}
	}
}

// changesInode reports whether an operation names the inode that it changes.
func changesInode(op meta.Op) bool {
	switch op.(type) {
	case *meta.Write, *meta.SetAttr, *meta.SetXattr, *meta.RemoveXattr:
		return true
	}
	return false
}

// ofData reports whether a record publishes data, or says that blocks are lost.
func (o *oracle) ofData(s meta.SessionID, op meta.Op) bool {
	switch x := op.(type) {
	case *meta.Write:
		return true
	case *meta.SetAttr:
		c := o.w.history.clients[s]
		return x.Set == meta.SetSize && c != nil && c.kernel.failed
	}
	return false
}

// record takes one record. Its outcome is not told; the model has one.
func (o *oracle) record(index uint64, s meta.SessionID, seq uint64, r *meta.LogRecord) {
	o.w.note("  %d: record %d of session %d at %d: %T %+v", index, seq, s, r.Now, r.Op, r.Op)
	m := o.w.history.record(s, r.Op)
	got, err := o.fs.execute(r.Op, r.Now)
	if errs.Is(err, errs.Stale) && changesInode(r.Op) {
		if m != nil {
			m.index, m.nowhere = index, true
		}
		return // of an inode that is gone: rule S6 is checked where it died
	}
	if err != nil {
		o.w.fail("entry %d, record %d of session %d: %T %+v: the model refuses it: %v", index, seq, s, r.Op, r.Op, err)
		return
	}
	o.noteOrphans(r.Op, meta.Outcome{Result: got})
	if m == nil && !o.ofData(s, r.Op) {
		o.w.fail("entry %d, record %d of session %d: nobody asked for %T %+v", index, seq, s, r.Op, r.Op)
		return
	}
	o.w.history.committed(index, m, o.fs.changes)
	switch x := r.Op.(type) {
	case *meta.Write:
		o.stats.Blocks += len(x.Blocks)
		o.w.data.order.published(index, x, got.(*meta.AttrResult).Off)
	case *meta.Link:
		o.w.data.order.named(index, m.op, x.Ino)
	case *meta.Rename:
		o.w.data.order.named(index, m.op, got.(*meta.AttrResult).Attr.Ino)
	}
	o.stats.Records++
}

// noteOrphans finds inodes that just lost their last name.
func (o *oracle) noteOrphans(op meta.Op, got meta.Outcome) {
	switch op.(type) {
	case *meta.Unlink, *meta.Rmdir, *meta.Rename:
	default:
		return
	}
	if got.Err != nil {
		return
	}
	// A map is walked, but nothing depends on the order.
	for ino, n := range o.fs.nodes {
		if n.attr.Nlink == 0 && o.orphans[ino] == nil {
			o.orphans[ino] = &orphanModel{pins: map[meta.SessionID]bool{}}
			o.stats.Orphans++
		}
	}
}

func (o *oracle) internal(index uint64, now int64, op state.Internal, got meta.Outcome) {
	o.w.note("  %d: %T %+v -> %s", index, op, op, outcomeText(got))
	if got.Err != nil {
		_, open := op.(*state.OpenSession)
		_, alloc := op.(*state.AllocGroups)
		if !open && !alloc || got.Err.Kind != errs.Expired {
			o.w.fail("entry %d: %T failed: %s", index, op, outcomeText(got))
			return
		}
	}
	switch x := op.(type) {
	case *state.InitDrive:
		o.fs = newFSModel(now)
		o.fs.block = o.blockOf
		root := histKey{'a', meta.RootIno, ""}
		o.w.history.keys[root] = &versions{list: []version{{value: attrText(&o.fs.nodes[meta.RootIno].attr)}}}
	case *state.OpenSession:
		o.opened(index, x, got)
	case *state.CloseSession:
		delete(o.sessions, x.Session)
		if c := o.w.history.clients[x.Session]; c != nil && o.w.leases {
			c.ended(x.Session)
		}
		for _, ino := range o.orphanList() {
			delete(o.orphans[ino].pins, x.Session)
			o.settle(index, ino)
		}
	case *state.Swept: // from here on the nonce is a new one
		for nonce, id := range o.nonces {
			if id == x.Session && x.Server == 0 && !o.sessions[id] {
				delete(o.nonces, nonce)
			}
		}
	case *state.ResolveOrphans:
		for _, r := range x.Orphans {
			or := o.orphans[r.Ino]
			if or == nil {
				continue
			}
			or.resolved = true
			for _, p := range r.Pins {
				if o.sessions[p] {
					or.pins[p] = true
				}
			}
			o.settle(index, r.Ino)
		}
	case *state.UnpinOrphans:
		for _, ino := range x.Inos {
			if or := o.orphans[ino]; or != nil && or.pins[x.Session] {
				delete(or.pins, x.Session)
				o.settle(index, ino)
			}
		}
	}
}

func (o *oracle) opened(index uint64, x *state.OpenSession, got meta.Outcome) {
	id, known := o.nonces[x.Open.Nonce]
	res, ok := got.Result.(*meta.SessionResult)
	switch {
	case !ok && known && !o.sessions[id]: // refused, as it must be
	case !ok:
		o.w.fail("entry %d: a session is refused: %s", index, outcomeText(got))
	case known && (res.Session != id || !o.sessions[id]):
		o.w.fail("entry %d: nonce %x opens session %d after session %d", index, x.Open.Nonce, res.Session, id)
	case !known:
		o.nonces[x.Open.Nonce] = res.Session
		o.sessions[res.Session] = true
	}
}

func (o *oracle) orphanList() []meta.Ino {
	list := make([]meta.Ino, 0, len(o.orphans))
	for ino := range o.orphans {
		list = append(list, ino)
	}
	slices.Sort(list)
	return list
}

// settle ends an orphan that nobody pins, and checks rule S6: no kernel whose
// session lives may still reference it.
func (o *oracle) settle(index uint64, ino meta.Ino) {
	or := o.orphans[ino]
	if !or.resolved || len(or.pins) > 0 {
		return
	}
	delete(o.orphans, ino)
	delete(o.fs.nodes, ino)
	o.w.note("  %d: inode %d dies", index, ino)
	for _, c := range o.w.clients {
		if c.kernel.dead {
			continue
		}
		if ref := c.kernel.refs[ino]; ref != nil && ref.session == c.session && o.sessions[c.session] {
			o.w.fail("entry %d ends inode %d, which the kernel of %s references %d times (S6)", index, ino, c.name, ref.lookups)
		}
	}
}

func (o *oracle) blockOf(e *meta.Extent) []byte {
	data := o.w.blocks.content[e.Block]
	end := uint64(e.BlockOff) + uint64(e.Len)
	if uint64(len(data)) < end {
		o.w.fail("block %v is published before it is stored", e.Block)
		return make([]byte, e.Len)
	}
	return data[e.BlockOff:end]
}

// sent notes an operation that leaves a client's core.
func (o *oracle) sent(c *client, f *meta.OpFrame) {
	key := opKey{c.session, f.ID}
	x := o.ops[key]
	if x == nil {
		x = &sentOp{key: key, op: f.Op, floor: o.floor}
		o.ops[key] = x
	} else if x.op != f.Op {
		o.w.fail("%s sends two operations as %v", c.name, key)
	}
	x.sends++
	if x.sends == 2 {
		o.stats.Resent++
	}
	o.latest[f.Op] = x
}

// replied checks an answer as it reaches a client's core.
func (o *oracle) replied(c *client, f *meta.Reply) {
	x := o.ops[opKey{c.session, f.ID}]
	if x == nil {
		o.w.fail("%s gets a reply to operation %d, which it did not send", c.name, f.ID)
		return
	}
	first := x.reply == nil
	x.reply = &f.Outcome
	if !first {
		return // of a second transmission: the core ignores it
	}
	switch x.op.Kind() {
	case meta.KindAcquire, meta.KindSetLock, meta.KindGetLock:
		return // of the leader's memory
	}
	if x.op.Kind().IsRead() {
		o.readDone(c, x, f.Outcome)
		return
	}
	if f.Outcome.Err != nil && f.Outcome.Err.Kind == errs.Again {
		return
	}
	ex := o.done[x.key]
	if ex == nil {
		o.w.fail("%s gets an answer to operation %v (%T), which is not in the log", c.name, x.key, x.op)
		return
	}
	if !bytes.Equal(ex.outcome, encodeOutcome(f.Outcome)) {
		o.w.fail("%s gets %s for operation %v, the log says otherwise (entry %d)", c.name, outcomeText(f.Outcome), x.key, ex.index)
	}
	o.floor = max(o.floor, ex.index)
}

// readDone finds the first state, not older than anything answered before the
// read was sent, that gives the answer. Taking the first one for each read, in
// the order of the answers, finds a linear history if there is one.
func (o *oracle) readDone(c *client, x *sentOp, got meta.Outcome) {
	enc := encodeOutcome(got)
	for i := max(x.floor, 1); i <= uint64(len(o.views)); i++ {
		res, err := state.Read(o.views[i-1], theDrive, x.op)
		want := meta.Outcome{Result: res}
		if err != nil {
			want = meta.Failed(err)
		}
		if bytes.Equal(enc, encodeOutcome(want)) {
			o.floor = max(o.floor, i)
			o.checked++
			return
		}
	}
	o.w.fail("%s reads %T %+v and gets %s: no state from entry %d to %d says that",
		c.name, x.op, x.op, outcomeText(got), x.floor, len(o.views))
}

// pretend executes an entry that never reaches the log; see LoseCommitted.
func (o *oracle) pretend(term uint64, cmd []byte) []meta.Outcome {
	tx := o.mem.Begin()
	defer tx.Discard()
	out, err := state.DecodeOutcomes(o.machine.Apply(tx, uint64(len(o.views))+1, term, cmd))
	if err != nil {
		o.w.fail("outcomes: %v", err)
	}
	return out.List
}

// checkState compares the witness with the model and with every node, when
// all is quiet.
func (o *oracle) checkState() {
	want := dump(o.mem)
	for _, n := range o.w.nodes {
		if got := dump(n.mem); !bytes.Equal(got, want) {
			o.w.fail("%s holds another state than the witness: %d and %d bytes", n.name, len(got), len(want))
		}
	}
	v := o.mem.View()
	for ino, n := range o.fs.nodes { // any order
		res, err := state.Read(v, theDrive, &meta.GetAttr{Ino: ino})
		if err != nil {
			o.w.fail("inode %d lives in the model; the state says: %v", ino, err)
			return
		}
		if a, b := plain(&meta.AttrResult{Attr: n.attr}), plain(res); a != b {
			o.w.fail("inode %d is %s in the model, %s in the state", ino, a, b)
		}
	}
	res, err := state.Read(v, theDrive, &meta.StatFS{})
	if err != nil || res.(*meta.StatFSResult).Files != uint64(len(o.fs.nodes)) {
		o.w.fail("the model has %d inodes, the state: %+v %v", len(o.fs.nodes), res, err)
	}
}

func dump(m *kv.Mem) []byte {
	var b []byte
	if err := m.View().Scan(nil, nil, func(k, val []byte) bool {
		b = fmt.Appendf(b, "%x=%x\n", k, val)
		return true
	}); err != nil {
		return fmt.Appendf(b, "%v", err)
	}
	return b
}

func encodeOutcome(x meta.Outcome) []byte { return wire.Marshal(nil, 1, &x) }

// outcomeText is an outcome in a few words.
func outcomeText(x meta.Outcome) string {
	if x.Err != nil {
		return "error " + x.Err.Kind.String() + " (" + x.Err.Error() + ")"
	}
	switch r := x.Result.(type) {
	case *meta.EntryResult:
		return fmt.Sprintf("inode %d (%o, %d links, %d bytes, created %v)", r.Attr.Ino, r.Attr.Mode, r.Attr.Nlink, r.Attr.Size, r.Created)
	case *meta.AttrResult:
		return fmt.Sprintf("inode %d (%o, %d links, %d bytes, version %d)", r.Attr.Ino, r.Attr.Mode, r.Attr.Nlink, r.Attr.Size, r.Attr.DataVersion)
	}
	return fmt.Sprintf("%T %+v", x.Result, x.Result)
}

// describe is a frame in a few words.
func describe(f meta.Frame) string {
	switch f := f.(type) {
	case *meta.OpFrame:
		return fmt.Sprintf("op %d %T %+v acked %v", f.ID, f.Op, f.Op, f.Acked)
	case *meta.Reply:
		return fmt.Sprintf("reply %d grants %v %s", f.ID, f.Grants, outcomeText(f.Outcome))
	case *meta.Log: // pointers have no place in a trace: it is compared
		text := fmt.Sprintf("log from %d", f.First)
		for i := range f.Records {
			text += fmt.Sprintf(" [%d %T %+v]", f.Records[i].Now, f.Records[i].Op, f.Records[i].Op)
		}
		return text
	case *meta.Evicted:
		return fmt.Sprintf("evicted: %v", f.Err)
	case *meta.LogAck:
		return fmt.Sprintf("log ack %d refused %v: %v", f.Seq, f.Refused, f.Err)
	}
	return fmt.Sprintf("%T %+v", f, f)
}
