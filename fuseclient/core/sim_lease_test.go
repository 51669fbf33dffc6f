package core

import (
	"bytes"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"
)

// foreign is a change of a file by another mount.
type foreign struct {
	file  *simFile
	off   int
	data  []byte
	after []byte // content, once executed

	stream uint64 // on which the recall was sent
}

// foreigner moves a change by another mount on, or begins one.
func (w *world) foreigner() {
	x := w.foreign
	if x == nil {
		f := w.files[w.rng.Intn(len(w.files))]
		if w.calm || f.ino == 0 || f.locked || f.unknown || w.session == 0 || w.rng.Intn(3) > 0 || w.srv.inodes[f.ino] == nil {
			return
		}
		f.locked = true
		data := make([]byte, 1+w.rng.Intn(8000))
		w.rng.Read(data)
		w.foreign = &foreign{file: f, off: w.rng.Intn(30 << 10), data: data}
		w.recall()
		return
	}
	ses := w.srv.sessions[w.srv.lastSes]
	if !ses.ended && !w.srv.free() {
		if w.session != 0 && ses.claimed && !w.srv.acked && w.stream != x.stream {
			w.recall() // that of the old stream is void
		}
		return
	}
	f := x.file
	n := w.srv.inodes[f.ino]
	w.foreign, w.srv.recall = nil, nil
	w.srv.lease[f.ino] = meta.LeaseNone
	w.srv.changed[f.ino]++
	f.locked = false
	if n == nil || f.unknown || ses.ended {
		f.unknown = f.unknown || ses.ended
		return
	}
	if !bytes.Equal(n.data, f.data) {
		w.fatal("another mount finds %d bytes in %s, want %d, or other ones", len(n.data), f.name, len(f.data))
	}
	if f.kept {
		w.fatal("the kernel keeps pages of %s while another mount writes", f.name)
	}
	n.data = written(n.data, uint64(x.off), x.data)
	w.srv.touch(n)
	f.set(bytes.Clone(n.data))
}

func (w *world) recall() {
	w.foreign.stream = w.stream
	w.toClient = append(w.toClient, w.srv.begin(w.foreign.file.ino))
}

// driveOut is the kernel that finds dirty pages of a mapping when it is told
// to forget.
func (w *world) driveOut(e Invalidate) {
	x := w.foreign
	if x == nil || w.rng.Intn(3) > 0 {
		return
	}
	for _, it := range e.Items {
		n := w.c.nodeOf(it.Ino)
		if it.Ino == x.file.ino && !it.Attr && !x.file.unknown && n != nil && n.lease == meta.LeaseWrite {
			data := make([]byte, 4096)
			w.rng.Read(data)
			w.lastReq++
			k := &call{id: w.lastReq, op: WriteFile{Ino: it.Ino, Off: uint64(w.rng.Intn(8)) << 12, Data: data, Writeback: true}, file: x.file}
			w.calls[k.id] = k
			w.pages = append(w.pages, k)
		}
	}
}

// endInval is the kernel that has forgotten; pages that are being written
// come first.
func (w *world) endInval() {
	if len(w.pages) > 0 {
		k := w.pages[0]
		w.pages = w.pages[1:]
		if n := w.c.nodeOf(k.file.ino); n == nil || n.lease != meta.LeaseWrite {
			delete(w.calls, k.id)
			return // dirtied without a lease: only promised to be seen after msync
		}
		w.step(Request{ID: k.id, Op: k.op})
		if _, open := w.calls[k.id]; open && !k.file.unknown {
			w.fatal("dirty pages of %s wait while the kernel is told to forget", k.file.name)
		}
		k.file.locked = w.foreign != nil
		return
	}
	if len(w.invals) == 0 {
		return
	}
	i := w.rng.Intn(len(w.invals))
	e := w.invals[i]
	w.invals = append(w.invals[:i:i], w.invals[i+1:]...)
	for _, it := range e.Items {
		for _, f := range w.files {
			if it.Ino == f.ino && !it.Attr && it.Off == 0 && it.Len == 0 {
				f.kept = false
			}
		}
	}
	w.step(Invalidated{Token: e.Token})
}

// blocks are those that may be read.
func (w *world) blocks() map[chunk.BlockID]fakeBlock { return w.srv.blocks }

// checkTruth compares what the client takes for the truth with the server,
// where nothing is under way.
func (w *world) checkTruth() {
	for _, f := range w.files {
		n, s := w.c.nodeOf(f.ino), w.srv.inodes[f.ino]
		if n == nil || s == nil || !n.attrOK || !w.c.readable(n) || n.seq > w.c.log.acked || n.mutating > 0 {
			continue
		}
		if r, ok := w.c.files.Get(f.ino); ok && (r.dirty.bytes > 0 || len(r.parts) > 0) {
			continue
		}
		a, b := n.attr, s.attr
		if a.Size != b.Size || a.Mtime != b.Mtime || a.Ctime != b.Ctime || a.DataVersion != b.DataVersion {
			w.fatal("%s: the client believes %+v, the server says %+v", f.name, a, b)
		}
	}
}
