package state

import (
	"cmp"
	"slices"

	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// NameKey is a name in a directory, taken or free.
type NameKey struct {
	Dir  meta.Ino
	Name string
}

// Touched is what an operation changes, or decides on, at one state. Each list
// is ascending and without repetition; an inode may be in Dirs and in Inos.
type Touched struct {
	// Names that it looks up, adds or takes away.
	Names []NameKey
	// Dirs are the directories of Names: their names and attributes change if
	// the operation succeeds.
	Dirs []meta.Ino
	// Inos are the other inodes that it changes or decides on: what a name
	// stands for (a victim, what is moved or replaced, directories among them;
	// the file that a Make finds), the target of a Link, SetAttr, Write or
	// change of extended attributes.
	Inos []meta.Ino
}

// Touches tells what op would touch in drive at the state of v. Inodes named by
// number are listed whether they exist or not. An operation that fails may
// touch less, none touches more; reads and LateAck touch nothing. Ancestors,
// which a rename of a directory looks at, are not listed.
// errs.NotExist: the group has no such drive.
func Touches(v kv.View, drive meta.DriveID, op meta.Op) (Touched, error) {
	d, err := LoadDrive(v, drive)
	if err != nil {
		return Touched{}, err
	}
	var t Touched
	name := func(dir meta.Ino, name string) {
		t.Names = append(t.Names, NameKey{dir, name})
		t.Dirs = append(t.Dirs, dir)
		ino, taken, lookup := d.Space().NameOf(v, dir, name)
		if lookup != nil {
			err = lookup
		}
		if taken {
			t.Inos = append(t.Inos, ino)
		}
	}
	switch x := op.(type) {
	case *meta.Make:
		name(x.Parent, x.Name)
	case *meta.Link:
		name(x.Parent, x.Name)
		t.Inos = append(t.Inos, x.Ino)
	case *meta.Unlink:
		name(x.Parent, x.Name)
	case *meta.Rmdir:
		name(x.Parent, x.Name)
	case *meta.Rename:
		name(x.OldParent, x.OldName)
		name(x.NewParent, x.NewName)
	case *meta.SetAttr:
		t.Inos = append(t.Inos, x.Ino)
	case *meta.Write:
		t.Inos = append(t.Inos, x.Ino)
	case *meta.SetXattr:
		t.Inos = append(t.Inos, x.Ino)
	case *meta.RemoveXattr:
		t.Inos = append(t.Inos, x.Ino)
	}
	t.sort()
	return t, err
}

func (t *Touched) sort() {
	slices.SortFunc(t.Names, func(a, b NameKey) int {
		return cmp.Or(cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Name, b.Name))
	})
	t.Names = slices.Compact(t.Names)
	slices.Sort(t.Dirs)
	t.Dirs = slices.Compact(t.Dirs)
	slices.Sort(t.Inos)
	t.Inos = slices.Compact(t.Inos)
}
