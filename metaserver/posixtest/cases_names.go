package posixtest

import (
	"strings"
	"syscall"

	"agentdrive/metaserver/metatest"
)

const (
	eexist       = syscall.EEXIST
	enoent       = syscall.ENOENT
	enotdir      = syscall.ENOTDIR
	eisdir       = syscall.EISDIR
	enotempty    = syscall.ENOTEMPTY
	einval       = syscall.EINVAL
	eperm        = syscall.EPERM
	enametoolong = syscall.ENAMETOOLONG
	enodata      = syscall.ENODATA
)

// longName gives a name of n bytes.
func longName(n int) string { return strings.Repeat("n", n) }

// openCreate is open(2) with O_CREAT alone.
func openCreate(path string) metatest.Op {
	return metatest.Op{Kind: metatest.Create, Path: path, Mode: 0o600}
}

var makeCases = []testCase{
	{name: "excl", steps: []step{
		ok(create("f", 0o644)), no(eexist, create("f", 0o600)), ok(openCreate("f")), mode("f", 0o644)}},
	{name: "taken", steps: []step{
		ok(mkdir("d", 0o755)), ok(create("f", 0o644)), ok(symlink("nowhere", "s")),
		no(eexist, mkdir("d", 0o755)), no(eexist, mkdir("f", 0o755)), no(eexist, mkdir("s", 0o755)),
		no(eexist, create("d", 0o644)), no(eexist, create("s", 0o644)), no(eexist, symlink("x", "f")),
		no(eexist, mknod("d", syscall.S_IFIFO|0o644)), no(eisdir, openCreate("d")), no(eexist, openCreate("s"))}},
	{name: "no parent", steps: []step{
		ok(create("f", 0o644)), no(enoent, create("x/y", 0o644)), no(enotdir, create("f/y", 0o644)),
		no(enoent, mkdir("x/y/z", 0o755)), no(enotdir, stat("f/y"))}},
	{name: "long names", steps: []step{
		ok(create(longName(255), 0o644)), ok(stat(longName(255))), no(enametoolong, create(longName(256), 0o644)),
		no(enametoolong, mkdir(longName(256), 0o755)), no(enametoolong, stat(longName(256))),
		no(enametoolong, unlink(longName(256))), names("", longName(255)), ok(unlink(longName(255)))}},
	{name: "any byte", steps: []step{
		ok(create("\x01\n \xff\xfe", 0o644)), ok(stat("\x01\n \xff\xfe")), names("", "\x01\n \xff\xfe"),
		ok(rename("\x01\n \xff\xfe", "-\\*?")), names("", "-\\*?")}},
	{name: "directory counts", steps: []step{
		ok(mkdir("d", 0o755)), nlink("d", 2), ok(mkdir("d/a", 0o755)), ok(create("d/f", 0o644)), nlink("d", 3),
		ok(mkdir("d/b", 0o755)), nlink("d", 4), ok(rmdir("d/a")), nlink("d", 3), names("d", "b", "f")}},
	{name: "fifo", steps: []step{ok(mknod("p", syscall.S_IFIFO|0o640)), mode("p", 0o640), ok(mknod("s", syscall.S_IFSOCK|0o600)),
		wants(stat("p"), "a fifo", func(s metatest.Stat) bool { return s.Mode&syscall.S_IFMT == syscall.S_IFIFO && s.Size == 0 })}},
	{name: "device", users: true, steps: []step{
		ok(metatest.Op{Kind: metatest.Mknod, Path: "c", Mode: syscall.S_IFCHR | 0o600, Rdev: 0x103}),
		wants(stat("c"), "device 1:3", func(s metatest.Stat) bool { return s.Rdev == 0x103 })}},
	{name: "symlink", steps: []step{
		ok(symlink("some/where", "s")), size("s", 10), mode("s", 0o777),
		holds(metatest.Op{Kind: metatest.Readlink, Path: "s"}, []byte("some/where")),
		ok(symlink(strings.Repeat("t", 4000), "long")), size("long", 4000),
		ok(create("f", 0o644)), no(einval, metatest.Op{Kind: metatest.Readlink, Path: "f"}),
		no(enotdir, create("s/x", 0o644)), ok(unlink("s")), no(enoent, stat("s"))}},
	{name: "set-id bits of mkdir", steps: []step{ok(mkdir("d", 0o6755)), mode("d", 0o755), ok(mkdir("t", 0o1777)), mode("t", 0o1777)}},
	{name: "times of the directory", steps: steps([]step{ok(mkdir("d", 0o755))},
		later("d", create("d/f", 0o644), mtime), later("d", mkdir("d/x", 0o755), mtime), later("d", symlink("t", "d/s"), ctime),
		later("d", link("d/f", "d/g"), mtime), later("d", rename("d/g", "d/h"), mtime), later("d", unlink("d/f"), mtime),
		later("d", rmdir("d/x"), ctime))},
}

var removeCases = []testCase{
	{name: "kinds", steps: []step{
		ok(mkdir("d", 0o755)), ok(create("f", 0o644)), no(eisdir, unlink("d")), no(enotdir, rmdir("f")),
		no(enoent, unlink("x")), no(enoent, rmdir("x")), no(enotdir, unlink("f/x")), no(enotdir, rmdir("f/x")),
		ok(unlink("f")), ok(rmdir("d")), names("")}},
	{name: "not empty", steps: []step{
		ok(mkdir("d", 0o755)), ok(create("d/f", 0o644)), no(enotempty, rmdir("d")), ok(unlink("d/f")), ok(rmdir("d")), no(enoent, stat("d"))}},
	{name: "open file lives", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), ok(write(1, 0, 5000, 1)), ok(unlink("f")), no(enoent, stat("f")),
		wants(fstat(1), "no links, 5000 bytes", func(s metatest.Stat) bool { return s.Nlink == 0 && s.Size == 5000 }),
		holds(read(1, 0, 9000), data(5000, 1)), ok(write(1, 5000, 10, 2)), holds(read(1, 4990, 100), join(data(5000, 1)[4990:], data(10, 2))),
		ok(create("f", 0o644)), size("f", 0), ok(closing(1))}},
	{name: "replaced file lives", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), ok(write(1, 0, 100, 1)), ok(create("g", 0o644)), ok(rename("g", "f")),
		holds(read(1, 0, 200), data(100, 1)), size("f", 0), ok(closing(1))}},
	{name: "one name of two", steps: steps([]step{ok(create("f", 0o644)), ok(link("f", "g"))},
		later("g", unlink("f"), ctime), []step{nlink("g", 1)})},
}

var renameCases = []testCase{
	{name: "plain", steps: []step{
		ok(create("f", 0o644)), ok(mkdir("d", 0o755)), ok(rename("f", "d/g")), no(enoent, stat("f")), ok(stat("d/g")),
		ok(rename("d", "e")), ok(stat("e/g")), names("", "e"), no(enoent, rename("x", "y")), no(enoent, rename("e", "x/y")),
		no(enotdir, rename("e/g", "e/g/h")), no(enametoolong, rename("e", longName(256)))}},
	{name: "over", steps: []step{
		ok(create("f", 0o644)), ok(create("g", 0o600)), ok(rename("f", "g")), mode("g", 0o644), names("", "g"),
		ok(mkdir("a", 0o755)), ok(mkdir("b", 0o700)), ok(rename("a", "b")), mode("b", 0o755), names("", "b", "g")}},
	{name: "kinds", steps: []step{
		ok(create("f", 0o644)), ok(mkdir("d", 0o755)), ok(mkdir("full", 0o755)), ok(create("full/x", 0o644)), ok(symlink("d", "s")),
		no(eisdir, rename("f", "d")), no(enotdir, rename("d", "f")), no(enotempty, rename("d", "full")), no(eisdir, rename("s", "d")),
		ok(rename("s", "f")), no(enotdir, rename("d", "f")), ok(rename("full", "d")), names("d", "x")}},
	{name: "links of parents", steps: []step{
		ok(mkdir("a", 0o755)), ok(mkdir("b", 0o755)), ok(mkdir("a/d", 0o755)), nlink("a", 3), ok(rename("a/d", "b/d")), nlink("a", 2), nlink("b", 3),
		ok(mkdir("a/d", 0o755)), ok(rename("a/d", "b/d")), nlink("a", 2), nlink("b", 3), ok(rename("b/d", "b/e")), nlink("b", 3),
		ok(mkdir("b/f", 0o755)), ok(rename("b/e", "b/f")), nlink("b", 3)}},
	{name: "into itself", steps: []step{
		ok(mkdir("a", 0o755)), ok(mkdir("a/b", 0o755)), ok(mkdir("a/b/c", 0o755)), no(einval, rename("a", "a/x")), no(einval, rename("a", "a/b/c/x")),
		no(einval, rename("a", "a/b/c")), no(enotempty, rename("a/b/c", "a")), no(enotempty, rename("a/b/c", "a/b")), ok(rename("a", "a")),
		ok(rename("a/b/c", "c")), ok(rename("a", "c/a"))}},
	{name: "same file", steps: []step{
		ok(create("f", 0o644)), ok(link("f", "g")), ok(rename("f", "g")), nlink("f", 2), names("", "f", "g"), ok(rename("f", "f")),
		no(eexist, noReplace("f", "g"))}},
	{name: "noreplace", exchange: true, steps: []step{
		ok(create("f", 0o644)), ok(create("g", 0o600)), no(eexist, noReplace("f", "g")), no(eexist, noReplace("f", "f")), ok(noReplace("f", "h")), names("", "g", "h"),
		no(enoent, noReplace("x", "g"))}},
	{name: "exchange", exchange: true, steps: []step{
		ok(mkdir("a", 0o755)), ok(mkdir("b", 0o755)), ok(mkdir("a/d", 0o700)), ok(create("a/d/in", 0o644)), ok(create("b/f", 0o600)),
		ok(exchange("a/d", "b/f")), nlink("a", 2), nlink("b", 3), mode("a/d", 0o600), mode("b/f", 0o700), ok(stat("b/f/in")),
		no(enoent, exchange("a/d", "x")), no(enoent, exchange("x", "a/d")), no(einval, exchange("b", "b/f")), no(einval, exchange("b/f", "b")),
		ok(exchange("b/f", "b/f")), ok(exchange("a", "b")), ok(stat("a/f/in")), ok(unlink("a/f/in")), ok(rename("a/f", "b/f")), nlink("b", 3), nlink("a", 2)}},
	{name: "bad flags", exchange: true, steps: []step{ok(create("f", 0o644)), ok(create("g", 0o644)),
		no(einval, metatest.Op{Kind: metatest.Rename, Path: "f", Path2: "g", Flags: 3})}},
	{name: "moved times", steps: steps([]step{ok(create("f", 0o644)), ok(mkdir("d", 0o755))},
		later("d", rename("f", "d/f"), mtime), []step{ok(create("g", 0o644))}, later("", rename("g", "d/g"), mtime))},
}

var linkCases = []testCase{
	{name: "counts", steps: steps([]step{
		ok(create("f", 0o644)), ok(mkdir("d", 0o755)), ok(link("f", "d/g")), nlink("f", 2), ok(link("d/g", "h")), nlink("f", 3),
		ok(unlink("f")), nlink("h", 2), ok(rename("h", "d/h")), ok(unlink("d/g")), nlink("d/h", 1)})},
	{name: "same inode", steps: []step{
		ok(create("f", 0o644)), ok(link("f", "g")), ok(open("f", 1)), ok(write(1, 0, 10, 1)), size("g", 10), ok(chmod("g", 0o600)), mode("f", 0o600), ok(closing(1))}},
	{name: "refused", steps: []step{
		ok(create("f", 0o644)), ok(mkdir("d", 0o755)), no(eperm, link("d", "x")), no(eexist, link("f", "d")), no(eexist, link("f", "f")),
		no(enoent, link("x", "y")), no(enoent, link("f", "x/y")), no(enotdir, link("f", "f/y")), no(enametoolong, link("f", longName(256)))}},
	{name: "of a symlink", steps: []step{ok(symlink("t", "s")), ok(link("s", "r")), nlink("s", 2),
		holds(metatest.Op{Kind: metatest.Readlink, Path: "r"}, []byte("t"))}},
	{name: "time", steps: steps([]step{ok(create("f", 0o644))}, later("f", link("f", "g"), ctime))},
}
