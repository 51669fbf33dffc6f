package kernel

import (
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// Call is one request of the kernel on its way through the Backend: how it is
// cancelled, and where its answer stands between the moment it is decided and
// the moment the kernel has it. A Backend passes it on and reports to it. A nil
// Call is no request of the kernel, and is never cancelled.
type Call struct {
	cancel <-chan struct{}
	unique uint64
	led    *ledger // nil: nobody writes a reply (see NewCall)
	op     any     // under way at the Backend
	counts *opStats

	// Guarded by led.mu.
	prev, next *Call  // in led's list
	seq        uint64 // of the answer; 0: none now
	at         time.Time
	since      uint64 // of the first answer, if there was more than one
	listed     bool   // in led's list
	drop       *drop  // to be made due when the reply is written
	loose      bool   // not waited for
}

// NewCall makes a call that is not a request of the kernel.
func NewCall(cancel <-chan struct{}) *Call { return &Call{cancel: cancel} }

// Cancel is closed when nobody waits for the answer any longer.
func (c *Call) Cancel() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.cancel
}

// Unique is the number of the kernel's request, which names it when the kernel
// delivers it again; 0 for a call that is none.
func (c *Call) Unique() uint64 {
	if c == nil {
		return 0
	}
	return c.unique
}

// Waits says that the answer did not come at once: it depends on the servers
// or on other requests. It does not block.
func (c *Call) Waits() {
	if c != nil && c.counts != nil {
		c.counts.waited.Inc()
	}
}

// Answered says that the answer is decided. The Backend calls it at that
// moment, under the lock that orders answers and calls of
// Notifier.Invalidate: an invalidation after it is carried out only when the
// reply has been written, one before it does not concern the answer. It does
// not block. keep, of a core.WriteFile: a lease covers what the kernel has of
// the file's pages; otherwise it forgets what was written (C6). Of a
// core.ReadFile the plan says it.
func (c *Call) Answered(a *core.Answer, keep bool) {
	if c != nil && c.led != nil {
		c.led.answered(c, a, keep)
	}
}

// begin prepares for another operation at the Backend: the call is
// unanswered, again.
func (c *Call) begin(op any) {
	c.op = op
	c.led.begin(c)
}

// leaves tells which pages the kernel must forget when it has this answer,
// because they are not covered by a lease (C6).
func leaves(op any, a *core.Answer) (meta.Ino, span, bool) {
	if a.Err != nil {
		return 0, span{}, false
	}
	switch op := op.(type) {
	case core.ReadFile:
		if plan, ok := a.Result.(*core.FilePlan); ok && !plan.Keep && op.Len > 0 {
			return op.Ino, pages(op.Off, uint64(op.Len)), true
		}
	case core.WriteFile:
		if r, ok := a.Result.(*meta.AttrResult); ok && len(op.Data) > 0 {
			off := op.Off
			if op.Append {
				off = r.Off
			}
			return op.Ino, pages(off, uint64(len(op.Data))), true
		}
	}
	return 0, span{}, false
}
