package coherence

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	firstMode  = 0o644
	namesPart  = "names"
	treePart   = "tree"
	keepOpen   = 2 // files of the names part a worker keeps open
	openCreate = unix.O_CREAT | unix.O_RDWR | unix.O_CLOEXEC
)

// groups are the acts by what they work on; twice in a list is twice as often.
var groups = map[string][]act{
	"names": {
		(*worker).create, (*worker).create, (*worker).openOrCreate, (*worker).open, (*worker).unlink, (*worker).unlink,
		(*worker).mkdir, (*worker).rmdir, (*worker).stat, (*worker).stat, (*worker).stat, (*worker).link,
		(*worker).rename, (*worker).rename, (*worker).list, (*worker).list, (*worker).fstat, (*worker).fchmod, (*worker).statDir,
	},
	"tree": {
		(*worker).treeMkdir, (*worker).treeRmdir, (*worker).treeCreate, (*worker).treeCreate, (*worker).treeUnlink,
		(*worker).treeStat, (*worker).treeList, (*worker).treeRename,
	},
	// Registers read through mappings, too. Not among the groups that run by
	// default: a page that several mounts fight over can be loaded for a moment
	// after a write elsewhere has returned (docs/STATUS.md).
	"mapped": {
		(*worker).regWrite, (*worker).regRead, (*worker).regMapped,
	},
	"registers": {
		(*worker).regWrite, (*worker).regWrite, (*worker).regRead, (*worker).regRead, (*worker).regStat,
	},
	"text": {
		(*worker).textWrite, (*worker).textWrite, (*worker).textTruncate, (*worker).textRead, (*worker).textRead, (*worker).textStat,
	},
	"log": {
		(*worker).logAppend, (*worker).logAppend, (*worker).logRead, (*worker).logStat,
	},
	"locks": {
		(*worker).lockFile, (*worker).lockRange, (*worker).askRange, (*worker).release, (*worker).release,
	},
}

// Slots 0 to 3 are in directory d, 4 and 5 in e.
func slotName(slot int) string {
	if slot < 4 {
		return "d/n" + strconv.Itoa(slot)
	}
	return "e/n" + strconv.Itoa(slot)
}

func (w *worker) slot() int { return w.rng.IntN(slots) }

func is(part string, slot, kind int, ino uint64) Fact {
	return Fact{Part: part, Kind: "is", A: slot, B: kind, N: ino}
}

// create makes a file exclusively, and may keep it open.
func (w *worker) create() {
	w.createAt(namesPart, w.slot(), slotName)
}

func (w *worker) createAt(part string, slot int, names func(int) string) {
	var fd int
	var ino uint64
	err := w.call("create O_EXCL "+names(slot), func() (err error) {
		fd, err = unix.Open(w.path(names(slot)), openCreate|unix.O_EXCL, firstMode)
		return err
	}, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			ino, _, err = inode(fd)
			return []Fact{{Part: part, Kind: "make", A: slot, B: isFile, N: ino}}, err
		case unix.EEXIST:
			return []Fact{is(part, slot, anything, 0)}, nil
		case unix.ENOENT:
			if part == treePart {
				return []Fact{is(part, 0, absent, 0)}, nil
			}
		}
		return unexpected(err)
	})
	if err == nil {
		w.note(" = inode %d", ino)
		w.keep(fd, ino, part)
	}
}

// inode asks what a descriptor is open on.
func inode(fd int) (ino uint64, kind int, err error) {
	var st unix.Stat_t
	err = retry(func() error { return unix.Fstat(fd, &st) })
	return st.Ino, kindOf(st.Mode), err
}

func kindOf(mode uint32) int {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return isDir
	}
	return isFile
}

// keep holds a file open for later, or closes it.
func (w *worker) keep(fd int, ino uint64, part string) {
	if part != namesPart || w.chance(50) {
		unix.Close(fd)
		return
	}
	if len(w.held) == keepOpen {
		unix.Close(w.held[0].fd)
		w.held = w.held[1:]
	}
	w.held = append(w.held, held{fd, ino})
}

func (w *worker) openOrCreate() {
	slot := w.slot()
	var fd int
	var ino uint64
	err := w.call("open O_CREAT "+slotName(slot), func() (err error) {
		fd, err = unix.Open(w.path(slotName(slot)), openCreate, firstMode)
		return err
	}, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			ino, _, err = inode(fd)
			return []Fact{{Part: namesPart, Kind: "open", A: slot, N: ino}}, err
		case unix.EISDIR:
			return []Fact{is(namesPart, slot, isDir, 0)}, nil
		}
		return unexpected(err)
	})
	if err == nil {
		w.note(" = inode %d", ino)
		w.keep(fd, ino, namesPart)
	}
}

// open opens what is there for reading, and gives its inode if it is a file.
func (w *worker) open() { w.openAt(w.slot()) }

func (w *worker) openAt(slot int) (fd int, ino uint64, ok bool) {
	kind := absent
	err := w.call("open "+slotName(slot), func() (err error) {
		fd, err = unix.Open(w.path(slotName(slot)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			ino, kind, err = inode(fd)
			return []Fact{is(namesPart, slot, kind, ino)}, err
		case unix.ENOENT:
			return []Fact{is(namesPart, slot, absent, 0)}, nil
		}
		return unexpected(err)
	})
	if err != nil {
		return -1, 0, false
	}
	w.note(" = inode %d", ino)
	if kind == isDir {
		unix.Close(fd)
		return -1, 0, false
	}
	w.keep(fd, ino, namesPart)
	return fd, ino, len(w.held) > 0 && w.held[len(w.held)-1].fd == fd
}

func (w *worker) unlink() {
	w.unlinkAt(namesPart, w.slot(), slotName)
}

func (w *worker) unlinkAt(part string, slot int, names func(int) string) {
	w.call("unlink "+names(slot), func() error { return unix.Unlink(w.path(names(slot))) }, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: part, Kind: "del", A: slot, B: isFile}}, nil
		case unix.ENOENT:
			return []Fact{is(part, slot, absent, 0)}, nil
		case unix.EISDIR:
			return []Fact{is(part, slot, isDir, 0)}, nil
		}
		return unexpected(err)
	})
}

func (w *worker) mkdir() {
	w.mkdirAt(namesPart, w.slot(), slotName)
}

func (w *worker) mkdirAt(part string, slot int, names func(int) string) {
	w.call("mkdir "+names(slot), func() error { return unix.Mkdir(w.path(names(slot)), 0o755) }, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: part, Kind: "make", A: slot, B: isDir}}, nil
		case unix.EEXIST:
			return []Fact{is(part, slot, anything, 0)}, nil
		}
		return unexpected(err)
	})
}

func (w *worker) rmdir() {
	slot := w.slot()
	w.call("rmdir "+slotName(slot), func() error { return unix.Rmdir(w.path(slotName(slot))) }, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: namesPart, Kind: "del", A: slot, B: isDir}}, nil
		case unix.ENOENT:
			return []Fact{is(namesPart, slot, absent, 0)}, nil
		case unix.ENOTDIR:
			return []Fact{is(namesPart, slot, isFile, 0)}, nil
		}
		return unexpected(err)
	})
}

func (w *worker) stat() {
	w.statAt(namesPart, w.slot(), slotName)
}

// statAt looks at a name; the kernel finds the inode at one moment, and its
// attributes at the same or a later one.
func (w *worker) statAt(part string, slot int, names func(int) string) {
	var st unix.Stat_t
	err := w.call("lstat "+names(slot), func() error { return unix.Lstat(w.path(names(slot)), &st) }, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			kind := kindOf(st.Mode)
			return append([]Fact{is(part, slot, kind, st.Ino)}, attributes(part, kind, &st)...), nil
		case unix.ENOENT:
			return []Fact{is(part, slot, absent, 0)}, nil
		}
		return unexpected(err)
	})
	if err == nil {
		w.note(" = inode %d, mode %o, %d links", st.Ino, st.Mode, st.Nlink)
	}
}

// attributes are the facts of a stat that depend on the inode only.
func attributes(part string, kind int, st *unix.Stat_t) []Fact {
	if kind != isFile {
		return nil
	}
	return []Fact{
		{Part: part, Kind: "count", N: st.Ino, B: int(st.Nlink)},
		{Part: fmt.Sprintf("mode/%d", st.Ino), Kind: "read", N: uint64(st.Mode & 0o7777)},
	}
}

// link gives a file that is open another name.
func (w *worker) link() {
	fd, ino, ok := w.openAt(w.slot())
	if !ok {
		return
	}
	to := w.slot()
	w.call(fmt.Sprintf("link inode %d to %s", ino, slotName(to)), func() error {
		return unix.Linkat(fd, "", unix.AT_FDCWD, w.path(slotName(to)), unix.AT_EMPTY_PATH)
	}, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: namesPart, Kind: "link", B: to, N: ino}}, nil
		case unix.EEXIST:
			return []Fact{is(namesPart, to, anything, 0)}, nil
		case unix.ENOENT:
			// The kernel judges by its own count of links, which it lowers at
			// each unlink, and does not ask.
			return nil, nil
		}
		return unexpected(err)
	})
}

func (w *worker) rename() {
	a, b := w.slot(), w.slot()
	if a == b {
		b = (a + 1) % slots
	}
	w.renameAt(namesPart, a, b, slotName)
}

var renames = []struct {
	kind, text string
	flags      uint
}{{"move", "rename", 0}, {"move", "rename", 0}, {"moveNew", "rename NOREPLACE", unix.RENAME_NOREPLACE}, {"swap", "rename EXCHANGE", unix.RENAME_EXCHANGE}}

// renameAt renames in one of three ways. An error can come from what the
// kernel found at the two names, at two moments.
func (w *worker) renameAt(part string, a, b int, names func(int) string) {
	how := renames[w.rng.IntN(len(renames))]
	w.call(fmt.Sprintf("%s %s %s", how.text, names(a), names(b)), func() error {
		return unix.Renameat2(unix.AT_FDCWD, w.path(names(a)), unix.AT_FDCWD, w.path(names(b)), how.flags)
	}, func(err error) ([]Fact, error) {
		switch {
		case err == nil:
			return []Fact{{Part: part, Kind: how.kind, A: a, B: b}}, nil
		case err == unix.ENOENT && how.kind == "swap":
			return []Fact{{Part: part, Kind: "lack", A: a, B: b}}, nil
		case err == unix.ENOENT:
			return []Fact{is(part, a, absent, 0)}, nil
		case err == unix.EEXIST && how.kind == "moveNew":
			return []Fact{is(part, b, anything, 0)}, nil
		case err == unix.EISDIR && how.kind == "move":
			return []Fact{is(part, a, isFile, 0), is(part, b, isDir, 0)}, nil
		case err == unix.ENOTDIR && how.kind == "move":
			return []Fact{is(part, a, isDir, 0), is(part, b, isFile, 0)}, nil
		}
		return unexpected(err)
	})
}

func (w *worker) list() {
	if w.chance(50) {
		w.listDir(namesPart, "d", []int{0, 1, 2, 3}, slotName)
	} else {
		w.listDir(namesPart, "e", []int{4, 5}, slotName)
	}
}

// listDir lists a directory; each name is a fact of its own.
func (w *worker) listDir(part, dir string, in []int, names func(int) string) {
	var seen map[string]entry
	err := w.call("list "+dir, func() (err error) {
		seen, err = listing(w.path(dir))
		return err
	}, func(err error) ([]Fact, error) {
		switch {
		case err == unix.ENOENT && part == treePart:
			return []Fact{is(part, 0, absent, 0)}, nil
		case err != nil:
			return unexpected(err)
		}
		var facts []Fact
		for _, slot := range in {
			base := names(slot)[len(dir)+1:]
			e := seen[base]
			facts = append(facts, is(part, slot, e.kind, e.ino))
			delete(seen, base)
		}
		if len(seen) > 0 {
			return nil, fmt.Errorf("names that nobody made: %v", seen)
		}
		return facts, nil
	})
	if err == nil {
		for _, f := range w.calls[len(w.calls)-1].Facts {
			w.note(" %d:%d", f.A, f.N)
		}
	}
}

// listing reads a whole directory: inode and kind of each name.
func listing(dir string) (map[string]entry, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	const fixed = 19 // ino, off, reclen, type
	seen := map[string]entry{}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return seen, err
		}
		for b := buf[:n]; len(b) > fixed; b = b[binary.LittleEndian.Uint16(b[16:]):] {
			name := b[fixed:binary.LittleEndian.Uint16(b[16:])]
			text := string(name[:slices.Index(name, 0)])
			if text == "." || text == ".." {
				continue
			}
			e := entry{ino: binary.LittleEndian.Uint64(b), kind: isFile}
			if b[18] == unix.DT_DIR {
				e.kind = isDir
			}
			if _, twice := seen[text]; twice {
				return seen, fmt.Errorf("%s is listed twice", text)
			}
			seen[text] = e
		}
	}
}

// fstat looks at a file that is held open, and may have no name any more.
func (w *worker) fstat() {
	if len(w.held) == 0 {
		return
	}
	h := w.held[w.rng.IntN(len(w.held))]
	var st unix.Stat_t
	err := w.call(fmt.Sprintf("fstat inode %d", h.ino), func() error { return unix.Fstat(h.fd, &st) }, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		if st.Ino != h.ino {
			return nil, fmt.Errorf("inode %d became %d", h.ino, st.Ino)
		}
		return attributes(namesPart, isFile, &st), nil
	})
	if err == nil {
		w.note(" = mode %o, %d links", st.Mode, st.Nlink)
	}
}

func (w *worker) fchmod() {
	if len(w.held) == 0 {
		return
	}
	h := w.held[w.rng.IntN(len(w.held))]
	mode := uint32(0o600 | w.rng.IntN(0o100))
	w.call(fmt.Sprintf("fchmod inode %d %o", h.ino, mode), func() error { return unix.Fchmod(h.fd, mode) }, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		return []Fact{{Part: fmt.Sprintf("mode/%d", h.ino), Kind: "write", N: uint64(mode)}}, nil
	})
}

// statDir looks at the time of a directory.
func (w *worker) statDir() { w.statTime("d") }

// statTime looks at the time of a file or directory by its path.
func (w *worker) statTime(file string) {
	var st unix.Stat_t
	err := w.call("stat "+file, func() error { return unix.Stat(w.path(file), &st) }, func(err error) ([]Fact, error) {
		if err != nil {
			return unexpected(err)
		}
		facts := []Fact{{Part: "time/" + file, Kind: "stat", N: uint64(st.Mtim.Nano())}}
		if file == "s" || file == "l" {
			facts = append(facts, Fact{Part: map[string]string{"s": textPart, "l": logPart}[file], Kind: "size", A: int(st.Size)})
		}
		return facts, nil
	})
	if err == nil {
		w.note(" = size %d, mtime %d", st.Size, st.Mtim.Nano())
	}
}

// The tree: t/sub and its children x1 and x2.
func treeName(slot int) string {
	if slot == 0 {
		return "t/sub"
	}
	return "t/sub/x" + strconv.Itoa(slot)
}

func (w *worker) kid() int { return 1 + w.rng.IntN(2) }

func (w *worker) treeMkdir()  { w.mkdirAt(treePart, 0, treeName) }
func (w *worker) treeCreate() { w.createAt(treePart, w.kid(), treeName) }
func (w *worker) treeUnlink() { w.unlinkAt(treePart, w.kid(), treeName) }
func (w *worker) treeStat()   { w.statAt(treePart, w.rng.IntN(3), treeName) }
func (w *worker) treeList()   { w.listDir(treePart, "t/sub", []int{1, 2}, treeName) }

func (w *worker) treeRename() {
	a := w.kid()
	w.renameAt(treePart, a, 3-a, treeName)
}

func (w *worker) treeRmdir() {
	w.call("rmdir t/sub", func() error { return unix.Rmdir(w.path("t/sub")) }, func(err error) ([]Fact, error) {
		switch err {
		case nil:
			return []Fact{{Part: treePart, Kind: "rmdir"}}, nil
		case unix.ENOENT:
			return []Fact{is(treePart, 0, absent, 0)}, nil
		case unix.ENOTEMPTY:
			return []Fact{{Part: treePart, Kind: "full"}}, nil
		}
		return unexpected(err)
	})
}
