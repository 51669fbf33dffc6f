package errs

import "syscall"

// errnos is the only place where a Kind becomes an errno.
var errnos = map[Kind]syscall.Errno{
	Other: syscall.EIO, NotExist: syscall.ENOENT, Exist: syscall.EEXIST,
	NotDir: syscall.ENOTDIR, IsDir: syscall.EISDIR, NotEmpty: syscall.ENOTEMPTY,
	Invalid: syscall.EINVAL, Permission: syscall.EPERM, Access: syscall.EACCES,
	NameTooLong: syscall.ENAMETOOLONG, FileTooLarge: syscall.EFBIG,
	NoSpace: syscall.ENOSPC, Quota: syscall.EDQUOT, ReadOnly: syscall.EROFS,
	Stale: syscall.ESTALE, Busy: syscall.EBUSY, CrossDevice: syscall.EXDEV,
	TooManyLinks: syscall.EMLINK, NoAttr: syscall.ENODATA, Range: syscall.ERANGE,
	TooBig: syscall.E2BIG, Unsupported: syscall.EOPNOTSUPP, Loop: syscall.ELOOP,
	Deadlock: syscall.EDEADLK, Again: syscall.EAGAIN, WouldBlock: syscall.EAGAIN, Interrupted: syscall.EINTR,
	IO: syscall.EIO, Corrupt: syscall.EIO, Unavailable: syscall.EIO,
	NotLeader: syscall.EIO, Timeout: syscall.ETIMEDOUT, Expired: syscall.EIO,
	Refused: syscall.EACCES, Mismatch: syscall.EIO, Locked: syscall.EBUSY,
	Version: syscall.EIO, Canceled: syscall.EINTR, Usage: syscall.EINVAL,
}

// Errno maps err to the errno an application sees; nil is 0. A bare
// syscall.Errno in the chain does not count: what the local disk said is not
// what the filesystem answers.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if n, ok := errnos[KindOf(err)]; ok {
		return n
	}
	return syscall.EIO
}
