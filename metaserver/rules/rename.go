package rules

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// CheckRename validates the flags and the new name of a Rename.
func CheckRename(x *meta.Rename) error {
	if x.Flags&^(meta.RenameNoReplace|meta.RenameExchange) != 0 || x.Flags == meta.RenameNoReplace|meta.RenameExchange {
		return fail("rules.rename", errs.Invalid, "flags %#x", x.Flags)
	}
	return CheckName(x.NewName)
}

// CheckNew decides by the flags on the new name of a Rename in directory to;
// taken: the name exists.
func CheckNew(x *meta.Rename, to *meta.Attr, taken bool) error {
	switch {
	case taken && x.Flags&meta.RenameNoReplace != 0:
		return fail("rules.rename", errs.Exist, "%q exists", x.NewName)
	case taken:
		return nil
	case x.Flags&meta.RenameExchange != 0:
		return fail("rules.rename", errs.NotExist, "no %q in directory %d", x.NewName, x.NewParent)
	}
	return CheckLive(to)
}

// Move is a Rename with the attributes of all that it concerns. The caller has
// made sure that no directory becomes its own descendant: errs.Invalid if the
// moved one would, or with RenameExchange the other one; errs.NotEmpty if what
// is replaced holds, at any depth, the directory From. Within one directory
// neither can be.
type Move struct {
	Op       *meta.Rename
	From, To *meta.Attr // directories; the same pointer if they are one
	Moved    *meta.Attr // what has the old name
	Over     *meta.Attr // what has the new name, or nil
}

// Nothing reports a rename between two names of one inode: it succeeds and
// changes nothing.
func (m *Move) Nothing() bool { return m.Over != nil && m.Over.Ino == m.Moved.Ino }

// Check applies the rules of removal to both names. Not to be called when
// Nothing holds.
func (m *Move) Check() error {
	if err := checkSticky(m.Op.Cred, m.From, m.Moved); err != nil {
		return err
	}
	if m.Over == nil {
		return nil
	}
	if err := checkSticky(m.Op.Cred, m.To, m.Over); err != nil {
		return err
	}
	if m.exchange() {
		return nil
	}
	switch {
	case m.Moved.IsDir() && !m.Over.IsDir():
		return fail("rules.rename", errs.NotDir, "%q is not a directory", m.Op.NewName)
	case !m.Moved.IsDir() && m.Over.IsDir():
		return fail("rules.rename", errs.IsDir, "%q is a directory", m.Op.NewName)
	case m.Over.IsDir() && m.Over.Size != 0:
		return fail("rules.rename", errs.NotEmpty, "%q holds %d entries", m.Op.NewName, m.Over.Size)
	}
	return nil
}

func (m *Move) exchange() bool { return m.Op.Flags&meta.RenameExchange != 0 }

// Apply changes the attributes. What is replaced loses a name: Nlink 0, the
// last one.
func (m *Move) Apply(now int64) {
	if m.exchange() {
		went(m.Over, m.To, m.From, now)
	} else {
		if m.Over != nil {
			dropped(m.To, m.Over, now)
		}
		m.From.Size--
		m.To.Size++
	}
	went(m.Moved, m.From, m.To, now)
	Modify(m.From, now)
	if m.To != m.From {
		Modify(m.To, now)
	}
}

// went books that a name of n went from one directory to another.
func went(n, from, to *meta.Attr, now int64) {
	Touch(n, now)
	if n.IsDir() {
		from.Nlink--
		to.Nlink++
	}
}
