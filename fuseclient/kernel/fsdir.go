package kernel

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Offsets of a directory stream: 0 the start, 1 behind ".", 2 behind "..",
// else the cookie of the entry before. The servers give no cookie below 3.
const (
	offStart  = 0
	offDotDot = 2
)

// Bytes of a directory reply: struct fuse_dirent and struct fuse_entry_out.
const (
	direntBytes   = 24
	entryOutBytes = 128
	typicalName   = 24 // guess of a name's length, for the size of a page
)

func entryBytes(name string, plus bool) int {
	n := (direntBytes + len(name) + 7) &^ 7
	if plus {
		n += entryOutBytes
	}
	return n
}

// OpenDir implements fuse.RawFileSystem. A directory handle has no state:
// cookies are stable whatever changes.
func (*fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// ReleaseDir implements fuse.RawFileSystem.
func (*fileSystem) ReleaseDir(*fuse.ReleaseIn) {}

// FsyncDir implements fuse.RawFileSystem: the directory's names are durable.
func (f *fileSystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	_, _, err := do[*meta.EmptyResult](f, &in.InHeader, core.Fsync{Ino: f.ino(in.NodeId)})
	return status(err)
}

// ReadDir implements fuse.RawFileSystem.
func (f *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return status(f.readDir(in, out, false))
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *fileSystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return status(f.readDir(in, out, true))
}

// dirWriter fills the kernel's buffer.
type dirWriter struct {
	f    *fileSystem
	out  *fuse.DirEntryList
	room int // bytes left
	plus bool
}

// dots writes "." and ".." as far as the stream has not passed them. The
// number shown for ".." is the directory's own: its parent may lie outside the
// mount.
func (w *dirWriter) dots(off uint64, ino meta.Ino) {
	for i, name := range []string{".", ".."} {
		if off > uint64(i) {
			continue
		}
		d := fuse.DirEntry{Name: name, Ino: uint64(ino), Mode: meta.ModeDir, Off: uint64(i + 1)}
		if w.plus {
			// Node 0: the kernel takes no reference for the two.
			w.out.AddDirLookupEntry(d)
		} else {
			w.out.AddDirEntry(d)
		}
		w.room -= entryBytes(name, w.plus)
	}
}

// group writes entries that share a cookie, all or none: a stream can be
// resumed behind them only. lives are their lifetimes, nil if none has any. It
// reports whether they fit.
func (w *dirWriter) group(g []meta.DirEntry, lives []core.Cache) bool {
	need := 0
	for i := range g {
		need += entryBytes(g[i].Name, w.plus)
	}
	if need > w.room {
		return false
	}
	w.room -= need
	for i := range g {
		e := &g[i]
		d := fuse.DirEntry{Name: e.Name, Ino: uint64(e.Attr.Ino), Mode: e.Attr.Mode, Off: e.Cookie}
		if w.plus {
			var t core.Cache
			if lives != nil {
				t = w.f.lifetimes(answerEntry, lives[i])
			}
			w.f.fillEntry(w.out.AddDirLookupEntry(d), &e.Attr, t)
		} else {
			w.out.AddDirEntry(d)
		}
	}
	return true
}

func (f *fileSystem) readDir(in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) error {
	const op = "kernel.readdir"
	ino := f.ino(in.NodeId)
	w := &dirWriter{f: f, out: out, room: int(in.Size), plus: plus}
	cookie := in.Offset
	if cookie <= offDotDot {
		w.dots(cookie, ino)
		cookie = offStart
	}
	typical := direntBytes + typicalName
	if plus {
		typical += entryOutBytes
	}
	r, a, err := do[*meta.DirResult](f, &in.InHeader, &meta.ReadDir{
		Dir: ino, Cookie: cookie, Limit: uint32(max(1, w.room/typical)), Plus: plus,
	})
	if err != nil {
		return err
	}
	given := 0 // entries taken into the reply
	defer func() { f.unpin(r, given) }()
	if plus && !r.Plus {
		return errs.E(op, errs.IO, "page without attributes", nil)
	}
	if len(r.Entries) == 0 && !r.EOF {
		return errs.E(op, errs.IO, "empty page before the end", nil)
	}
	for i := range r.Entries {
		if err := f.checkChild(r.Entries[i].Attr.Ino); err != nil {
			return err
		}
		if r.Entries[i].Cookie <= offDotDot {
			return errs.E(op, errs.IO, "reserved cookie", nil)
		}
	}
	if a.Lives != nil && len(a.Lives) != len(r.Entries) {
		return errs.E(op, errs.IO, "lifetimes do not match the page", nil)
	}
	for given < len(r.Entries) {
		end := given + 1
		for end < len(r.Entries) && r.Entries[end].Cookie == r.Entries[given].Cookie {
			end++
		}
		var lives []core.Cache
		if a.Lives != nil {
			lives = a.Lives[given:end]
		}
		if !w.group(r.Entries[given:end], lives) {
			break
		}
		given = end
	}
	if given == 0 && len(r.Entries) > 0 && in.Offset >= offDotDot {
		return errs.E(op, errs.IO, "entries of one cookie exceed the kernel's buffer", nil)
	}
	return nil
}

// unpin returns the pins of entries that the page gave and the reply does not
// hold.
func (f *fileSystem) unpin(r *meta.DirResult, given int) {
	if !r.Plus {
		return
	}
	for i := range r.Entries[given:] {
		f.backend.Forget(r.Entries[given+i].Attr.Ino, 1)
	}
}
