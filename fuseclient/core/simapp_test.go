package core

import (
	"bytes"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// application does something with a file.
func (w *world) application() {
	f := w.files[w.rng.Intn(len(w.files))]
	if w.rng.Intn(12) == 0 && len(w.calls) > 0 {
		w.cancelSome()
		return
	}
	if f.ino == 0 {
		if !f.locked {
			f.locked = true
			w.call(f, &meta.Make{Parent: meta.RootIno, Name: f.name, Mode: meta.ModeRegular | 0o644})
		}
		return
	}
	switch n := w.rng.Intn(20); {
	case n < 4:
		w.look(f)
	case n < 8:
		w.read(f)
	case n == 8 && f.open > 1:
		f.open--
		w.step(CloseFile{Ino: f.ino})
	case n == 9:
		f.open++
		w.step(OpenFile{Ino: f.ino})
	case n == 10:
		w.forgetSome(f.ino)
	case !f.locked:
		w.change(f, n)
	}
}

func (w *world) call(f *simFile, op any) *call {
	w.lastReq++
	k := &call{id: w.lastReq, op: op, file: f}
	if f != nil {
		k.changes = f.changes
	}
	w.calls[k.id] = k
	w.step(Request{ID: k.id, Op: op})
	return k
}

func (w *world) cancelSome() {
	ids := make([]ReqID, 0, len(w.calls))
	for id := range w.calls {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	w.step(Cancel{ID: ids[w.rng.Intn(len(ids))]})
}

func (w *world) forgetSome(ino meta.Ino) {
	// An open file keeps one reference.
	if n := w.kernel[ino]; n > 1 {
		n = 1 + uint64(w.rng.Int63n(int64(n-1)))
		w.kernel[ino] -= n
		w.step(Forget{Ino: ino, N: n})
	}
}

func (w *world) look(f *simFile) {
	switch w.rng.Intn(4) {
	case 0:
		w.call(f, &meta.Lookup{Parent: meta.RootIno, Name: f.name})
	case 1:
		w.call(f, &meta.GetAttr{Ino: f.ino})
	case 2:
		w.call(f, &meta.ReadDir{Dir: meta.RootIno, Limit: 10, Plus: true})
	case 3:
		w.call(f, &meta.SetXattr{Ino: f.ino, Name: "user.x", Value: []byte{1}})
	}
}

func (w *world) read(f *simFile) {
	if f.reads == 0 {
		f.past = [][]byte{bytes.Clone(f.data)}
	}
	f.reads++
	off := w.rng.Intn(40 << 10)
	w.lastReq++
	k := &call{id: w.lastReq, file: f, from: len(f.past) - 1}
	k.op = ReadFile{Ino: f.ino, Off: uint64(off), Len: uint32(w.rng.Intn(30 << 10))}
	w.calls[k.id] = k
	w.step(Request{ID: k.id, Op: k.op})
}

func (w *world) change(f *simFile, n int) {
	f.locked = true
	switch {
	case n < 15:
		data := make([]byte, 1+w.rng.Intn([]int{300, 5000, 20000}[w.rng.Intn(3)]))
		w.rng.Read(data)
		off := uint64(w.rng.Intn(40 << 10))
		if w.rng.Intn(2) == 0 {
			off = min(uint64(len(f.data)), 48<<10)
		}
		w.call(f, WriteFile{Ino: f.ino, Off: off, Data: data, Sync: w.rng.Intn(6) == 0, Append: w.rng.Intn(5) == 0})
	case n == 15:
		w.call(f, &meta.SetAttr{Ino: f.ino, Set: meta.SetSize, Size: uint64(w.rng.Intn(50 << 10))})
	case n == 16:
		w.call(f, Flush{Ino: f.ino})
	case n < 19:
		w.call(f, Fsync{Ino: f.ino})
	default:
		w.call(f, &meta.Rename{OldParent: meta.RootIno, OldName: f.name, NewParent: meta.RootIno, NewName: f.name})
	}
}

func (w *world) answered(a Answer) {
	k := w.calls[a.ID]
	if k == nil {
		w.fatal("request %d answered again or never made", a.ID)
	}
	delete(w.calls, a.ID)
	if (a.Result == nil) == (a.Err == nil) {
		w.fatal("answer %+v", a)
	}
	switch r := a.Result.(type) {
	case *meta.EntryResult:
		w.kernel[r.Attr.Ino]++
	case *meta.DirResult:
		for _, e := range r.Entries {
			w.kernel[e.Attr.Ino]++
		}
	}
	f := k.file
	switch o := k.op.(type) {
	case *meta.Make:
		f.locked = false
		if r, ok := a.Result.(*meta.EntryResult); ok {
			f.ino, f.open, f.held = r.Attr.Ino, 1, w.srv.on
			w.step(OpenFile{Ino: f.ino})
		}
	case *meta.GetAttr:
		if r, ok := a.Result.(*meta.AttrResult); ok && !f.locked && !f.unknown && (!w.srv.on || f.changes == k.changes) && r.Attr.Size != uint64(len(f.data)) {
			w.fatal("file %s has size %d, want %d", f.name, r.Attr.Size, len(f.data))
		}
	case ReadFile:
		w.readDone(k, o, a)
	case WriteFile, *meta.SetAttr, Flush, Fsync, *meta.Rename:
		w.changed(f, o, a)
	}
}

func (w *world) readDone(k *call, o ReadFile, a Answer) {
	f := k.file
	f.reads--
	p, ok := a.Result.(*FilePlan)
	if !ok || f.unknown {
		return
	}
	f.kept = f.kept || p.Keep
	got := assemble(p, w.blocks())
	versions := slices.Clone(f.past[k.from:])
	if w.foreign != nil && w.foreign.file == f {
		versions = append(versions, w.foreign.after)
	}
	for _, other := range w.calls {
		// A change under way may be visible already.
		switch o := other.op.(type) {
		case WriteFile:
			if other.file == f {
				off := o.Off
				if o.Append {
					off = uint64(len(f.data))
				}
				versions = append(versions, written(f.data, off, o.Data))
			}
		case *meta.SetAttr:
			if other.file == f {
				versions = append(versions, resize(f.data, o.Size))
			}
		}
	}
	most := 0
	for i := range max(len(got), int(o.Len)) {
		pos, here := int(o.Off)+i, i < len(got)
		allowed := false
		for _, v := range versions {
			most = max(most, len(v))
			allowed = allowed || here == (pos < len(v) && i < int(o.Len)) && (!here || got[i] == v[pos])
		}
		if !allowed {
			w.fatal("read of %s at %d+%d: wrong at %d (%d bytes, %d versions of at most %d)",
				f.name, o.Off, o.Len, pos, len(got), len(versions), most)
		}
	}
}

// written returns b with data at off.
func written(b []byte, off uint64, data []byte) []byte {
	d := resize(b, max(uint64(len(b)), off+uint64(len(data))))
	copy(d[off:], data)
	return d
}

// set changes the file as applications see it.
func (f *simFile) set(data []byte) {
	f.data = data
	f.changes++
	if f.reads > 0 {
		f.past = append(f.past, bytes.Clone(data))
	}
}

func (w *world) changed(f *simFile, op any, a Answer) {
	f.locked = false
	if a.Err != nil {
		_, names := op.(*meta.Rename)
		if names && w.srv.on && w.lost && errs.Is(a.Err, errs.IO) {
			return // operations in the directory were lost; told once
		}
		if k := errs.KindOf(a.Err); k != errs.Interrupted && !f.unknown {
			w.fatal("%T on %s: %v", op, f.name, a.Err)
		}
		switch op.(type) {
		case WriteFile, *meta.SetAttr:
			f.unknown = true // may have happened
		}
		return
	}
	switch o := op.(type) {
	case WriteFile:
		r := a.Result.(*meta.AttrResult)
		if o.Append && !f.unknown && r.Off != uint64(len(f.data)) {
			w.fatal("append to %s went to %d, want %d", f.name, r.Off, len(f.data))
		}
		d := written(f.data, r.Off, o.Data)
		f.set(d)
		f.held = true
		if !f.unknown && r.Attr.Ino == f.ino && r.Attr.Nlink > 0 && r.Attr.Size != uint64(len(d)) {
			w.fatal("write to %s says size %d, want %d", f.name, r.Attr.Size, len(d))
		}
		if o.Sync || o.Append && !w.srv.on {
			w.durable(f)
		}
	case *meta.SetAttr:
		f.set(resize(f.data, o.Size))
		f.held = true
		if !w.srv.on {
			w.durable(f)
		}
	case Fsync:
		w.durable(f)
	case Flush, *meta.Rename:
		if !w.srv.on {
			w.durable(f)
		}
	}
}

// durable: the server has the file as applications see it.
func (w *world) durable(f *simFile) {
	f.held = false
	if f.unknown {
		return
	}
	if got := w.srv.inodes[f.ino].data; !bytes.Equal(got, f.data) {
		i := 0
		for i < min(len(got), len(f.data)) && got[i] == f.data[i] {
			i++
		}
		w.fatal("%s at the server has %d bytes, want %d, differs at %d", f.name, len(got), len(f.data), i)
	}
}

// finish quiesces and compares everything.
func (w *world) finish() {
	w.settle("calls", func() bool { return len(w.calls) == 0 && w.state == StateReady })
	for _, f := range w.files {
		if f.ino != 0 && !f.locked {
			f.locked = true
			if !f.unknown {
				w.call(f, Fsync{Ino: f.ino})
			}
		}
	}
	w.call(nil, SyncAll{})
	w.settle("sync", func() bool { return len(w.calls) == 0 && w.c.Stats().Dirty == 0 })
	// Everything that timers carry has left.
	w.settle("quiet", func() bool { return len(w.c.ops.acks) == 0 && w.c.pins.flushAt == 0 && w.c.late.flushAt == 0 })
	w.checkPins()
	for _, f := range w.files {
		for ; f.open > 0; f.open-- {
			w.step(CloseFile{Ino: f.ino})
		}
	}
	inos := make([]meta.Ino, 0, len(w.kernel))
	for ino := range w.kernel {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	for _, ino := range inos {
		w.step(Forget{Ino: ino, N: w.kernel[ino]})
		delete(w.kernel, ino)
	}
	w.settle("forget", func() bool { return w.c.pins.flushAt == 0 && len(w.c.ops.acks) == 0 && w.c.ops.flight.Len() == 0 })
	w.checkPins()
	if s := w.c.Stats(); s.Requests+s.Dirty+s.Files+s.InFlight != 0 || s.Pins != 0 && !w.srv.on {
		w.fatal("memory is not returned: %+v", s)
	}
	if n := len(w.srv.sessions[w.session].recorded); n != 0 || len(w.c.ops.acking) != 0 {
		w.fatal("%d outcomes stay recorded, %d acknowledgements unproven", n, len(w.c.ops.acking))
	}
	w.call(nil, Shutdown{})
	w.settle("shutdown", func() bool { return len(w.calls) == 0 })
	if w.state != StateEnded {
		w.fatal("state %s after shutdown", w.state)
	}
}

// checkPins: the server pins exactly what the kernel references.
func (w *world) checkPins() {
	pins := w.srv.sessions[w.session].pins
	for ino, n := range w.kernel {
		if n > 0 && pins[ino] == 0 {
			w.fatal("inode %d is referenced and not pinned", ino)
		}
	}
	for ino := range pins {
		if p, _ := w.c.pins.table.Get(ino); w.kernel[ino] == 0 && !w.srv.on || p.replies != pins[ino] || p.kernel != w.kernel[ino] {
			w.fatal("inode %d: server counts %d, client %+v, kernel %d", ino, pins[ino], p, w.kernel[ino])
		}
	}
}
