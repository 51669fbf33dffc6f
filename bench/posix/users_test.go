package posix

import (
	"strings"
	"testing"
)

// scene is what one user does in a rule.
type scene struct {
	who    user
	script string
}

var (
	root  = user{}
	alice = user{uid: 1000, gid: 1000, groups: []uint32{2000}} // a member of 2000
	bob   = user{uid: 1001, gid: 1001}
)

// rules are sequences whose outcome must be the same on a mount and on the
// local disk, which is the oracle.
var rules = map[string][]scene{
	"permission denied": {
		{root, "mkdir 777 d\nmkdir 700 closed\ncreate 644 closed/f\nmkdir 711 x\ncreate 644 x/f\nmkdir 744 r\ncreate 644 r/f"},
		{alice, "create 600 d/mine\nwrite d/mine\ncreate 644 d/shown\ncreate 620 d/group\nchown -1 2000 d/group\nchmod 660 d/group\ncreate 644 f\nmkdir 755 sub"},
		{bob, "read d/mine\nwrite d/mine\ntruncate d/mine\nread d/shown\nwrite d/shown\nrewrite d/shown\nappend d/shown\nread d/group\nread closed/f\nstat closed/f\nlist closed\nlist x\nread x/f\nlist r\nread r/f\ncreate 644 x/g\nunlink x/f\nrename x/f x/g\nlink d/shown x/g\nsymlink t x/s\nmkdir 755 x/d\nfifo 644 x/p\naccess 4 d/mine\naccess 4 d/shown\naccess 2 d/shown\naccess 1 d/shown\naccess 0 d/mine"},
		{root, "read d/mine\nwrite d/mine\naccess 6 d/mine\naccess 1 d/mine\nlist closed"},
	},
	"supplementary groups": {
		{root, "mkdir 770 team\nchown 0 2000 team\ncreate 660 team/f\nchmod 660 team/f\nchown 0 2000 team/f\nchmod 770 team"},
		{alice, "list team\nread team/f\nwrite team/f\ncreate 644 team/mine\nstat team/mine\nchown -1 2000 team/mine\nstat team/mine\nchown -1 2001 team/mine\nchmod 2755 team/mine\nstat team/mine"},
		{bob, "list team\nread team/f\nstat team/f"},
	},
	"owners": {
		{root, "mkdir 777 d\nchmod 777 d"},
		{alice, "create 644 d/f\nchown 1000 1000 d/f\nchown 1001 -1 d/f\nchown -1 1001 d/f\nchown 0 0 d/f\nchown -1 -1 d/f"},
		{bob, "chmod 777 d/f\nchown 1001 1001 d/f\nchown -1 1001 d/f\ntouch d/f\nsettime d/f\nunlink d/f\nstat d/f"},
		{alice, "create 666 d/g\nchmod 666 d/g"},
		{bob, "touch d/g\nsettime d/g\nwrite d/g\nchmod 600 d/g\nstat d/g"},
		{root, "chown 1001 1001 d/g\nstat d/g"},
		{bob, "settime d/g\nchmod 600 d/g\nstat d/g"},
		{alice, "write d/g"},
	},
	"chown clears set-id": {
		{root, "mkdir 777 d\nchmod 777 d\ncreate 755 f\nchmod 6755 f\nchown 1000 1000 f\nstat f\nchmod 6745 f\nchown 1000 2000 f\nstat f\nchmod 6755 f\nchown -1 -1 f\nstat f\nmkdir 755 g\nchmod 6775 g\nchown 1000 2000 g\nstat g"},
		{alice, "create 755 d/f\nchmod 6755 d/f\nstat d/f\nchown -1 2000 d/f\nstat d/f\nchmod 4711 d/f\nchown 1000 -1 d/f\nstat d/f"},
	},
	"chmod clears setgid": {
		{root, "mkdir 777 d\nchmod 777 d\ncreate 755 d/f\nchown 1000 3000 d/f\nmkdir 755 d/sub\nchown 1000 3000 d/sub"},
		{alice, "chmod 2755 d/f\nstat d/f\nchmod 2755 d/sub\nstat d/sub\nchown -1 2000 d/f\nchmod 2755 d/f\nstat d/f\nchmod 6711 d/f\nstat d/f"},
		{bob, "chmod 755 d/f"},
	},
	"write clears set-id": {
		{root, "create 777 f\nchmod 6777 f\ncreate 777 g\nchmod 6777 g\ncreate 777 h\nchmod 6777 h\ncreate 777 i\nchmod 6777 i\nwrite f\nstat f"},
		{bob, "write f\nstat f\ntruncate g\nstat g\nrewrite h\nstat h\nappend i\nstat i"},
		{root, "stat f\nstat g\nstat h\nstat i\nread f"},
	},
	"setgid directories": {
		{root, "mkdir 777 d\nchown 0 3000 d\nchmod 2777 d"},
		{bob, "create 666 d/f\nstat d/f\nmkdir 777 d/sub\nstat d/sub\ncreate 644 d/sub/g\nstat d/sub/g\nsymlink t d/s\nstat d/s\nfifo 600 d/p\nstat d/p\ncreate 2775 d/x\nstat d/x\ncreate 2765 d/y\nstat d/y\nmkdir 2755 d/z\nstat d/z"},
		{alice, "create 644 d/h\nstat d/h\nlink d/h d/k\nstat d/k"},
		{root, "create 2775 d/x0\nstat d/x0\nmkdir 755 plain\nrename d/sub plain/sub\nstat plain/sub"},
	},
	"sticky": {
		{root, "mkdir 777 t\nchmod 1777 t\nmkdir 777 d\nchmod 777 d\ncreate 666 t/r"},
		{alice, "create 666 t/f\nmkdir 777 t/dir\ncreate 666 t/g\nsymlink x t/s\ncreate 644 d/a"},
		{bob, "unlink t/f\nrmdir t/dir\nrename t/f t/x\nrename t/f d/x\nunlink t/s\nunlink t/r\ncreate 666 t/b\nrename t/b t/f\nswap t/b t/f\nlink t/f t/l\nrename d/a t/a\nunlink t/a\nrename t/b d/b\nunlink d/b"},
		{alice, "rename t/f t/g\nunlink t/g\nrmdir t/dir\nunlink t/s\nunlink t/a\nlist t"},
		{root, "chown 1001 -1 t\ncreate 644 t/x"},
		{bob, "unlink t/x\nunlink t/r\nlist t"},
	},
	"devices": {
		{root, "mkdir 777 d\nchmod 777 d\ndevice d/r\nstat d/r"},
		{bob, "device d/c\nfifo 640 d/p\nstat d/p\nunlink d/r"},
	},
	"xattrs": {
		{root, "mkdir 777 d\nchmod 777 d\nmkdir 777 t\nchmod 1777 t\ncreate 644 f\nsetxattr user.a f\nsetxattr trusted.a f\nsymlink x s\nsetxattr user.a s\nsetxattr trusted.a s\nfifo 666 p\nsetxattr user.a p"},
		{bob, "getxattr user.a f\nsetxattr user.a f\nrmxattr user.a f\nsetxattr trusted.b f\ngetxattr trusted.a f\ncreate 600 d/m\nsetxattr user.x d/m\ngetxattr user.x d/m\nsetxattr user.x d\nsetxattr user.x t\nsetxattr nothing.x d/m\ngetxattr user.y d/m\nrmxattr user.y d/m"},
		{alice, "getxattr user.x d/m\nsetxattr user.x d/m"},
	},
	"umask": {
		{root, "mkdir 777 d\nchmod 777 d\nstat d"},
		{alice, "create 666 d/f\nstat d/f\nmkdir 777 d/e\nstat d/e\nfifo 666 d/p\nstat d/p\nrewrite d/n\nstat d/n\nsymlink x d/s\nstat d/s"},
	},
	"links": {
		{root, "mkdir 777 d\nchmod 777 d\ncreate 600 d/r"},
		{alice, "create 644 d/f\nlink d/f d/g\nstat d/g"},
		{bob, "link d/f d/b\nlink d/r d/b\nstat d/f"},
	},
}

// TestUsers plays the rules on a mount and on the local disk.
func TestUsers(t *testing.T) {
	dir := newMount(t)
	disk := real.local(t)
	for name, scenes := range rules {
		t.Run(name, func(t *testing.T) {
			sub := strings.ReplaceAll(name, " ", "-")
			m, l := subdir(t, dir, sub), subdir(t, disk, sub)
			for _, s := range scenes {
				got, want := runAs(t, s.who, m, s.script), runAs(t, s.who, l, s.script)
				if strings.Count(got, "\n") != strings.Count(s.script, "\n")+1 {
					t.Fatalf("the script did not run:\n%s", got)
				}
				g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
				for i := range w {
					if g[i] != w[i] {
						t.Errorf("user %d\n on the mount:   %s\n on local disk:  %s", s.who.uid, g[i], w[i])
					}
				}
			}
		})
	}
}
