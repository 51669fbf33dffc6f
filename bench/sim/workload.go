package sim

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// fewNames make clients meet each other.
const fewNames = 6

func nameOf(sel uint32) string { return fmt.Sprintf("f%d", sel%fewNames) }

// run carries out a request of the plan, if it means something now.
func (k *kernel) run(x Step) {
	if k.closing {
		return
	}
	switch {
	case x.Kind <= Link:
		k.names(x)
	case x.Kind <= RemoveXattr:
		k.attributes(x)
	case x.Kind <= StatFS:
		k.reads(x)
	default:
		k.files(x)
	}
}

// names issues what works on names.
func (k *kernel) names(x Step) {
	dir := k.pick(x.A, isDir)
	name := nameOf(x.B)
	switch x.Kind {
	case Lookup:
		k.issue(&meta.Lookup{Parent: dir.ino, Name: name}, nil, dir)
	case Create:
		k.issue(&meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeRegular | 0o644, Excl: x.C&1 == 0}, nil, dir)
	case Mkdir:
		k.issue(&meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeDir | 0o755, Excl: true}, nil, dir)
	case Symlink:
		k.issue(&meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeSymlink, Target: nameOf(x.C), Excl: true}, nil, dir)
	case Unlink:
		k.issue(&meta.Unlink{Parent: dir.ino, Name: name}, nil, dir)
	case Rmdir:
		k.issue(&meta.Rmdir{Parent: dir.ino, Name: name}, nil, dir)
	case Rename:
		to := k.pick(x.C, isDir)
		flags := [...]uint32{0, 0, meta.RenameNoReplace, meta.RenameExchange}[x.C>>16&3]
		k.issue(&meta.Rename{OldParent: dir.ino, OldName: name, NewParent: to.ino, NewName: nameOf(x.C >> 8), Flags: flags}, nil, dir, to)
	case Link:
		if r := k.pick(x.C, func(r *ref) bool { return !isDir(r) }); r != nil {
			k.issue(&meta.Link{Ino: r.ino, Parent: dir.ino, Name: name}, nil, r, dir)
		}
	}
}

func (k *kernel) attributes(x Step) {
	switch x.Kind {
	case Chmod:
		r := k.pick(x.A, isAny)
		k.issue(&meta.SetAttr{Ino: r.ino, Set: meta.SetMode, Mode: 0o600 | x.B&0o77}, nil, r)
	case Truncate:
		if r := k.pick(x.A, func(r *ref) bool { return isFile(r) && !r.locked }); r != nil {
			k.truncate(r, x.B%48)
		}
	case SetXattr:
		r := k.pick(x.A, isAny)
		k.issue(&meta.SetXattr{Ino: r.ino, Name: xattrOf(x.B), Value: []byte{byte(x.C)}, Flags: x.C >> 8 % 3}, nil, r)
	case RemoveXattr:
		r := k.pick(x.A, isAny)
		k.issue(&meta.RemoveXattr{Ino: r.ino, Name: xattrOf(x.B)}, nil, r)
	}
}

func xattrOf(sel uint32) string { return fmt.Sprintf("user.x%d", sel%2) }

func (k *kernel) reads(x Step) {
	r := k.pick(x.A, isAny)
	switch x.Kind {
	case GetAttr:
		inv, lost := k.c.w.last+1, k.c.lost
		k.issue(&meta.GetAttr{Ino: r.ino}, func(a client_core.Answer) {
			if res, ok := a.Result.(*meta.AttrResult); ok && isFile(r) && lost == k.c.lost {
				k.c.w.data.checkSize(k.c, r.ino, inv, res.Attr.Size)
			}
		}, r)
	case Readlink:
		k.issue(&meta.Readlink{Ino: r.ino}, nil, r)
	case ReadDir:
		dir := k.pick(x.A, isDir)
		k.issue(&meta.ReadDir{Dir: dir.ino, Limit: 1 + x.B%8, Plus: x.C&1 == 0}, nil, dir)
	case GetXattr:
		k.issue(&meta.GetXattr{Ino: r.ino, Name: xattrOf(x.B)}, nil, r)
	case ListXattr:
		k.issue(&meta.ListXattr{Ino: r.ino}, nil, r)
	case StatFS:
		k.issue(&meta.StatFS{}, nil)
	}
}

// files issues what works on handles, and what belongs to no inode.
func (k *kernel) files(x Step) {
	switch x.Kind {
	case Open:
		if r := k.pick(x.A, isFile); r != nil && len(k.handles) < 12 {
			k.open(r)
		}
		return
	case SyncAll:
		inv := k.c.w.last + 1
		k.issue(client_core.SyncAll{}, func(a client_core.Answer) { k.c.w.data.allSynced(k.c, inv, a.Err) })
		return
	case Forget:
		k.forget(k.pick(x.A, isAny))
		return
	case Unmount:
		k.shutdown()
		return
	case Cancel:
		if len(k.pending) > 0 {
			call := k.pending[int(x.A)%len(k.pending)]
			call.canceled = true
			k.c.w.note("%s cancels request %d", k.c.name, call.id)
			k.c.post(client_core.Cancel{ID: call.id})
		}
		return
	}
	h := k.handle(x.A)
	if h == nil {
		return
	}
	switch x.Kind {
	case Write, WriteSync, Append:
		n := 1 + x.C/4%4
		if x.C%4 == 0 {
			n = 18 + x.C/4%24 // too long to travel inline
		}
		k.write(h, x.Kind, x.B%40, n)
	case Read:
		k.read(h, x.B%32, 1+x.C%48)
	case Fsync:
		k.sync(h, client_core.Fsync{Ino: h.ref.ino}, nil)
	case Close:
		k.close(h)
	}
}

// truncate sets a file's size to units.
func (k *kernel) truncate(r *ref, units uint32) {
	r.locked = true
	d := k.c.w.data
	x := d.begin(k.c, r.ino, units, 0)
	x.trunc = true
	k.issue(&meta.SetAttr{Ino: r.ino, Set: meta.SetSize, Size: uint64(units) * unit}, func(a client_core.Answer) {
		r.locked = false
		d.finish(x, a, true)
	}, r)
}

func (k *kernel) write(h *handle, kind Kind, off, n uint32) {
	r := h.ref
	if r.locked {
		return
	}
	r.locked = true
	h.busy++
	d := k.c.w.data
	x := d.begin(k.c, r.ino, off, n)
	x.appends = kind == Append
	op := client_core.WriteFile{Ino: r.ino, Off: uint64(off) * unit, Data: x.content(), Append: x.appends, Sync: kind == WriteSync}
	k.issue(op, func(a client_core.Answer) {
		r.locked = false
		h.busy--
		d.finish(x, a, kind != Write)
		if kind == WriteSync {
			d.synced(k.c, r.ino, x.inv, a.Err)
		}
	}, r)
}

func (k *kernel) read(h *handle, off, n uint32) {
	h.busy++
	inv := k.c.w.last + 1
	lost := k.c.lost
	k.issue(client_core.ReadFile{Ino: h.ref.ino, Off: uint64(off) * unit, Len: n * unit}, func(a client_core.Answer) {
		h.busy--
		if a.Err != nil {
			kind := errs.KindOf(a.Err)
			if kind != errs.Interrupted && kind != errs.Stale && !(kind == errs.Expired && k.closing) && lost == k.c.lost {
				k.c.w.fail("%s: a read of inode %d fails: %v", k.c.name, h.ref.ino, a.Err)
			}
			return
		}
		plan, ok := a.Result.(*client_core.FilePlan)
		if !ok {
			k.c.w.fail("%s: a read is answered with %T", k.c.name, a.Result)
			return
		}
		data, err := k.c.w.blocks.read(plan)
		if err != nil {
			k.c.w.fail("%s reads inode %d: %v", k.c.name, h.ref.ino, err)
			return
		}
		k.c.w.data.check(k.c, h.ref.ino, inv, off, n, data)
	}, h.ref)
}
