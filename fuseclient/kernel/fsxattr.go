package kernel

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/metaserver/meta"
)

// GetXAttr implements fuse.RawFileSystem. An empty dest asks for the size.
func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	r, _, err := do[*meta.BytesResult](f, h, &meta.GetXattr{Ino: f.ino(h.NodeId), Name: name})
	if err != nil {
		return 0, status(err)
	}
	return give(dest, r.Data)
}

// ListXAttr implements fuse.RawFileSystem.
func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r, _, err := do[*meta.NamesResult](f, h, &meta.ListXattr{Ino: f.ino(h.NodeId)})
	if err != nil {
		return 0, status(err)
	}
	var list []byte
	for _, n := range r.Names {
		list = append(append(list, n...), 0)
	}
	return give(dest, list)
}

// give copies data into dest, or tells its size when dest is empty or short.
func give(dest, data []byte) (uint32, fuse.Status) {
	switch {
	case len(dest) == 0:
	case len(dest) < len(data):
		return uint32(len(data)), fuse.ERANGE
	default:
		copy(dest, data)
	}
	return uint32(len(data)), fuse.OK
}

// SetXAttr implements fuse.RawFileSystem. The value is copied: it stands in a
// request buffer.
func (f *fileSystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if len(data) < int(in.Size) {
		return fuse.EINVAL
	}
	_, _, err := do[*meta.EmptyResult](f, &in.InHeader, &meta.SetXattr{
		Cred: cred(&in.InHeader), Ino: f.ino(in.NodeId), Name: name,
		Value: slices.Clone(data[:in.Size]), Flags: in.Flags,
	})
	return status(err)
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *fileSystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	_, _, err := do[*meta.EmptyResult](f, h, &meta.RemoveXattr{Cred: cred(h), Ino: f.ino(h.NodeId), Name: name})
	return status(err)
}
