package sim

import (
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// filePages is what the adapter knows of an inode's pages (rule C6).
type filePages struct {
	changes []*pageChange
	drops   []*drop
}

// pageSpan is a range of units; end is exclusive.
type pageSpan struct{ off, end uint32 }

// pageChange is an own WRITE, or SETATTR of the size, from its arrival until
// its reply is written: the kernel holds pages locked.
type pageChange struct {
	x    *call
	span pageSpan
	all  bool
	due  []*drop // when it is over
}

// drop is a range of pages that the kernel must forget: those of a READ or
// WRITE without a lease, or those that an invalidation could not reach because
// an own request holds them.
type drop struct {
	ino  meta.Ino
	span pageSpan
	done bool
}

func (ad *adapter) file(ino meta.Ino) *filePages {
	f := ad.files[ino]
	if f == nil {
		f = &filePages{}
		ad.files[ino] = f
	}
	return f
}

// pagesPending reports whether pages of an inode are to be forgotten.
func (ad *adapter) pagesPending(ino meta.Ino) bool {
	f := ad.files[ino]
	return f != nil && len(f.drops) > 0
}

// enter notes a change of content that arrives.
func (ad *adapter) enter(x *call) {
	switch op := x.op.(type) {
	case client_core.WriteFile:
		off := uint32(op.Off / unit)
		f := ad.file(op.Ino)
		f.changes = append(f.changes, &pageChange{x: x, span: pageSpan{off, off + uint32(len(op.Data)/unit)}})
	case *meta.SetAttr:
		if op.Set&meta.SetSize != 0 {
			f := ad.file(op.Ino)
			f.changes = append(f.changes, &pageChange{x: x, span: pageSpan{0, ^uint32(0)}, all: true})
		}
	}
}

// leaves notes the pages that an answer leaves in the kernel without a lease.
func (ad *adapter) leaves(r *reply) {
	if r.a.Err != nil || ad.rule() == KeepPages {
		return
	}
	switch op := r.x.op.(type) {
	case client_core.ReadFile:
		if plan, ok := r.a.Result.(*client_core.FilePlan); ok && !plan.Keep {
			off := uint32(op.Off / unit)
			r.drop = ad.promise(op.Ino, pageSpan{off, off + op.Len/unit})
		}
	case client_core.WriteFile:
		if res, ok := r.a.Result.(*meta.AttrResult); ok && !ad.k.c.core.KeepPages(op.Ino) {
			off := uint32(op.Off / unit)
			if op.Append {
				off = uint32(res.Off / unit)
			}
			r.drop = ad.promise(op.Ino, pageSpan{off, off + uint32(len(op.Data)/unit)})
		}
	}
}

// distrust drops the pages of a READ that an invalidation has overtaken.
func (ad *adapter) distrust(r *reply) {
	op, ok := r.x.op.(client_core.ReadFile)
	if !ok || r.drop != nil || r.a.Err != nil || ad.lastOrder < r.seq || ad.rule() == KeepPages {
		return
	}
	off := uint32(op.Off / unit)
	r.drop = ad.promise(op.Ino, pageSpan{off, off + op.Len/unit})
}

func (ad *adapter) promise(ino meta.Ino, s pageSpan) *drop {
	d := &drop{ino: ino, span: s}
	f := ad.file(ino)
	f.drops = append(f.drops, d)
	return d
}

// settled follows the writing of a reply.
func (ad *adapter) settled(r *reply) {
	var due []*drop
	if r.drop != nil {
		due = append(due, r.drop)
	}
	for _, ino := range changedBy(r.x.op) {
		f := ad.file(ino)
		for i, ch := range f.changes {
			if ch.x == r.x {
				f.changes = append(f.changes[:i:i], f.changes[i+1:]...)
				due = append(due, ch.due...)
				break
			}
		}
	}
	for _, d := range due {
		ad.invals++
		ad.soon(ad.delay(), func() { ad.carryDrop(d) })
	}
}

func changedBy(op any) []meta.Ino {
	switch op := op.(type) {
	case client_core.WriteFile:
		return []meta.Ino{op.Ino}
	case *meta.SetAttr:
		return []meta.Ino{op.Ino}
	}
	return nil
}

func (ad *adapter) carryDrop(d *drop) {
	ad.dropPages(d.ino, d.span, func() {
		ad.invals--
		if !d.done {
			d.done = true
			f := ad.file(d.ino)
			f.drops = without1(f.drops, d)
		}
	})
}

// dropPages makes the kernel forget pages. Those that an own change holds are
// left for after its reply: it may itself wait for the invalidation at the
// servers. If such a change comes meanwhile and the notification hangs at it,
// everything is left.
func (ad *adapter) dropPages(ino meta.Ino, s pageSpan, done func()) {
	f := ad.file(ino)
	if ad.rule() != WaitForOwnWrite && ad.deferred(f, ino, s, false) {
		ad.invalInode(ino, true, 0, 0, done)
		return
	}
	over := false
	one := func() {
		if !over {
			over = true
			done()
		}
	}
	ad.invalInode(ino, false, s.off, s.end, one)
	if !over && ad.rule() != WaitForOwnWrite {
		ad.watchDrop(f, ino, s, &over, one)
	}
}

func (ad *adapter) watchDrop(f *filePages, ino meta.Ino, s pageSpan, over *bool, one func()) {
	ad.soon(2*ms, func() {
		switch {
		case *over:
		case ad.deferred(f, ino, s, true):
			one()
		default:
			ad.watchDrop(f, ino, s, over, one)
		}
	})
}

// deferred leaves a span with a change that is open on it, if there is one. The
// model leaves all of it, the adapter only what the change covers.
func (ad *adapter) deferred(f *filePages, ino meta.Ino, s pageSpan, any bool) bool {
	for _, ch := range f.changes {
		if any || ch.all || ch.span.off < s.end && s.off < ch.span.end {
			ch.due = append(ch.due, ad.promise(ino, s))
			return true
		}
	}
	return false
}
