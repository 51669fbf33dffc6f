package kernel

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// makeEntry runs a Make that must not find anything there.
func (f *fileSystem) makeEntry(h *fuse.InHeader, op *meta.Make, out *fuse.EntryOut) fuse.Status {
	op.Cred, op.Parent, op.Excl = cred(h), f.ino(h.NodeId), true
	_, _, err := f.entry(h, op, answerNew, out)
	return status(err)
}

// Mknod implements fuse.RawFileSystem.
func (f *fileSystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, &meta.Make{Name: name, Mode: in.Mode, Rdev: in.Rdev}, out)
}

// Mkdir implements fuse.RawFileSystem.
func (f *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, &meta.Make{Name: name, Mode: in.Mode&meta.ModePerm | meta.ModeDir}, out)
}

// Symlink implements fuse.RawFileSystem.
func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(h, &meta.Make{Name: name, Mode: meta.ModeSymlink | 0o777, Target: target}, out)
}

// Readlink implements fuse.RawFileSystem.
func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r, _, err := do[*meta.BytesResult](f, h, &meta.Readlink{Ino: f.ino(h.NodeId)})
	if err != nil {
		return nil, status(err)
	}
	if len(r.Data) > meta.MaxTarget {
		return nil, status(errs.E("kernel.readlink", errs.IO, "target longer than any", nil))
	}
	return r.Data, fuse.OK
}

// Link implements fuse.RawFileSystem.
func (f *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	op := &meta.Link{Cred: cred(&in.InHeader), Ino: f.ino(in.Oldnodeid), Parent: f.ino(in.NodeId), Name: name}
	_, _, err := f.entry(&in.InHeader, op, answerNew, out)
	return status(err)
}

// Unlink implements fuse.RawFileSystem.
func (f *fileSystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, _, err := do[*meta.AttrResult](f, h, &meta.Unlink{Cred: cred(h), Parent: f.ino(h.NodeId), Name: name})
	return status(err)
}

// Rmdir implements fuse.RawFileSystem.
func (f *fileSystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, _, err := do[*meta.AttrResult](f, h, &meta.Rmdir{Cred: cred(h), Parent: f.ino(h.NodeId), Name: name})
	return status(err)
}

// Rename implements fuse.RawFileSystem.
func (f *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^(meta.RenameNoReplace|meta.RenameExchange) != 0 {
		return fuse.EINVAL // RENAME_WHITEOUT
	}
	_, _, err := do[*meta.AttrResult](f, &in.InHeader, &meta.Rename{
		Cred:      cred(&in.InHeader),
		OldParent: f.ino(in.NodeId), OldName: oldName,
		NewParent: f.ino(in.Newdir), NewName: newName,
		Flags: in.Flags,
	})
	return status(err)
}

// Create implements fuse.RawFileSystem: make and open in one request, sent
// when the kernel found the name absent.
//
// If the file is there by now, the kernel would take it for new: it would
// neither check access nor truncate. So without O_EXCL, and unless access is
// plain from the mode bits, the answer is ESTALE: the kernel then looks the
// name up again and opens what it finds by the ordinary way.
func (f *fileSystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	h := &in.InHeader
	excl := in.Flags&syscall.O_EXCL != 0
	op := &meta.Make{
		Cred: cred(h), Parent: f.ino(h.NodeId), Name: name,
		Mode: in.Mode&meta.ModePerm | meta.ModeRegular, Excl: excl,
	}
	r, life, err := f.entry(h, op, answerNew, &out.EntryOut)
	if errs.Is(err, errs.Exist) && !excl {
		return fuse.Status(syscall.ESTALE) // a symlink, a directory, ...
	}
	if err != nil {
		return status(err)
	}
	ino := r.Attr.Ino
	if !r.Created {
		if !mayOpen(&r.Attr, op.Cred, in.Flags) {
			f.backend.Forget(ino, 1)
			return fuse.Status(syscall.ESTALE)
		}
		if in.Flags&syscall.O_TRUNC != 0 {
			cut := &meta.SetAttr{Cred: op.Cred, Ino: ino, Set: meta.SetSize}
			if op.Cred.UID != 0 {
				cut.Set |= meta.KillPriv
			}
			a, _, err := do[*meta.AttrResult](f, h, cut)
			if err != nil {
				f.backend.Forget(ino, 1)
				return status(err)
			}
			f.fillEntry(&out.EntryOut, &a.Attr, life)
		}
	}
	f.open(ino, in.Flags, &out.OpenOut)
	return fuse.OK
}

// mayOpen reports whether the mode bits alone allow c to open a file with
// these flags. False means "not known": supplementary groups, capabilities and
// ACLs are the kernel's to judge.
func mayOpen(a *meta.Attr, c meta.Cred, flags uint32) bool {
	if c.UID == 0 {
		return true
	}
	want := uint32(0o4)
	switch flags & syscall.O_ACCMODE {
	case syscall.O_WRONLY:
		want = 0o2
	case syscall.O_RDWR:
		want = 0o6
	}
	if flags&syscall.O_TRUNC != 0 {
		want |= 0o2
	}
	switch {
	case c.UID == a.UID:
		return a.Mode>>6&want == want
	case c.GID == a.GID:
		return a.Mode>>3&want == want
	}
	// A member of the owning group by a supplementary one is bound by the
	// group's bits: grant only what both give.
	return a.Mode&want == want && a.Mode>>3&want == want
}
