package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func TestConfig(t *testing.T) {
	c, err := Config{Dir: "/x"}.complete()
	if err != nil || c.Root != meta.RootIno || c.MaxWrite != 1<<20 || c.Source == "" || c.IdleReaders < 2 || c.Spin != 0 {
		t.Errorf("defaults %+v %v", c, err)
	}
	for name, c := range map[string]Config{
		"no directory":    {},
		"tiny MaxWrite":   {Dir: "/x", MaxWrite: 100},
		"large MaxWrite":  {Dir: "/x", MaxWrite: 2 << 20},
		"long spin":       {Dir: "/x", Spin: 1e9},
		"negative spin":   {Dir: "/x", Spin: -1},
		"negative limit":  {Dir: "/x", MaxRunning: -1},
		"huge background": {Dir: "/x", MaxBackground: 1 << 16},
	} {
		if _, err := c.complete(); !errs.Is(err, errs.Usage) {
			t.Errorf("%s: %v, want usage", name, err)
		}
	}
}

func TestMountPointErrors(t *testing.T) {
	if _, err := mountPoint(t.TempDir() + "/none"); !errs.Is(err, errs.NotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := mountPoint("/proc/self/status"); !errs.Is(err, errs.NotDir) {
		t.Errorf("file: %v", err)
	}
}

func TestSetAttrOp(t *testing.T) {
	for _, c := range []struct {
		name  string
		valid uint32
		set   uint32
	}{
		{"nothing", fuse.FATTR_CTIME | fuse.FATTR_FH | fuse.FATTR_LOCKOWNER, 0},
		{"chown of neither", 0, meta.KillPriv},
		{"mode", fuse.FATTR_MODE, meta.SetMode},
		{"owner kills", fuse.FATTR_UID | fuse.FATTR_GID, meta.SetUID | meta.SetGID | meta.KillPriv},
		{"owner and mode", fuse.FATTR_GID | fuse.FATTR_MODE, meta.SetGID | meta.SetMode},
		{"size", fuse.FATTR_SIZE | fuse.FATTR_FH, meta.SetSize},
		{"size kills", fuse.FATTR_SIZE | fuse.FATTR_KILL_SUIDGID, meta.SetSize | meta.KillPriv},
		{"times", fuse.FATTR_ATIME | fuse.FATTR_MTIME, meta.SetAtime | meta.SetMtime},
		{"now", fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW,
			meta.SetAtimeNow | meta.SetMtimeNow},
	} {
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: c.valid, Mode: 0o104755, Atime: 5, Atimensec: 6}}
		op := setAttrOp(9, in)
		if op.Set != c.set || op.Ino != 9 || op.Mode != 0o4755 {
			t.Errorf("%s: set %#x (mode %o), want %#x", c.name, op.Set, op.Mode, c.set)
		}
		if c.set&meta.SetAtime != 0 && op.Atime != 5e9+6 {
			t.Errorf("%s: atime %d", c.name, op.Atime)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, ns := range []int64{0, 1, -1, 1e9, -1e9, -3e9 + 4, math.MaxInt64 - 1e9, math.MinInt64 + 2e9} {
		if sec, n := splitTime(ns); joinTime(sec, n) != ns || n >= 1e9 {
			t.Errorf("%d became %d.%d", ns, int64(sec), n)
		}
	}
	if joinTime(1<<40, 0) != math.MaxInt64 || joinTime(1<<63, 0) != math.MinInt64 {
		t.Error("times out of range must saturate")
	}
}

func TestMayOpen(t *testing.T) {
	const rd, wr, rw = syscall.O_RDONLY, syscall.O_WRONLY, syscall.O_RDWR
	for _, c := range []struct {
		mode  uint32
		cred  meta.Cred
		flags uint32
		want  bool
	}{
		{0o000, meta.Cred{UID: 0}, rw, true},
		{0o600, meta.Cred{UID: 5}, rw, true},
		{0o400, meta.Cred{UID: 5}, wr, false},
		{0o066, meta.Cred{UID: 5, GID: 6}, rd, false}, // the owner's bits bind the owner
		{0o060, meta.Cred{UID: 9, GID: 6}, rw, true},
		{0o006, meta.Cred{UID: 9, GID: 6}, rw, false},
		{0o006, meta.Cred{UID: 9, GID: 9}, rd, false}, // could be a member of the group
		{0o044, meta.Cred{UID: 9, GID: 9}, rd, true},
		{0o044, meta.Cred{UID: 9, GID: 9}, rd | syscall.O_TRUNC, false},
	} {
		a := &meta.Attr{Mode: meta.ModeRegular | c.mode, UID: 5, GID: 6}
		if got := mayOpen(a, c.cred, c.flags); got != c.want {
			t.Errorf("mode %03o, %+v, flags %#x: %v", c.mode, c.cred, c.flags, got)
		}
	}
}

func TestUserAllowOther(t *testing.T) {
	for conf, want := range map[string]bool{
		"":                                    false,
		"#user_allow_other\n":                 false,
		"mount_max = 5\n user_allow_other \n": true,
		"user_allow_other # yes":              true,
		"user_allow_others\n":                 false,
	} {
		if userAllowOther([]byte(conf)) != want {
			t.Errorf("%q", conf)
		}
	}
}

func TestMountinfo(t *testing.T) {
	got := parseMountinfo([]byte("22 1 0:21 / /proc rw - proc proc rw\n" +
		`36 35 0:57 / /a\040b\134\101\9 rw,noatime shared:7 master:1 - fuse.agentdrive agentdrive rw,user_id=0` + "\nbroken - line\n"))
	want := []mountEntry{{"0:21", "/proc", "proc"}, {"0:57", `/a b\A\9`, "fuse.agentdrive"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

func procStatus(pnd, shd, blk string) string {
	return "Name:\tx\nSigQ:\t0/1\nSigPnd:\t" + pnd + "\nShdPnd:\t" + shd + "\nSigBlk:\t" + blk + "\n"
}

func TestStopPending(t *testing.T) {
	const none = "0000000000000000"
	for _, c := range []struct {
		name, status string
		want         bool
	}{
		{"none", procStatus(none, none, none), false},
		{"SIGKILL", procStatus("0000000000000100", none, none), true},
		{"SIGINT of the process", procStatus(none, "0000000000000002", none), true},
		{"SIGINT blocked", procStatus(none, "0000000000000002", "0000000000000002"), false},
		{"SIGCHLD", procStatus("0000000000010000", none, none), false},
		{"SIGURG, SIGALRM", procStatus("0000000000402000", none, none), false},
		{"unreadable", procStatus("zz", none, none), true},
		{"incomplete", "SigPnd:\t" + none + "\n", true},
	} {
		if got := stopPending([]byte(c.status)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// reply makes a reply with a body.
func reply(errno int32, body []byte) []byte {
	b := errorReply(1, syscall.Errno(errno))
	return append(b, body...)
}

func entryOut(node uint64) []byte {
	b := make([]byte, entryOutBytes)
	binary.NativeEndian.PutUint64(b, node)
	return b
}

func direntPlus(node uint64, name string) []byte {
	b := append(entryOut(node), make([]byte, entryBytes(name, false))...)
	binary.NativeEndian.PutUint32(b[entryOutBytes+direntNameAt:], uint32(len(name)))
	copy(b[entryOutBytes+direntBytes:], name)
	return b
}

func TestParseGift(t *testing.T) {
	page := slices.Concat(direntPlus(0, "."), direntPlus(0, ".."), direntPlus(7, strings.Repeat("n", 255)), direntPlus(8, "x"))
	for _, c := range []struct {
		name  string
		op    uint32
		reply []byte
		want  gift
	}{
		{"lookup", opLookup, reply(0, entryOut(5)), gift{nodes: []uint64{5}}},
		{"negative lookup", opLookup, reply(0, entryOut(0)), gift{}},
		{"failed lookup", opLookup, reply(2, nil), gift{}},
		{"create", opCreate, reply(0, append(entryOut(5), make([]byte, 16)...)), gift{nodes: []uint64{5}, opened: 5}},
		{"open", opOpen, reply(0, make([]byte, 16)), gift{opened: 3}},
		{"failed open", opOpen, reply(5, nil), gift{}},
		{"listing", opReadDirPlus, reply(0, page), gift{nodes: []uint64{7, 8}}},
		{"read", opRead, reply(0, entryOut(5)), gift{}},
	} {
		if got := parseGift(header{op: c.op, node: 3}, c.reply); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestGiftMatchesGoFuse: what go-fuse writes is what parseGift reads.
func TestGiftMatchesGoFuse(t *testing.T) {
	body := make([]byte, 4096)
	list := fuse.NewDirEntryList(body, 0)
	f := &fileSystem{}
	w := &dirWriter{f: f, out: list, room: len(body), plus: true}
	w.dots(offStart, 1)
	var want []uint64
	for i := 0; ; i++ {
		e := meta.DirEntry{Name: strings.Repeat("e", 1+i*7%255), Cookie: uint64(i + 10), Attr: meta.Attr{Ino: meta.Ino(i + 100)}}
		if !w.group([]meta.DirEntry{e}, nil) {
			break
		}
		want = append(want, uint64(e.Attr.Ino))
	}
	if got := len(list.Bytes()) + w.room; got != len(body) {
		t.Errorf("written and left are %d bytes of %d", got, len(body))
	}
	if g := parseGift(header{op: opReadDirPlus}, reply(0, list.Bytes())); !slices.Equal(g.nodes, want) {
		t.Errorf("counted %v, want %v", g.nodes, want)
	}
}

// TestEqualCookiesStayTogether: entries of one cookie go into a reply all or
// none.
func TestEqualCookiesStayTogether(t *testing.T) {
	g := []meta.DirEntry{{Name: "a", Cookie: 9, Attr: meta.Attr{Ino: 100}}, {Name: "b", Cookie: 9, Attr: meta.Attr{Ino: 101}}}
	buf := make([]byte, entryBytes("a", false)*2-1)
	w := &dirWriter{f: &fileSystem{}, out: fuse.NewDirEntryList(buf, 0), room: len(buf)}
	if w.group(g, nil) || len(w.out.Bytes()) != 0 || w.room != len(buf) {
		t.Error("a group was split")
	}
	if !w.group(g[:1], nil) {
		t.Error("what fits must be written")
	}
}

func TestNodes(t *testing.T) {
	n := nodes{m: map[uint64]node{}}
	n.add(gift{nodes: []uint64{5, 5, 6}, opened: 5})
	n.forget(5, 1)
	n.forget(6, 9) // more than given: a kernel that lies does not underflow
	if n.lookups(5) != 1 || n.lookups(6) != 0 {
		t.Errorf("%v", n.m)
	}
	n.close(5)
	if got := n.drain(); len(got) != 1 || got[5] != (node{lookups: 1}) || len(n.m) != 0 {
		t.Errorf("drained %v", got)
	}
}

func FuzzParseGift(f *testing.F) {
	f.Add(uint32(opReadDirPlus), reply(0, slices.Concat(direntPlus(7, "name"), direntPlus(8, ""))))
	f.Add(uint32(opCreate), reply(0, entryOut(1)))
	f.Add(uint32(opLookup), reply(2, nil))
	f.Add(uint32(opOpen), []byte{})
	f.Fuzz(func(t *testing.T, op uint32, b []byte) {
		g := parseGift(header{op: op, node: 3}, b)
		if len(g.nodes) > 1+len(b)/entryOutBytes || slices.Contains(g.nodes, 0) {
			t.Errorf("%v of %d bytes", g.nodes, len(b))
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte(`36 35 0:57 / /a\040b rw - fuse.agentdrive x rw`))
	f.Add([]byte(`\0 \ \777 - `))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range parseMountinfo(b) {
			if e.dev == "" || e.dir == "" || e.fsType == "" {
				t.Errorf("%q gives %+v", b, e)
			}
		}
	})
}

func FuzzStopPending(f *testing.F) {
	f.Add([]byte(procStatus("0000000000000100", "0", "0")))
	f.Add([]byte("SigPnd:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !stopPending(b) && strings.Count(string(b), "Sig")+strings.Count(string(b), "Shd") < 3 {
			t.Errorf("%q passes as harmless", b)
		}
	})
}

func TestExitingBySignal(t *testing.T) {
	line := func(name string, flags, code int) []byte {
		return fmt.Appendf(nil, "7 (%s) R 1 7 7 0 -1 %d%s %d\n", name, flags, strings.Repeat(" 0", statExitCode-statFlags-1), code)
	}
	for _, c := range []struct {
		stat []byte
		want bool
	}{
		{line("cat", 0x404004, 9), true},
		{line("a) R (b", 0x4, 15), true},
		{line("cat", 0x4, 2<<8), false},   // exit(2)
		{line("cat", 0x400000, 9), false}, // a stop, or the code of nothing
		{[]byte("7 (cat) R 1"), false},
		{nil, false},
	} {
		if got := exitingBySignal(c.stat); got != c.want {
			t.Errorf("%q: %v", c.stat, got)
		}
	}
}
