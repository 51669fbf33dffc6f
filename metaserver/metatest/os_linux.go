package metatest

import (
	"runtime"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is a Target over a directory of this machine: a local filesystem, or a
// mount of the service. Operations of other users need root. While it is open
// the umask of the process is 0.
type OS struct {
	dir     string
	root    bool
	umask   int
	handles [Handles + 1]int // descriptors, -1 = closed
	appends [Handles + 1]int // of the same files, with O_APPEND
}

// NewOS makes a target of dir. Close it.
func NewOS(dir string) *OS {
	o := &OS{dir: dir, root: unix.Geteuid() == 0, umask: unix.Umask(0)}
	for i := range o.handles {
		o.handles[i], o.appends[i] = -1, -1
	}
	return o
}

// Close closes all handles and restores the umask.
func (o *OS) Close() {
	for i := range o.handles {
		o.close(i)
	}
	unix.Umask(o.umask)
}

func (o *OS) close(h int) {
	for _, fd := range [...]*int{&o.handles[h], &o.appends[h]} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// Do implements Target.
func (o *OS) Do(op Op) Outcome {
	out, err := o.as(&op)
	if err != nil {
		if e, ok := err.(syscall.Errno); ok {
			return Outcome{Errno: e}
		}
		return Outcome{Errno: syscall.EIO}
	}
	return out
}

// as runs op under its credentials, which Linux keeps for each thread.
func (o *OS) as(op *Op) (Outcome, error) {
	if !o.root || op.UID == 0 && op.GID == 0 {
		return o.do(op)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsgid(int(op.GID)); err != nil {
		return Outcome{}, err
	}
	if err := unix.Setfsuid(int(op.UID)); err != nil {
		return Outcome{}, err
	}
	out, err := o.do(op)
	if e := unix.Setfsuid(0); e != nil {
		panic(e) // the thread must not go on as someone else
	}
	if e := unix.Setfsgid(0); e != nil {
		panic(e)
	}
	return out, err
}

// parent opens the directory of a path, following no symbolic link.
func (o *OS) parent(path string) (fd int, name string, err error) {
	names := strings.Split(path, "/")
	fd, err = unix.Open(o.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for _, n := range names[:len(names)-1] {
		if err != nil {
			break
		}
		next, e := unix.Openat(fd, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd, err = next, e
	}
	if name = names[len(names)-1]; name == "" {
		name = "."
	}
	return fd, name, err
}

func (o *OS) do(op *Op) (Outcome, error) {
	if op.Kind == Close || op.Kind == Write || op.Kind == Read || op.Handle > 0 && op.Kind != Open {
		return o.doHandle(op)
	}
	naming := false
	switch op.Kind {
	case Create, Mkdir, Mknod, Symlink, Unlink, Rmdir:
		naming = true
	case Rename, Link:
		naming = true
		if op.Path2 == "" {
			return Outcome{}, unix.EBUSY
		}
	}
	if naming && op.Path == "" {
		return Outcome{}, unix.EBUSY
	}
	fd, name, err := o.parent(op.Path)
	if err != nil {
		return Outcome{}, err
	}
	defer unix.Close(fd)
	if naming {
		return o.doName(op, fd, name)
	}
	return o.doFile(op, fd, name)
}

func (o *OS) doName(op *Op, fd int, name string) (Outcome, error) {
	at, file := fd, name
	var err error
	switch op.Kind {
	case Create:
		err = create(op, fd, name)
	case Mkdir:
		err = unix.Mkdirat(fd, name, op.Mode)
	case Mknod:
		err = unix.Mknodat(fd, name, op.Mode, int(op.Rdev))
	case Symlink:
		err = unix.Symlinkat(op.Path2, fd, name)
	case Unlink:
		return Outcome{}, unix.Unlinkat(fd, name, 0)
	case Rmdir:
		return Outcome{}, unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	default:
		if op.Kind == Link { // a missing source is reported before a missing target directory
			if _, err := stat(fd, name); err != nil {
				return Outcome{}, err
			}
		}
		fd2, name2, err := o.parent(op.Path2)
		if err != nil {
			return Outcome{}, err
		}
		defer unix.Close(fd2)
		if op.Kind == Rename {
			return Outcome{}, unix.Renameat2(fd, name, fd2, name2, uint(op.Flags))
		}
		if err := unix.Linkat(fd, name, fd2, name2, 0); err != nil {
			return Outcome{}, err
		}
		at, file = fd2, name2
	}
	if err != nil {
		return Outcome{}, err
	}
	st, err := stat(at, file)
	return Outcome{Stat: st}, err
}

// create follows the harness rule.
func create(op *Op, fd int, name string) error {
	if st, err := stat(fd, name); err == nil && !op.Excl {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			return nil
		case unix.S_IFDIR:
			return unix.EISDIR
		}
		return unix.EEXIST
	}
	f, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, op.Mode)
	if err != nil {
		return err
	}
	return unix.Close(f)
}

func stat(fd int, name string) (*Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return statFrom(&st), nil
}

func statFrom(st *unix.Stat_t) *Stat {
	return &Stat{
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, Rdev: uint32(st.Rdev),
		Size: uint64(st.Size), Bytes: uint64(st.Blocks) * 512,
		Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}
}

func (o *OS) doFile(op *Op, fd int, name string) (Outcome, error) {
	st, err := stat(fd, name)
	if err != nil {
		return Outcome{}, err
	}
	typ := st.Mode & unix.S_IFMT
	switch op.Kind {
	case GetStat:
		return Outcome{Stat: st}, nil
	case Open, Truncate:
		if typ == unix.S_IFDIR {
			return Outcome{}, unix.EISDIR
		}
		if typ != unix.S_IFREG {
			return Outcome{}, unix.EINVAL
		}
		f, err := unix.Openat(fd, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return Outcome{}, err
		}
		if op.Kind == Open {
			a, err := unix.Openat(fd, name, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				unix.Close(f)
				return Outcome{}, err
			}
			o.close(op.Handle)
			o.handles[op.Handle], o.appends[op.Handle] = f, a
			return Outcome{}, nil
		}
		defer unix.Close(f)
		if err := unix.Ftruncate(f, int64(op.Size)); err != nil {
			return Outcome{}, err
		}
	case Chmod:
		if typ == unix.S_IFLNK {
			return Outcome{}, unix.EOPNOTSUPP
		}
		err = unix.Fchmodat(fd, name, op.Mode, 0)
	case Chown:
		err = unix.Fchownat(fd, name, op.Owner, op.Group, unix.AT_SYMLINK_NOFOLLOW)
	case Utimes:
		ts := []unix.Timespec{unix.NsecToTimespec(op.Atime), unix.NsecToTimespec(op.Mtime)}
		err = unix.UtimesNanoAt(fd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	case Readlink:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, name, buf)
		return Outcome{Data: buf[:max(n, 0)]}, err
	case ReadDir:
		return list(fd, name)
	default:
		return doXattr(op, fd, name)
	}
	if err != nil {
		return Outcome{}, err
	}
	st, err = stat(fd, name)
	return Outcome{Stat: st}, err
}

// list reads a directory with small buffers.
func list(fd int, name string) (Outcome, error) {
	d, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Outcome{}, err
	}
	defer unix.Close(d)
	var out Outcome
	for buf := make([]byte, 1024); ; {
		n, err := unix.ReadDirent(d, buf)
		if err != nil || n <= 0 {
			sort.Strings(out.Names)
			return out, err
		}
		_, _, out.Names = unix.ParseDirent(buf[:n], -1, out.Names)
	}
}

// doXattr reaches the file through the descriptor of its directory, so that a
// symbolic link is meant itself.
func doXattr(op *Op, fd int, name string) (Outcome, error) {
	path := "/proc/self/fd/" + itoa(fd) + "/" + name
	buf := make([]byte, 64<<10)
	switch op.Kind {
	case SetXattr:
		return Outcome{}, unix.Lsetxattr(path, op.Name, op.Data(), int(op.Flags))
	case RemoveXattr:
		return Outcome{}, unix.Lremovexattr(path, op.Name)
	case GetXattr:
		n, err := unix.Lgetxattr(path, op.Name, buf)
		return Outcome{Data: buf[:max(n, 0)]}, err
	case ListXattr:
		n, err := unix.Llistxattr(path, buf)
		if err != nil {
			return Outcome{}, err
		}
		var out Outcome
		for s := range strings.SplitSeq(string(buf[:n]), "\x00") {
			if s != "" && !strings.HasPrefix(s, "system.") && s != "security.selinux" {
				out.Names = append(out.Names, s)
			}
		}
		sort.Strings(out.Names)
		return out, nil
	}
	return Outcome{}, unix.ENOSYS
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func (o *OS) doHandle(op *Op) (Outcome, error) {
	f := o.handles[op.Handle]
	if op.Handle == 0 || f < 0 {
		return Outcome{}, unix.EBADF
	}
	var err error
	switch op.Kind {
	case Close:
		o.close(op.Handle)
		return Outcome{}, nil
	case Read:
		buf := make([]byte, op.Size)
		n := 0
		for n < len(buf) {
			m, err := unix.Pread(f, buf[n:], int64(op.Off)+int64(n))
			if err != nil {
				return Outcome{}, err
			}
			if m == 0 {
				break
			}
			n += m
		}
		return Outcome{Data: buf[:n]}, nil
	case Truncate:
		err = unix.Ftruncate(f, int64(op.Size))
	case Write:
		err = o.writeAll(op)
	case GetStat:
	default:
		return Outcome{}, unix.ENOSYS
	}
	if err != nil {
		return Outcome{}, err
	}
	var st unix.Stat_t
	err = unix.Fstat(f, &st)
	return Outcome{Stat: statFrom(&st)}, err
}

// writeAll writes at an offset, or behind the end.
func (o *OS) writeAll(op *Op) error {
	data, off := op.Data(), int64(op.Off)
	for len(data) > 0 {
		var n int
		var err error
		if op.Append {
			n, err = unix.Write(o.appends[op.Handle], data)
		} else {
			n, err = unix.Pwrite(o.handles[op.Handle], data, off)
		}
		if err != nil {
			return err
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// Sync is fsync(2) of an open handle; EBADF if it is not open.
func (o *OS) Sync(handle int) syscall.Errno {
	if o.handles[handle] < 0 {
		return syscall.EBADF
	}
	if err := unix.Fsync(o.handles[handle]); err != nil {
		if e, ok := err.(syscall.Errno); ok {
			return e
		}
		return syscall.EIO
	}
	return 0
}
