package sim

import (
	"fmt"
	"sort"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// history judges what applications saw, wherever it came from: a kernel's
// cache, a client's own knowledge or the servers. Everything that can be looked
// at is a key with a sequence of values, which the log gives; each value comes
// from a mutation with a beginning and an end as its application saw them. What
// was seen must have been the value at some moment between the beginning and
// the end of the look: linearizability of every key by itself.
type history struct {
	w       *world
	keys    map[histKey]*versions
	order   []histKey // of keys with looks
	looks   map[histKey][]look
	byOp    map[meta.Op]*mutation
	all     []*mutation
	open    map[string][]*mutation // without a place in the log, by shape
	clients map[meta.SessionID]*client
	lives   map[meta.SessionID]life
	seen    int // looks judged
	cached  int // of them, answered by a kernel's cache
	pages   int // units of content read
}

// histKey is something to look at: a name, the attributes of an inode, or an
// extended attribute.
type histKey struct {
	kind byte // 'n', 'a', 'x'
	ino  meta.Ino
	name string
}

func (k histKey) String() string {
	switch k.kind {
	case 'n':
		return fmt.Sprintf("%s in %d", k.name, k.ino)
	case 'x':
		return fmt.Sprintf("%s of %d", k.name, k.ino)
	}
	return fmt.Sprintf("the attributes of %d", k.ino)
}

type versions struct {
	list []version
}

// version is a value of a key; by is nil for what was there in the beginning,
// or changed on nobody's behalf.
type version struct {
	value string
	by    *mutation
	index uint64 // of the entry
}

// mutation is a change that an application asked for.
type mutation struct {
	nowhere bool // its inode is gone: nobody else will see it
	k       *kernel
	op      meta.Op
	lost    int  // sessions lost before its answer
	told    bool // the client has answered
	refused bool // with an error
	inv     stamp
	resp    stamp // 0: not answered, or nobody knows with what
	ok      bool  // answered with success
	fails   bool  // answered with an error that says that nothing happened
	at      int64 // of the answer
	index   uint64
	keys    []histKey // what it would change, as far as its words tell
}

// look is something seen.
type look struct {
	key       histKey
	value     string // "+": some inode
	k         *kernel
	inv, resp stamp
	at        int64
	how       string
}

func newHistory(w *world) *history {
	return &history{
		w: w, keys: map[histKey]*versions{}, looks: map[histKey][]look{}, byOp: map[meta.Op]*mutation{},
		open: map[string][]*mutation{}, clients: map[meta.SessionID]*client{}, lives: map[meta.SessionID]life{},
	}
}

func inoText(ino meta.Ino) string { return fmt.Sprintf("inode %d", ino) }

const absent = "nothing"

// attrText is what is compared of attributes. Size and times of a file depend
// on writes, which the log sees in pieces: data.go judges sizes.
func attrText(a *meta.Attr) string {
	if a.IsRegular() {
		return fmt.Sprintf("%o, %d links", a.Mode, a.Nlink)
	}
	return fmt.Sprintf("%o, %d links, %d, mtime %d, ctime %d", a.Mode, a.Nlink, a.Size, a.Mtime, a.Ctime)
}

// name notes what a name was seen to stand for; 0 = nothing.
func (h *history) name(a *app, key dentry, ino meta.Ino, inv stamp, how string) {
	v := absent
	if ino != 0 {
		v = inoText(ino)
	}
	h.look(a.k, histKey{'n', key.dir, key.name}, v, inv, how)
}

// exists notes that a name was seen to stand for something.
func (h *history) exists(a *app, key dentry, inv stamp, how string) {
	h.look(a.k, histKey{'n', key.dir, key.name}, "+", inv, how)
}

func (h *history) attr(a *app, attr *meta.Attr, inv stamp, how string) {
	h.look(a.k, histKey{'a', attr.Ino, ""}, attrText(attr), inv, how)
}

func (h *history) look(k *kernel, key histKey, value string, inv stamp, how string) {
	if _, known := h.looks[key]; !known {
		h.order = append(h.order, key)
	}
	h.looks[key] = append(h.looks[key], look{key, value, k, inv, h.w.observe(), h.w.now, how})
	if how == "cached" {
		h.cached++
		h.w.note("%s sees %s in its cache: %s", k.c.name, key, value)
	}
}

// begins notes a mutation that goes to the daemon.
func (h *history) begins(k *kernel, op meta.Op) *mutation {
	m := &mutation{k: k, op: op, inv: h.w.observe(), keys: shapeKeys(op)}
	h.byOp[op] = m
	h.all = append(h.all, m)
	s := shape(k.c, op)
	h.open[s] = append(h.open[s], m)
	return m
}

// answered notes that the client has decided: what it did by itself it did in
// the session of this moment.
func (h *history) answered(op any, err error) {
	if x, ok := op.(meta.Op); ok {
		if m := h.byOp[x]; m != nil {
			m.told, m.refused, m.lost = true, err != nil, m.k.c.lost
		}
	}
}

// ends notes its answer.
func (h *history) ends(m *mutation, a client_core.Answer) {
	m.at = h.w.now
	_, isMake := m.op.(*meta.Make)
	switch {
	case isMake && opened(a):
		m.fails = true // it found what it would have made
	case a.Err == nil:
		m.ok, m.resp = true, h.w.observe()
	case errs.Is(a.Err, errs.Interrupted) || errs.Is(a.Err, errs.IO) || errs.Is(a.Err, errs.Unavailable) || errs.Is(a.Err, errs.Expired):
	default:
		m.fails = true
	}
	if at, ok := a.Result.(*meta.AttrResult); ok {
		m.keys = append(m.keys, histKey{'a', at.Attr.Ino, ""})
	}
	if e, ok := a.Result.(*meta.EntryResult); ok {
		m.keys = append(m.keys, histKey{'a', e.Attr.Ino, ""})
	}
}

// opened reports whether an answer tells of an inode that was there before.
func opened(a client_core.Answer) bool {
	e, ok := a.Result.(*meta.EntryResult)
	return ok && !e.Created
}

// shape identifies a mutation in a log of a client, whose records carry more
// than what the kernel asked for.
func shape(c *client, op meta.Op) string {
	switch x := op.(type) {
	case *meta.Make:
		return fmt.Sprintf("%s make %d %s %o", c.name, x.Parent, x.Name, x.Mode&meta.ModeType)
	case *meta.Link:
		return fmt.Sprintf("%s link %d %d %s", c.name, x.Ino, x.Parent, x.Name)
	case *meta.Unlink:
		return fmt.Sprintf("%s unlink %d %s", c.name, x.Parent, x.Name)
	case *meta.Rmdir:
		return fmt.Sprintf("%s rmdir %d %s", c.name, x.Parent, x.Name)
	case *meta.Rename:
		return fmt.Sprintf("%s rename %d %s %d %s %d", c.name, x.OldParent, x.OldName, x.NewParent, x.NewName, x.Flags)
	case *meta.SetAttr:
		return fmt.Sprintf("%s setattr %d %v", c.name, x.Ino, x.Set&meta.SetSize != 0)
	case *meta.SetXattr:
		return fmt.Sprintf("%s setxattr %d %s", c.name, x.Ino, x.Name)
	case *meta.RemoveXattr:
		return fmt.Sprintf("%s removexattr %d %s", c.name, x.Ino, x.Name)
	}
	return ""
}

func shapeKeys(op meta.Op) []histKey {
	name := func(dir meta.Ino, name string) []histKey { return []histKey{{'n', dir, name}, {'a', dir, ""}} }
	switch x := op.(type) {
	case *meta.Make:
		return name(x.Parent, x.Name)
	case *meta.Link:
		return append(name(x.Parent, x.Name), histKey{'a', x.Ino, ""})
	case *meta.Unlink:
		return name(x.Parent, x.Name)
	case *meta.Rmdir:
		return name(x.Parent, x.Name)
	case *meta.Rename:
		return append(name(x.OldParent, x.OldName), name(x.NewParent, x.NewName)...)
	case *meta.SetAttr:
		return []histKey{{'a', x.Ino, ""}}
	case *meta.SetXattr:
		return []histKey{{'a', x.Ino, ""}, {'x', x.Ino, x.Name}}
	case *meta.RemoveXattr:
		return []histKey{{'a', x.Ino, ""}, {'x', x.Ino, x.Name}}
	}
	return nil
}

// record finds the mutation that a record of a client's log carries out: the
// oldest of its shape that was not sent to the servers by itself.
func (h *history) record(s meta.SessionID, op meta.Op) *mutation {
	c := h.clients[s]
	if c == nil {
		return nil
	}
	for _, m := range h.open[shape(c, op)] {
		l := h.lives[s]
		if m.refused || m.k != l.k || m.told && m.lost != l.lost {
			continue // done in another session, and lost with it
		}
		if m.index == 0 && !m.fails && h.w.oracle.latest[m.op] == nil {
			return m
		}
	}
	return nil
}

// committed appends what an entry changed to the sequences.
func (h *history) committed(index uint64, m *mutation, ch changes) {
	if m != nil {
		m.index = index
	}
	for _, c := range ch {
		v := h.keys[c.key]
		if v == nil {
			v = &versions{list: []version{{value: absent}}}
			h.keys[c.key] = v
		}
		if v.list[len(v.list)-1].value != c.value {
			v.list = append(v.list, version{c.value, m, index})
		}
	}
}

// change is a key with its new value.
type change struct {
	key   histKey
	value string
}

type changes []change

// life is a client's time in one session.
type life struct {
	k    *kernel
	lost int
}

// judge checks all looks and mutations, when the log is complete.
func (h *history) judge() {
	h.placed()
	touched := map[histKey]bool{}
	for _, key := range h.order {
		touched[key] = true
		h.judgeKey(key)
	}
	for key := range h.keys { // any order: at most one failure is kept, and those are rare
		if !touched[key] && h.w.failure == nil && len(h.keys[key].list) > 2 {
			h.judgeKey(key)
		}
	}
}

// placed checks that every success is in the log, unless its session ended;
// and that what was lost is a suffix (P2).
func (h *history) placed() {
	first := map[life]*mutation{} // lost, by the session; look-up only
	for _, m := range h.all {
		if !m.ok || m.index != 0 {
			continue
		}
		if !m.uncertain() {
			h.w.fail("%s is told that %T %+v succeeded, but it is not in the log", m.k.c.name, m.op, m.op)
			return
		}
		id := life{m.k, m.lost}
		if f := first[id]; f == nil || m.resp < f.resp {
			first[id] = m
		}
	}
	for _, m := range h.all {
		if f := first[life{m.k, m.lost}]; f != nil && m.index != 0 && m.inv > f.resp {
			h.w.fail("%s lost %T %+v and kept %T %+v, which came later (P2)", m.k.c.name, f.op, f.op, m.op, m.op)
			return
		}
	}
}

// uncertain reports whether the session in which m was made has ended.
func (m *mutation) uncertain() bool {
	return m.k.dead || m.lost != m.k.c.lost || m.k.closing && m.k.c.session == 0
}

// phantom reports whether a look may tell of mutations that were lost: only
// the client that made them saw them, until it learned of the loss.
func (h *history) phantom(l *look) bool {
	for _, m := range h.all {
		if !m.ok || m.index != 0 && !m.nowhere || m.k != l.k || m.inv > l.resp {
			continue
		}
		if !m.nowhere && !m.k.dead && m.lost < len(m.k.c.losses) && l.at > m.k.c.losses[m.lost]+lossGrace {
			continue
		}
		for _, key := range m.keys {
			if key == l.key || key.kind == 'a' && key.ino == l.key.ino && h.keys[histKey{'a', key.ino, ""}] == nil {
				return true
			}
		}
	}
	return false
}

// lossGrace is how long a kernel may believe in what was lost after its client
// has learned of it.
const lossGrace = 200 * ms

// point is where an operation stands in the sequence of a key.
type point struct {
	inv, resp stamp
	place     int
}

// judgeKey finds a place in the sequence for every look, the earliest that it
// may have, in the order of their ends. That finds a linear order if there is one.
func (h *history) judgeKey(key histKey) {
	v := h.keys[key]
	if v == nil {
		v = &versions{list: []version{{value: absent}}}
	}
	var done []point // ended, by their end
	var most []int   // the greatest place of done[:i+1]
	floor := func(inv stamp) int {
		i := sort.Search(len(done), func(i int) bool { return done[i].resp >= inv })
		if i == 0 {
			return 0
		}
		return most[i-1]
	}
	begun := make([]stamp, len(v.list)) // when the last of the mutations up to here began
	type ended struct {
		resp  stamp
		place int // of a mutation; -1: a look
		look  *look
	}
	var list []ended
	for i := 1; i < len(v.list); i++ {
		begun[i] = begun[i-1]
		m := v.list[i].by
		if m == nil {
			continue
		}
		begun[i] = max(begun[i], m.inv)
		end := m.resp
		if end == 0 {
			end = ^stamp(0)
		}
		list = append(list, ended{end, i, nil})
	}
	looks := h.looks[key]
	for i := range looks {
		list = append(list, ended{looks[i].resp, -1, &looks[i]})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].resp < list[j].resp })
	for _, x := range list {
		place, inv := x.place, stamp(0)
		if x.look == nil {
			m := v.list[x.place].by
			if inv = m.inv; floor(inv) >= place {
				h.w.fail("%s: the change to %s by %s (entry %d) began after what followed it was seen",
					key, v.list[place].value, m.k.c.name, v.list[place].index)
				return
			}
		} else {
			inv = x.look.inv
			if h.phantom(x.look) || x.look.k.c.doubtful(x.look.at) {
				continue
			}
			if place = v.find(x.look, floor(inv), begun); place < 0 {
				h.wrong(x.look, v, floor(inv))
				return
			}
			h.seen++
		}
		done = append(done, point{inv, x.resp, place})
		if n := len(most); n > 0 {
			place = max(place, most[n-1])
		}
		most = append(most, place)
	}
}

// find gives the earliest place from lo on where a look fits, or -1.
func (v *versions) find(l *look, lo int, begun []stamp) int {
	for i := lo; i < len(v.list) && begun[i] < l.resp; i++ {
		x := v.list[i].value
		if x == l.value || l.value == "+" && x != absent {
			return i
		}
	}
	return -1
}

// wrong reports a look that nothing explains.
func (h *history) wrong(l *look, v *versions, lo int) {
	text := ""
	for i := max(lo-1, 0); i < len(v.list) && i < lo+4; i++ {
		x := v.list[i]
		text += fmt.Sprintf("\n  %s since entry %d", x.value, x.index)
		if x.by != nil {
			text += fmt.Sprintf(" by %s at %d-%d", x.by.k.c.name, x.by.inv, x.by.resp)
		}
		if i == lo {
			text += " (had to be seen)"
		}
	}
	h.w.failAt(l.at, "%s (%s) sees %s: %s at %d-%d, but it was%s", l.k.c.name, l.how, l.key, l.value, l.inv, l.resp, text)
}
