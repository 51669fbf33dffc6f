package sim

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"

	client_core "agentdrive/fuseclient/core"
)

// Rule breaks one promise on purpose, at the border of a core: the tests prove
// that the oracle notices.
type Rule uint8

// The rules.
const (
	NoRule Rule = iota
	// ReadUnconfirmed: a server answers reads without asking the others
	// whether it still leads (S3).
	ReadUnconfirmed
	// LeadBeforeBarrier: a new leader begins with what it happens to have.
	LeadBeforeBarrier
	// LoseCommitted: now and then a success is told that the log lacks.
	LoseCommitted
	// ProposeAcrossTerms: what the core asks for in an old reign enters the
	// log in a newer one of the same node, and is executed.
	ProposeAcrossTerms
	// ForgetReplies: apply does not record outcomes.
	ForgetReplies
	// KeepEndedSessions: late operations of an ended session are executed.
	KeepEndedSessions
	// ReclaimNothing: pins are forgotten when a session resumes (S6).
	ReclaimNothing
	// UnpinEarly: pins are given back while the kernel has references (S6).
	UnpinEarly
	// KeepPins: pins are never given back.
	KeepPins
	// ResendNewID: an operation is sent again as another one.
	ResendNewID
	// DropDirty: buffered data is dropped, as if it had been published.
	DropDirty
	// AckBeforeDurable: chunk servers acknowledge blocks that they lose.
	AckBeforeDurable
	// HideLoss: a session's end loses data, and fsync says that all is well.
	HideLoss
	// ReorderStreams: messages of a stream overtake each other.
	ReorderStreams
	// LieLifetimes: the adapter lets the kernel believe everything for a second,
	// leased or not.
	LieLifetimes
	// FullLifetimes: a reply's lifetimes count from when it is written (C1).
	FullLifetimes
	// NoBarrier: invalidations do not wait for replies under way (C4).
	NoBarrier
	// NoRetry: an inode that the kernel does not know yet is not invalidated (C4).
	NoRetry
	// KeepPages: pages of READs and WRITEs without a lease stay (C6).
	KeepPages
	// EarlyAttr: attributes are answered while such pages are to go (C6).
	EarlyAttr
	// WaitForOwnWrite: invalidations wait for pages that own WRITEs hold (C6).
	WaitForOwnWrite
	// EpochBesideListing: a new epoch begins while the kernel applies a listing.
	EpochBesideListing
	// AttrBesideChange: attributes answered before an own change of names live
	// on when their reply comes after that of the change.
	AttrBesideChange
	// AttrBesideSetattr: attributes answered beside an own SETATTR live.
	AttrBesideSetattr
	// AheadOfChange: replies that tell of an own change come before its own.
	AheadOfChange
	// LogBeforeReply: a log leaves before its replies are with the kernel (M6).
	LogBeforeReply
	rules
)

var ruleNames = [rules]string{
	"none", "read-unconfirmed", "lead-before-barrier", "lose-committed", "propose-across-terms", "forget-replies",
	"keep-ended-sessions", "reclaim-nothing", "unpin-early", "keep-pins", "resend-new-id", "drop-dirty",
	"ack-before-durable", "hide-loss", "reorder-streams",
	"lie-lifetimes", "full-lifetimes", "no-barrier", "no-retry", "keep-pages", "early-attr",
	"wait-for-own-write", "epoch-beside-listing", "attr-beside-change", "attr-beside-setattr", "ahead-of-change", "log-before-reply",
}

// clientBreaks are the words of fuseclient/core.Config.Break.
var clientBreaks = []string{
	"C2-attr-in-create", "C3-long", "C4-no-inval", "C5-no-entry", "D4-no-self-recall", "ack-before-flush",
	"log-reorder", "keep-after-recall",
}

// serverBreak is the first rule that the server's core breaks, clientBreak the
// first one of the client's core: they follow those of this file.
const serverBreak = rules

var clientBreak = serverBreak + Rule(len(core.Breaks))

// server is what the server's core is told to break.
func (r Rule) server() string {
	if r >= serverBreak && r < clientBreak {
		return core.Breaks[r-serverBreak]
	}
	return ""
}

// client is what the client's core is told to break.
func (r Rule) client() string {
	if r >= clientBreak {
		return clientBreaks[r-clientBreak]
	}
	return ""
}

// String gives the name that -sim.break takes.
func (r Rule) String() string {
	if r < rules {
		return ruleNames[r]
	}
	return r.server() + r.client()
}

// ParseRule finds a rule by name.
func ParseRule(name string) (Rule, bool) {
	for _, r := range append(Rules(), NoRule) {
		if r.String() == name {
			return r, true
		}
	}
	return NoRule, false
}

// Rules lists them all.
func Rules() []Rule {
	var list []Rule
	for r := NoRule + 1; r < clientBreak+Rule(len(clientBreaks)); r++ {
		list = append(list, r)
	}
	return list
}

// apply executes an entry on a replica.
func (r Rule) apply(m *state.Machine, mem *kv.Mem, index uint64, e entry) []byte {
	tx := mem.Begin()
	defer tx.Discard()
	var to kv.Tx = tx
	if r == ForgetReplies || r == KeepEndedSessions {
		to = forgetful{tx, r}
	}
	out := m.Apply(to, index, e.term, e.cmd)
	tx.Commit()
	return out
}

// forgetful loses some writes of the state machine.
type forgetful struct {
	kv.Tx
	rule Rule
}

// Set implements kv.Tx.
func (t forgetful) Set(key, val []byte) {
	if t.rule == ForgetReplies && key[0] == 'R' {
		return
	}
	t.Tx.Set(key, val)
}

// Delete implements kv.Tx.
func (t forgetful) Delete(key []byte) {
	if t.rule == KeepEndedSessions && key[0] == 'S' {
		return
	}
	t.Tx.Delete(key)
}

const otherID = meta.OpID(1) << 40

// toServer changes what a client sends.
func (r Rule) toServer(c *client, f meta.Frame) []meta.Frame {
	switch f := f.(type) {
	case *meta.Reclaim:
		if r == ReclaimNothing {
			return []meta.Frame{&meta.Reclaim{Open: f.Open, Last: f.Last}}
		}
	case *meta.Unpin:
		if r == KeepPins {
			return nil
		}
	case *meta.OpFrame:
		return r.opToServer(c, f)
	}
	return []meta.Frame{f}
}

func (r Rule) opToServer(c *client, f *meta.OpFrame) []meta.Frame {
	switch {
	case r == ResendNewID && !f.Op.Kind().IsRead() && c.w.oracle.latest[f.Op] != nil:
		again := *f
		again.ID |= otherID
		return []meta.Frame{&again}
	case r == UnpinEarly && f.Op.Kind() == meta.KindGetAttr:
		ino := f.Op.(*meta.GetAttr).Ino
		return []meta.Frame{f, &meta.Unpin{Pins: []meta.Pin{{Ino: ino, Count: 1 << 20}}}}
	case r == DropDirty && f.Op.Kind() == meta.KindWrite && !f.Op.(*meta.Write).Append && c.rng.IntN(4) == 0:
		a := meta.Attr{Ino: f.Op.(*meta.Write).Ino, Mode: meta.ModeRegular | 0o644, Nlink: 1}
		stream := c.want
		c.w.after(5*ms, func() {
			if stream == c.want {
				c.inject(stream, &meta.Reply{ID: f.ID, Outcome: meta.Outcome{Result: &meta.AttrResult{Attr: a}}})
			}
		})
		return nil
	}
	return []meta.Frame{f}
}

// toClient changes what a client receives; nil drops it.
func (r Rule) toClient(_ *client, f meta.Frame) meta.Frame {
	if x, ok := f.(*meta.Reply); ok && r == ResendNewID {
		x.ID &^= otherID
	}
	return f
}

// answer changes what an application is told.
func (r Rule) answer(c *client, op any, a client_core.Answer) client_core.Answer {
	if r == HideLoss && c.lost > 0 && errs.Is(a.Err, errs.IO) {
		switch op.(type) {
		case client_core.Flush, client_core.Fsync:
			a.Err, a.Result = nil, &meta.EmptyResult{}
		}
	}
	return a
}

// lifetimes changes how long the kernel may believe an answer.
func (r Rule) lifetimes(_ *client, _ *call, a client_core.Answer) (client_core.Cache, []client_core.Cache) {
	if r != LieLifetimes {
		return a.Cache, append([]client_core.Cache(nil), a.Lives...)
	}
	long := client_core.Cache{Entry: client_core.Time(s), Attr: client_core.Time(s)}
	var lives []client_core.Cache
	if d, ok := a.Result.(*meta.DirResult); ok {
		for range d.Entries {
			lives = append(lives, long)
		}
	}
	return long, lives
}
