package blockio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Corrupt tells of a copy that fails its checksums.
type Corrupt struct {
	Block  chunk.BlockID
	Member chunk.ServerID
	Err    error
}

// ReaderConfig describes a Reader. Stores is required.
type ReaderConfig struct {
	Stores    Stores
	Distance  func(chunk.ServerID) int // less is nearer; nil: all the same
	OnCorrupt func(Corrupt)            // called by Get; must not block; may be nil
	HedgeMin  time.Duration            // least patience before another member is asked too; default 5 ms
	HedgeMax  time.Duration            // most, and for members not yet known; default 100 ms
	ProbeMin  time.Duration            // first pause before a failed or slow member comes first again; default 500 ms
	ProbeMax  time.Duration            // longest such pause; default 10 s
}

// Reader reads blocks. Safe for concurrent use.
type Reader struct {
	cfg     ReaderConfig
	members *tracker
}

// NewReader makes a reader.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	setDefault(&cfg.HedgeMin, 5*time.Millisecond)
	setDefault(&cfg.HedgeMax, 100*time.Millisecond)
	setDefault(&cfg.ProbeMin, 500*time.Millisecond)
	setDefault(&cfg.ProbeMax, 10*time.Second)
	if cfg.Distance == nil {
		cfg.Distance = func(chunk.ServerID) int { return 0 }
	}
	if cfg.Stores == nil || cfg.HedgeMin < 0 || cfg.HedgeMax < cfg.HedgeMin || cfg.ProbeMin < 0 || cfg.ProbeMax < cfg.ProbeMin {
		return nil, errs.E("block.reader", errs.Invalid, "no stores, or impossible limits", nil)
	}
	return &Reader{cfg: cfg, members: newTracker(cfg.ProbeMin, cfg.ProbeMax)}, nil
}

type answer struct {
	member chunk.ServerID
	data   []byte
	err    error
	took   time.Duration
}

// get is one Get under way; it belongs to its goroutine.
type get struct {
	r       *Reader
	ctx     context.Context
	g       chunk.Grant
	id      chunk.BlockID
	off     uint32
	length  uint32
	waiting []chunk.ServerID // not yet asked, best first
	asked   []chunk.ServerID // asked in this order, no answer yet
	answers chan answer
	failed  []answer
}

// Get returns length bytes at off of a block, from whichever of the members
// has them first; the stores verify checksums on disk and on the way. members
// are those of the epoch that wrote the block and of its successors.
//
// Each member is asked at most once. errs.NotExist only if every member said
// so; errs.Invalid (bad range) as soon as one says so; otherwise the block may
// come back: errs.Unavailable, or errs.Corrupt or errs.Refused if all members
// answered and that is the reason. errs.Canceled or errs.Timeout when ctx ends.
func (r *Reader) Get(ctx context.Context, g chunk.Grant, members []chunk.ServerID, id chunk.BlockID, off, length uint32) ([]byte, error) {
	const op = "block.get"
	if len(members) == 0 {
		return nil, errs.E(op, errs.Invalid, fmt.Sprintf("block %s has no members", id), nil)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel() // those still asked stop
	u := &get{r: r, ctx: inner, g: g, id: id, off: off, length: length,
		waiting: r.order(members), answers: make(chan answer, len(members))}
	patience := u.ask()
	for {
		timer := time.NewTimer(patience)
		select {
		case a := <-u.answers:
			timer.Stop()
			done, err := u.take(a)
			if done {
				return a.data, err
			}
			if len(u.asked) == 0 && len(u.waiting) == 0 {
				return nil, u.verdict()
			}
			patience = u.ask()
		case <-timer.C:
			patience = u.ask()
		case <-ctx.Done():
			timer.Stop()
			return nil, chunk.Ended(op, ctx)
		}
	}
}

// order sorts members: usable ones, near ones, idle ones first.
func (r *Reader) order(members []chunk.ServerID) []chunk.ServerID {
	type rank struct {
		id       chunk.ServerID
		putOff   int
		distance int
		calls    int
	}
	ranks := make([]rank, len(members))
	for i, id := range members {
		putOff, calls := r.members.load(id)
		ranks[i] = rank{id: id, distance: r.cfg.Distance(id), calls: calls}
		if putOff {
			ranks[i].putOff = 1
		}
	}
	slices.SortStableFunc(ranks, func(a, b rank) int {
		return cmp.Or(cmp.Compare(a.putOff, b.putOff), cmp.Compare(a.distance, b.distance), cmp.Compare(a.calls, b.calls))
	})
	ids := make([]chunk.ServerID, len(ranks))
	for i, k := range ranks {
		ids[i] = k.id
	}
	return ids
}

// never is longer than any call: nobody is left to be asked.
const never = 365 * 24 * time.Hour

// ask asks the next member and returns how long to wait for it before asking
// another.
func (u *get) ask() time.Duration {
	if len(u.waiting) == 0 {
		return never
	}
	id := u.waiting[0]
	u.waiting = u.waiting[1:]
	u.asked = append(u.asked, id)
	u.r.members.start(id)
	go func() { u.answers <- u.call(id) }()
	if len(u.waiting) == 0 {
		return never
	}
	patience, known := u.r.members.patience(id)
	if !known {
		return u.r.cfg.HedgeMax
	}
	return min(max(patience, u.r.cfg.HedgeMin), u.r.cfg.HedgeMax)
}

func (u *get) call(id chunk.ServerID) answer {
	began := time.Now()
	a := answer{member: id}
	s, err := u.r.cfg.Stores.Store(id)
	if err == nil {
		a.data, err = s.Get(u.ctx, u.g, u.id, u.off, u.length)
	}
	if err == nil && len(a.data) != int(u.length) {
		err = errs.E("block.get", errs.Corrupt, fmt.Sprintf("%d of %d bytes", len(a.data), u.length), nil)
	}
	a.err, a.took = err, time.Since(began)
	switch {
	case err == nil:
		u.r.members.answered(id, a.took)
		u.r.members.end(id, 0, well)
	case u.ctx.Err() != nil: // another one was faster, or the caller left
		u.r.members.end(id, 0, unknown)
	case isGone(err):
		u.r.members.end(id, 0, failed)
	default:
		u.r.members.end(id, 0, well)
	}
	return a
}

// isGone tells that the member, not the block, is the trouble.
func isGone(err error) bool {
	switch errs.KindOf(err) {
	case errs.NotExist, errs.Corrupt, errs.Invalid, errs.Refused:
		return false
	}
	return true
}

// take judges an answer; done ends the read.
func (u *get) take(a answer) (done bool, err error) {
	i := slices.Index(u.asked, a.member)
	if a.err == nil {
		for _, id := range u.asked[:i] { // asked earlier and still silent
			u.r.members.late(id)
		}
		return true, nil
	}
	u.asked = slices.Delete(u.asked, i, i+1)
	a.err = errs.E("block.get", errs.Other, fmt.Sprintf("chunk server %d", a.member), a.err)
	u.failed = append(u.failed, a)
	switch errs.KindOf(a.err) {
	case errs.Corrupt:
		if f := u.r.cfg.OnCorrupt; f != nil {
			f(Corrupt{Block: u.id, Member: a.member, Err: a.err})
		}
	case errs.Invalid:
		return true, a.err
	}
	return false, nil
}

// verdict is the error when all members failed.
func (u *get) verdict() error {
	kind := errs.NotExist
	var all []error
	for _, a := range u.failed {
		all = append(all, a.err)
		switch k := errs.KindOf(a.err); {
		case k == errs.NotExist || kind == errs.Unavailable:
		case k == errs.Corrupt || k == errs.Refused:
			kind = k
		default:
			kind = errs.Unavailable
		}
	}
	e := errs.E("block.get", kind, fmt.Sprintf("block %s: none of %d members has it", u.id, len(all)), errors.Join(all...))
	if kind == errs.Unavailable {
		return e.WithHint("check the chunk servers named in the message")
	}
	return e
}
