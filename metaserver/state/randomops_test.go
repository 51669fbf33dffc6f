package state

import (
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"
)

// op draws a mutation of any kind.
func (w *writer) op() meta.Op {
	r := w.r
	cred := meta.Cred{UID: uint32(r.IntN(3)), GID: uint32(r.IntN(3))}
	switch r.IntN(14) {
	case 0, 1, 2, 3:
		types := []uint32{meta.ModeRegular, meta.ModeRegular, meta.ModeDir, meta.ModeSymlink, meta.ModeFIFO, meta.ModeSocket, meta.ModeChar}
		m := &meta.Make{Cred: cred, Parent: w.ino(), Name: w.name(), Mode: types[r.IntN(len(types))] | uint32(r.IntN(0o10000)), Excl: r.IntN(2) == 0}
		if m.Mode&meta.ModeType == meta.ModeSymlink {
			m.Target = w.name()
		}
		return m
	case 4:
		return &meta.Link{Cred: cred, Ino: w.ino(), Parent: w.ino(), Name: w.name()}
	case 5:
		return &meta.Unlink{Cred: cred, Parent: w.ino(), Name: w.name()}
	case 6:
		return &meta.Rmdir{Cred: cred, Parent: w.ino(), Name: w.name()}
	case 7:
		return &meta.Rename{Cred: cred, OldParent: w.ino(), OldName: w.name(), NewParent: w.ino(), NewName: w.name(), Flags: uint32(r.IntN(3))}
	case 8:
		return &meta.SetAttr{Cred: cred, Ino: w.ino(), Set: uint32(r.IntN(1 << 9)), Mode: uint32(r.IntN(0o10000)), UID: 1, GID: 2, Size: uint64(r.IntN(1 << 20)), Atime: 5, Mtime: 6}
	case 9:
		return &meta.SetXattr{Cred: cred, Ino: w.ino(), Name: "user." + w.name(), Value: make([]byte, r.IntN(3000)), Flags: uint32(r.IntN(3))}
	case 10:
		return &meta.RemoveXattr{Cred: cred, Ino: w.ino(), Name: "user." + w.name()}
	case 11:
		return &meta.LateAck{Copies: w.copies()}
	}
	return w.write(cred)
}

func (w *writer) write(cred meta.Cred) meta.Op {
	r := w.r
	x := &meta.Write{Cred: cred, Ino: w.ino(), Append: r.IntN(4) == 0, KillPriv: r.IntN(2) == 0}
	off := uint64(r.IntN(1 << 18))
	if r.IntN(2) == 0 {
		b := make([]byte, 1+r.IntN(200))
		x.Extents = []meta.Extent{{Off: off, Len: uint32(len(b)), Kind: meta.ExtentInline, Inline: b}}
		return x
	}
	var id chunk.BlockID
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	length := uint32(1 + r.IntN(1<<16))
	nb := meta.NewBlock{ID: id, PG: 3, Epoch: 1, Len: length, Acked: []chunk.ServerID{1, 2}}
	if r.IntN(3) == 0 {
		nb.Missing = []chunk.ServerID{3}
		w.blocks = append(w.blocks, id)
	}
	x.Blocks = []meta.NewBlock{nb}
	x.Extents = []meta.Extent{{Off: off, Len: length, Kind: meta.ExtentBlock, Block: id}}
	return x
}

func (w *writer) copies() (list []meta.BlockCopy) {
	for range 2 {
		if len(w.blocks) > 0 {
			list = append(list, meta.BlockCopy{ID: w.blocks[w.r.IntN(len(w.blocks))], Server: 3})
		}
	}
	return list
}

// internal draws an operation of the servers of any kind.
func (w *writer) internal() Internal {
	r := w.r
	name := fmt.Sprint("drive-", r.IntN(6))
	switch r.IntN(60) {
	case 0:
		i := r.IntN(len(w.sessions))
		s := w.sessions[i]
		w.sessions = append(w.sessions[:i], w.sessions[i+1:]...)
		return &CloseSession{Session: s.Session}
	case 1:
		return &DropDrive{Drive: meta.DriveID(1 + r.IntN(3)), Force: r.IntN(8) == 0}
	case 2, 3, 4, 5, 6, 7, 8, 9:
		d := meta.DriveID(1 + r.IntN(3))
		return &ResolveOrphans{Drive: d, Orphans: w.orphans(d)}
	case 10, 11, 12, 13:
		return &UnpinOrphans{Session: w.session().Session, Inos: []meta.Ino{w.ino(), w.ino()}}
	case 14, 15, 16:
		return &ForgetFreed{Keys: w.freed()}
	case 17, 18:
		return &CopiesDone{Copies: w.copies()}
	case 19, 20:
		return &Swept{Session: w.session().Session, Server: chunk.ServerID(r.IntN(3))}
	case 21, 22:
		return &AckReplies{Session: w.session().Session, Ops: []meta.OpID{w.lastOp, w.lastOp - 1}}
	case 23:
		return &PutServer{Server: Server{ID: chunk.ServerID(1 + r.IntN(4)), Address: fmt.Sprint("h:", r.IntN(3)), Host: "h"}}
	case 24, 25:
		return &CreateDrive{Name: name, Group: uint32(r.IntN(3))}
	case 26:
		return &MarkDrive{Name: name, Deleting: r.IntN(2) == 0}
	case 27:
		return &RemoveDrive{Name: name}
	case 28, 29:
		return &AllocGroups{Session: w.session().Session, N: uint32(r.IntN(4))}
	case 30:
		return &SetQuota{Drive: meta.DriveID(1 + r.IntN(3)), SetBytes: r.IntN(2) == 0, MaxBytes: uint64(r.IntN(4)) << 20, SetFiles: r.IntN(2) == 0, MaxFiles: uint64(r.IntN(3) * 2000)}
	}
	return &Reclaim{Budget: uint32(1 + r.IntN(64))}
}
