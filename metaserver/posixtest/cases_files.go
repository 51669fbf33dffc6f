package posixtest

import (
	"syscall"

	"agentdrive/metaserver/metatest"
)

var attrCases = []testCase{
	{name: "chmod", steps: steps([]step{ok(create("f", 0o644)), ok(chmod("f", 0o4711)), mode("f", 0o4711), ok(mkdir("d", 0o755)), ok(chmod("d", 0o1777)), mode("d", 0o1777),
		no(enoent, chmod("x", 0o644))}, later("f", chmod("f", 0o600), ctime))},
	{name: "utimes", steps: steps([]step{ok(create("f", 0o644)),
		wants(utimes("f", 1_000_000_001, 987_654_321_987_654_321), "the times set", func(s metatest.Stat) bool {
			return s.Atime == 1_000_000_001 && s.Mtime == 987_654_321_987_654_321
		}), ok(mkdir("d", 0o755)), ok(utimes("d", 5_000_000_000, 6_000_000_000)),
		wants(stat("d"), "the times set", func(s metatest.Stat) bool { return s.Mtime == 6_000_000_000 })},
		later("f", utimes("f", 1, 1), ctime), later("f", truncate("f", 3), mtime))},
	{name: "truncate kinds", steps: []step{ok(mkdir("d", 0o755)), no(eisdir, truncate("d", 0)), ok(mknod("p", syscall.S_IFIFO|0o644)), no(einval, truncate("p", 0)),
		no(enoent, truncate("x", 0))}},
	{name: "size keeps mode", steps: []step{ok(create("f", 0o640)), ok(truncate("f", 1<<20)), size("f", 1<<20), mode("f", 0o640), ok(truncate("f", 0)), size("f", 0)}},
}

// userCases run as root and users 1000 and 1001 in directories of mode 0777.
var userCases = []testCase{
	{name: "chmod and utimes of others", users: true, steps: []step{
		ok(mkdir("d", 0o777)), ok(as(1000, create("d/f", 0o666))), no(eperm, as(1001, chmod("d/f", 0o600))), ok(as(1000, chmod("d/f", 0o666))),
		no(eperm, as(1001, utimes("d/f", 1, 1))), ok(as(1000, utimes("d/f", 1, 1))), owner("d/f", 1000, 1000)}},
	{name: "chown", users: true, steps: []step{
		ok(mkdir("d", 0o777)), ok(as(1000, create("d/f", 0o666))), no(eperm, as(1000, chown("d/f", 1001, -1))), no(eperm, as(1001, chown("d/f", -1, 1001))),
		ok(as(1000, chown("d/f", -1, 1000))), ok(chown("d/f", 1001, 7)), owner("d/f", 1001, 7)}},
	{name: "chown clears set-id", users: true, steps: []step{
		ok(create("f", 0o6755)), ok(chown("f", 1000, -1)), mode("f", 0o755), ok(chmod("f", 0o6745)), ok(chown("f", -1, 1000)), mode("f", 0o2745),
		ok(mkdir("d", 0o755)), ok(chmod("d", 0o6755)), ok(chown("d", 1000, 1000)), mode("d", 0o6755)}},
	{name: "write clears set-id", users: true, steps: []step{
		ok(create("f", 0o6777)), ok(as(1000, open("f", 1))), ok(as(1000, write(1, 0, 5, 1))), mode("f", 0o777),
		ok(chmod("f", 0o6777)), ok(as(1000, metatest.Op{Kind: metatest.Truncate, Handle: 1, Size: 1})), mode("f", 0o777),
		ok(chmod("f", 0o6777)), ok(write(1, 0, 5, 1)), mode("f", 0o6777), ok(closing(1))}},
	{name: "setgid directory", users: true, steps: []step{
		ok(mkdir("d", 0o777)), ok(chown("d", -1, 42)), ok(chmod("d", 0o2777)), ok(as(1000, create("d/f", 0o644))), owner("d/f", 1000, 42),
		ok(as(1000, mkdir("d/e", 0o755))), owner("d/e", 1000, 42), mode("d/e", 0o2755), ok(as(1000, symlink("t", "d/s"))), owner("d/s", 1000, 42),
		ok(as(1000, create("d/prog", 0o2775))), mode("d/prog", 0o775), ok(create("d/root", 0o2775)), mode("d/root", 0o2775)}},
	{name: "sticky unlink", users: true, steps: []step{
		ok(mkdir("t", 0o1777)), ok(as(1000, create("t/f", 0o666))), ok(as(1000, mkdir("t/d", 0o777))), no(eperm, as(1001, unlink("t/f"))), no(eperm, as(1001, rmdir("t/d"))),
		ok(as(1000, unlink("t/f"))), ok(rmdir("t/d")), ok(as(1000, create("t/f", 0o666))), ok(chown("t", 1001, -1)), ok(as(1001, unlink("t/f")))}},
	{name: "sticky rename", users: true, steps: []step{
		ok(mkdir("t", 0o1777)), ok(mkdir("d", 0o777)), ok(as(1000, create("t/f", 0o666))), ok(as(1001, create("d/g", 0o666))), no(eperm, as(1001, rename("t/f", "d/f"))),
		no(eperm, as(1001, rename("d/g", "t/f"))), ok(as(1001, rename("d/g", "t/g"))), ok(as(1001, rename("t/g", "t/h"))), ok(rename("t/f", "t/h"))}},
	{name: "sticky exchange", users: true, exchange: true, steps: []step{
		ok(mkdir("t", 0o1777)), ok(as(1000, create("t/f", 0o666))), ok(as(1001, create("t/g", 0o666))), no(eperm, as(1001, exchange("t/g", "t/f"))), no(eperm, as(1000, exchange("t/g", "t/f"))), ok(exchange("t/g", "t/f"))}},
	{name: "plain directory lets anyone remove", users: true, steps: []step{
		ok(mkdir("d", 0o777)), ok(as(1000, create("d/f", 0o600))), ok(as(1001, unlink("d/f")))}},
}

var contentCases = []testCase{
	{name: "write and read", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), holds(read(1, 0, 10), nil), ok(write(1, 0, 10, 1)), holds(read(1, 0, 100), data(10, 1)), holds(read(1, 10, 5), nil),
		ok(write(1, 4, 3, 2)), holds(read(1, 0, 100), join(data(10, 1)[:4], data(3, 2), data(10, 1)[7:])), size("f", 10), ok(closing(1))}},
	{name: "hole", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), ok(write(1, 100_000, 10, 1)), size("f", 100_010), holds(read(1, 0, 200_000), join(100_000, data(10, 1))),
		ok(write(1, 50_000, 5, 2)), holds(read(1, 49_999, 7), join(1, data(5, 2), 1)), ok(closing(1))}},
	{name: "append", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), ok(open("f", 2)), ok(appending(1, 10, 1)), ok(appending(2, 20, 2)), ok(appending(1, 5, 3)),
		holds(read(2, 0, 100), join(data(10, 1), data(20, 2), data(5, 3))), ok(truncate("f", 3)), ok(appending(2, 4, 4)),
		holds(read(1, 0, 100), join(data(10, 1)[:3], data(4, 4))), ok(closing(1)), ok(closing(2))}},
	{name: "truncate", steps: []step{
		ok(create("f", 0o644)), ok(open("f", 1)), ok(write(1, 0, 20_000, 1)), ok(truncate("f", 9000)), holds(read(1, 0, 30_000), data(20_000, 1)[:9000]),
		ok(truncate("f", 12_000)), holds(read(1, 0, 30_000), join(data(20_000, 1)[:9000], 3000)), ok(truncate("f", 0)), holds(read(1, 0, 10), nil),
		ok(truncate("f", 5000)), holds(read(1, 0, 10_000), join(5000)), ok(closing(1))}},
	{name: "many small writes", steps: steps([]step{ok(create("f", 0o644)), ok(open("f", 1))}, smallWrites(),
		[]step{size("f", 40*700), ok(truncate("f", 10_000)), size("f", 10_000), ok(write(1, 5, 20_000, 9)), holds(read(1, 5, 20_000), data(20_000, 9)), ok(closing(1))})},
	{name: "times", steps: steps([]step{ok(create("f", 0o644)), ok(open("f", 1))}, later("f", write(1, 0, 5, 1), mtime), later("f", write(1, 0, 5, 1), ctime),
		later("f", truncate("f", 2), mtime), later("f", truncate("f", 2), ctime), []step{ok(closing(1))})},
	{name: "open", steps: []step{ok(mkdir("d", 0o755)), no(eisdir, open("d", 1)), no(enoent, open("x", 1)), no(syscall.EBADF, read(1, 0, 5))}},
	{name: "two handles", steps: []step{ok(create("f", 0o644)), ok(open("f", 1)), ok(open("f", 2)), ok(write(1, 0, 50, 1)), holds(read(2, 0, 50), data(50, 1)),
		ok(unlink("f")), ok(closing(1)), holds(read(2, 0, 50), data(50, 1)), ok(closing(2))}},
}

// smallWrites gives writes of 700 bytes, each second one first.
func smallWrites() (list []step) {
	for i := range uint64(40) {
		at := (i*2)%40 + i/20
		list = append(list, ok(write(1, at*700, 700, at)))
	}
	return list
}

var xattrCases = []testCase{
	{name: "life", xattrs: true, steps: []step{
		ok(create("f", 0o644)), no(enodata, xattr(metatest.GetXattr, "f", "user.a")), ok(setxattr("f", "user.a", 10, 0)), holds(xattr(metatest.GetXattr, "f", "user.a"), data(10, 10)),
		ok(setxattr("f", "user.a", 20, 0)), holds(xattr(metatest.GetXattr, "f", "user.a"), data(20, 20)), ok(setxattr("f", "user.empty", 0, 0)),
		{op: xattr(metatest.ListXattr, "f", ""), check: func(out metatest.Outcome) string {
			if len(out.Names) != 2 || out.Names[0] != "user.a" || out.Names[1] != "user.empty" {
				return "names differ"
			}
			return ""
		}},
		ok(xattr(metatest.RemoveXattr, "f", "user.a")), no(enodata, xattr(metatest.RemoveXattr, "f", "user.a")), no(enodata, xattr(metatest.GetXattr, "f", "user.a"))}},
	{name: "flags", xattrs: true, steps: []step{
		ok(create("f", 0o644)), no(enodata, setxattr("f", "user.a", 3, 2)), ok(setxattr("f", "user.a", 3, 1)), no(eexist, setxattr("f", "user.a", 4, 1)), ok(setxattr("f", "user.a", 5, 2)),
		holds(xattr(metatest.GetXattr, "f", "user.a"), data(5, 5))}},
	{name: "kinds", xattrs: true, steps: []step{
		ok(mkdir("d", 0o755)), ok(setxattr("d", "user.a", 3, 0)), ok(symlink("d", "s")), no(eperm, setxattr("s", "user.a", 3, 0)),
		ok(mknod("p", syscall.S_IFIFO|0o644)), no(eperm, setxattr("p", "user.a", 3, 0))}},
	{name: "limits", xattrs: true, steps: []step{
		ok(create("f", 0o644)), no(syscall.E2BIG, setxattr("f", "user.a", 65537, 0)), no(syscall.ERANGE, setxattr("f", "user."+longName(251), 1, 0)),
		ok(setxattr("f", "user."+longName(250), 1, 0)), no(syscall.EOPNOTSUPP, setxattr("f", "nonsense.x", 1, 0))}},
	{name: "time", xattrs: true, steps: steps([]step{ok(create("f", 0o644))}, later("f", setxattr("f", "user.a", 1, 0), ctime), later("f", xattr(metatest.RemoveXattr, "f", "user.a"), ctime))},
	{name: "with the inode", xattrs: true, steps: []step{
		ok(create("f", 0o644)), ok(setxattr("f", "user.a", 30, 0)), ok(link("f", "g")), ok(rename("f", "h")), holds(xattr(metatest.GetXattr, "g", "user.a"), data(30, 30)),
		ok(unlink("h")), ok(unlink("g")), ok(create("f", 0o644)), no(enodata, xattr(metatest.GetXattr, "f", "user.a"))}},
}
