package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

var crashSeed = flag.Uint64("crash.seed", uint64(time.Now().UnixNano()), "seed of TestClientCrash")

// TestClientCrash kills mounts with SIGKILL in the middle of work and looks at
// what survived (promise P2): the namespace is the one after some prefix of the
// operations, each file holds a prefix of its writes, all of them from before an
// operation that put a surviving name on it, and whatever fsync returned for.
func TestClientCrash(t *testing.T) {
	fit(t)
	const mounts = 4
	t.Logf("seed %d (-crash.seed)", *crashSeed)
	c := start(t, 1)
	var victims []*victim
	for i := range mounts {
		v := &victim{
			rnd:  rand.New(rand.NewPCG(*crashSeed, uint64(i))),
			dir:  c.Mount("demo", fmt.Sprint("m", i), "--path", fmt.Sprint("/work", i)),
			tree: map[string]*thing{},
		}
		v.pid = pidOf(t, c, v.dir)
		victims = append(victims, v)
	}
	var wg sync.WaitGroup
	for _, v := range victims {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v.work()
		}()
	}
	// Die at different depths: in bursts, and while the log drains.
	for i, v := range victims {
		c.Eventually("work under way", func() bool { return v.done.Load() > uint64(150*(i+1)) || v.failed.Load() != nil })
		v.killed = time.Now()
		if err := syscall.Kill(v.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for i, v := range victims {
		if err := v.failed.Load(); err != nil && !v.afterDeath(*err) {
			t.Fatalf("mount %d, before it was killed: %v", i, *err)
		}
		c.Gone(v.pid)
		c.Do("umount", v.dir, "--force")
		dir := c.Mount("demo", fmt.Sprint("after", i), "--path", fmt.Sprint("/work", i))
		lost, err := v.check(dir)
		if err != nil {
			t.Errorf("mount %d: %v", i, err)
			continue
		}
		t.Logf("mount %d: %d operations answered, the last %d of them lost", i, len(v.ops), lost)
	}
}

func pidOf(t *testing.T, c *cluster.Cluster, dir string) int {
	t.Helper()
	for _, m := range c.Status().Mounts {
		if m.Dir == dir {
			return m.Pid
		}
	}
	t.Fatalf("status shows no mount on %s", dir)
	return 0
}

// thing is a file or directory of the model.
type thing struct {
	id   int
	dir  bool
	mode fs.FileMode
}

// op is an operation that was answered (or the one that the kill cut off).
type op struct {
	names    string // the namespace after it
	file     int    // that it is about, 0 = none
	needs    bool   // a name was put on the file: its earlier writes must survive with it
	write    string // bytes appended by it
	fsync    bool
	ids      map[string]int // path -> file
	cutShort bool           // it was not answered
}

// victim is one mount with its worker.
type victim struct {
	rnd    *rand.Rand
	dir    string
	pid    int
	killed time.Time
	done   atomic.Uint64
	failed atomic.Pointer[error]

	tree map[string]*thing
	ids  int
	ops  []op
}

// afterDeath reports whether an error is one of a mount without a daemon.
func (v *victim) afterDeath(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EINTR)
}

// work runs random operations until one fails.
func (v *victim) work() {
	for {
		o, err := v.step()
		if o == nil && err == nil {
			continue
		}
		if o != nil {
			o.cutShort = err != nil
			v.ops = append(v.ops, *o)
		}
		if err != nil {
			v.failed.Store(&err)
			return
		}
		v.done.Add(1)
	}
}

func (v *victim) pick(want func(*thing) bool) (string, *thing) {
	var list []string
	for p, x := range v.tree {
		if want(x) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	sort.Strings(list)
	p := list[v.rnd.IntN(len(list))]
	return p, v.tree[p]
}

func isFile(x *thing) bool { return !x.dir }
func isDir(x *thing) bool  { return x.dir }

// fresh makes up a path in some directory.
func (v *victim) fresh() string {
	dir, _ := v.pick(isDir)
	return filepath.Join(dir, fmt.Sprintf("n%d", v.rnd.IntN(40)))
}

// step decides on one operation, executes it, and returns it with the state
// that it makes. nil, nil: nothing fits.
func (v *victim) step() (*op, error) {
	o := &op{}
	var err error
	switch v.rnd.IntN(12) {
	case 0, 1, 2:
		path := v.fresh()
		if v.tree[path] != nil {
			return nil, nil
		}
		o.file, err = v.create(path)
	case 3, 4, 5:
		path, x := v.pick(isFile)
		if x == nil {
			return nil, nil
		}
		o.file, o.write = x.id, v.record(x.id)
		err = v.append(path, o.write, false)
	case 6:
		path, x := v.pick(isFile)
		if x == nil {
			return nil, nil
		}
		o.file, o.write, o.fsync = x.id, v.record(x.id), true
		err = v.append(path, o.write, true)
	case 7:
		path := v.fresh()
		if v.tree[path] != nil || strings.Count(path, "/") > 3 {
			return nil, nil
		}
		v.ids++
		v.tree[path] = &thing{id: v.ids, dir: true, mode: 0o755}
		err = os.Mkdir(filepath.Join(v.dir, path), 0o755)
	case 8:
		return v.rename()
	case 9:
		path, x := v.pick(isFile)
		if x == nil || len(v.tree) < 20 {
			return nil, nil
		}
		delete(v.tree, path)
		err = os.Remove(filepath.Join(v.dir, path))
	case 10:
		path, x := v.pick(isFile)
		if x == nil {
			return nil, nil
		}
		x.mode = fs.FileMode(0o600 | v.rnd.IntN(0o100))
		err = os.Chmod(filepath.Join(v.dir, path), x.mode)
	case 11:
		path, x := v.pick(isFile)
		to := v.fresh()
		if x == nil || v.tree[to] != nil {
			return nil, nil
		}
		v.tree[to] = x
		o.file, o.needs = x.id, true
		err = os.Link(filepath.Join(v.dir, path), filepath.Join(v.dir, to))
	}
	v.describe(o)
	return o, err
}

// rename moves a file, perhaps over another one.
func (v *victim) rename() (*op, error) {
	path, x := v.pick(isFile)
	if x == nil {
		return nil, nil
	}
	to := v.fresh()
	if v.rnd.IntN(2) == 0 {
		to, _ = v.pick(isFile)
	}
	if y := v.tree[to]; to == path || y == x || y != nil && y.dir {
		return nil, nil
	}
	delete(v.tree, path)
	v.tree[to] = x
	o := &op{file: x.id, needs: true}
	v.describe(o)
	return o, os.Rename(filepath.Join(v.dir, path), filepath.Join(v.dir, to))
}

func (v *victim) create(path string) (int, error) {
	v.ids++
	v.tree[path] = &thing{id: v.ids, mode: 0o644}
	f, err := os.OpenFile(filepath.Join(v.dir, path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return v.ids, err
	}
	return v.ids, f.Close()
}

// record makes up what is written: of one size class or another, so that it
// travels inline and in blocks.
func (v *victim) record(id int) string {
	n := 1 + v.rnd.IntN(200)
	if v.rnd.IntN(4) == 0 {
		n = 4000 + v.rnd.IntN(20000)
	}
	head := fmt.Sprintf("[%d.%d]", id, len(v.ops))
	return head + strings.Repeat("x", n)
}

// append writes at the end, without O_APPEND: a plain write at an offset.
func (v *victim) append(path, data string, sync bool) (err error) {
	f, err := os.OpenFile(filepath.Join(v.dir, path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(data), st.Size()); err != nil || !sync {
		return err
	}
	return f.Sync()
}

// describe notes the namespace of the model in o.
func (v *victim) describe(o *op) {
	var list []string
	o.ids = map[string]int{}
	for p, x := range v.tree {
		if x.dir {
			list = append(list, p+"/")
			continue
		}
		o.ids[p] = x.id
		list = append(list, fmt.Sprintf("%s %o", p, x.mode))
	}
	sort.Strings(list)
	o.names = strings.Join(list, "\n")
}

// check compares what is in dir with every prefix of the operations, the
// longest first, and returns how many answered operations are lost.
func (v *victim) check(dir string) (lost int, err error) {
	var list []string
	content := map[string]string{}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			list = append(list, rel+"/")
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		content[rel] = string(b)
		list = append(list, fmt.Sprintf("%s %o", rel, st.Mode().Perm()))
		return err
	})
	if err != nil {
		return 0, err
	}
	sort.Strings(list)
	names := strings.Join(list, "\n")
	why := errors.New("no prefix of the operations makes this namespace")
	for k := len(v.ops); k >= 0; k-- {
		if k > 0 && v.ops[k-1].names != names || k == 0 && names != "" {
			continue
		}
		if why = v.prefix(k, content); why == nil {
			answered := len(v.ops)
			if answered > 0 && v.ops[answered-1].cutShort {
				answered--
			}
			return max(0, answered-k), nil
		}
	}
	return 0, fmt.Errorf("%w\nfound:\n%s\nlast operation:\n%s", why, names, v.ops[len(v.ops)-1].names)
}

// prefix checks the files against what must and may be there if the first k
// operations survived.
func (v *victim) prefix(k int, content map[string]string) error {
	must := map[int]int{} // file -> number of its writes that have to be there
	writes := map[int][]string{}
	for i, o := range v.ops {
		if o.write != "" {
			writes[o.file] = append(writes[o.file], o.write)
		}
		if o.fsync && !o.cutShort {
			must[o.file] = len(writes[o.file])
			if i >= k && v.changed(i, k) {
				return fmt.Errorf("fsync of file %d (operation %d) returned, but only %d operations survived", o.file, i, k)
			}
		}
		if o.needs && i < k {
			must[o.file] = len(writes[o.file])
		}
	}
	if k == 0 {
		return nil
	}
	for path, id := range v.ops[k-1].ids {
		got, n := content[path], 0
		for _, w := range writes[id] {
			if !strings.HasPrefix(got, w) {
				break
			}
			got, n = got[len(w):], n+1
		}
		if got != "" {
			return fmt.Errorf("%s (file %d) holds %d of its %d writes and %d bytes more", path, id, n, len(writes[id]), len(got))
		}
		if n < must[id] {
			return fmt.Errorf("%s (file %d) holds %d of its writes, %d must be there", path, id, n, must[id])
		}
	}
	return nil
}

// changed reports whether an operation in [k, i) is about the file of
// operation i other than by its data.
func (v *victim) changed(i, k int) bool {
	return slices.ContainsFunc(v.ops[k:i], func(o op) bool { return o.file == v.ops[i].file && o.write == "" })
}
