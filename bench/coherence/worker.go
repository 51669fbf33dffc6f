package coherence

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes a program that calls WorkerMain a worker.
const roleEnv = "COHERENCE_ROLE"

// stuckAfter is how long a call takes before the worker says so, on standard
// error.
const stuckAfter = 5 * time.Second

// arena is one task of a worker, a line of JSON on its standard input. The
// answer is a line of JSON: its calls.
type arena struct {
	ID     int
	Dir    string // as this worker's mount shows it
	Seed   uint64
	Worker int
	Mount  int
	Calls  int
	Groups []string      // of acts
	Think  time.Duration // at most this long between calls
}

// WorkerMain is called first by a program whose binary Run starts again as
// workers. In those it does not return.
func WorkerMain() {
	if os.Getenv(roleEnv) != "worker" {
		return
	}
	runtime.LockOSThread()
	unix.Umask(0)
	debug.SetPanicOnFault(true) // a mapped page that cannot be read
	tasks, done := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	var w worker
	go w.watch()
	// A call in a mount may hang; the end of the input ends the worker.
	lines := make(chan string)
	go func() {
		for {
			line, err := tasks.ReadString('\n')
			if err != nil {
				os.Exit(0)
			}
			lines <- line
		}
	}()
	for line := range lines {
		var a arena
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			panic(err) // Run wrote it
		}
		w.work(a)
		b, err := json.Marshal(w.calls)
		if err != nil {
			panic(err) // strings and numbers
		}
		done.Write(append(b, '\n'))
		if err := done.Flush(); err != nil {
			os.Exit(0) // nobody reads
		}
	}
}

// worker is the state of a worker within one arena; one goroutine's, except
// current.
type worker struct {
	arena
	rng     *rand.Rand
	calls   []Call
	current atomic.Pointer[Call] // under way
	serial  int                  // of what is written

	held     []held // files of the names part that are open
	reg      int    // descriptors of the data group, -1: not open
	page     []byte // mapping of the registers
	logFile  int
	textFile int
	locks    lockState
}

// held is an open file that a name stood for.
type held struct {
	fd  int
	ino uint64
}

// watch says which call does not return.
func (w *worker) watch() {
	for range time.Tick(stuckAfter / 4) {
		if c := w.current.Load(); c != nil && now()-c.Start > int64(stuckAfter) {
			fmt.Fprintf(os.Stderr, "%v: no answer after %v\n", c, time.Duration(now()-c.Start))
		}
	}
}

// work spends the calls of one arena.
func (w *worker) work(a arena) {
	w.arena, w.calls, w.serial, w.held = a, nil, 0, nil
	w.rng = rand.New(rand.NewPCG(a.Seed, uint64(a.Worker)))
	w.reg, w.logFile, w.textFile, w.page = -1, -1, -1, nil
	w.locks = lockState{flock: -1, record: -1}
	var acts []act
	for _, g := range a.Groups {
		acts = append(acts, groups[g]...)
	}
	for len(w.calls) < a.Calls {
		if a.Think > 0 && w.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(w.rng.Int64N(int64(a.Think))))
		}
		acts[w.rng.IntN(len(acts))](w)
	}
	if w.logFile >= 0 {
		w.logRead() // all of it, once more
	}
	w.close()
}

// close gives back what the arena holds. Releasing a lock is a call.
func (w *worker) close() {
	w.release()
	for _, h := range w.held {
		unix.Close(h.fd)
	}
	if w.page != nil {
		unix.Munmap(w.page)
	}
	for _, fd := range []int{w.reg, w.logFile, w.textFile, w.locks.flock, w.locks.record} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// act is one random step: one call, or a few.
type act func(w *worker)

// call makes one system call and writes down when, and what it tells. tells
// runs after the time is taken; it reports an outcome that cannot be right.
func (w *worker) call(text string, do func() error, tells func(err error) ([]Fact, error)) error {
	c := Call{Arena: w.ID, Worker: w.Worker, Mount: w.Mount, Text: text, Start: now()}
	w.current.Store(&c)
	err := do()
	end := now()
	w.current.Store(nil)
	c.End = end
	var bad error
	if !stale(err, text) {
		c.Facts, bad = tells(err)
	}
	if bad != nil {
		c.Bad = bad.Error()
	}
	if err != nil {
		c.Text += " = " + name(err)
	}
	w.calls = append(w.calls, c)
	return err
}

func name(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// note adds the result to the text of the last call.
func (w *worker) note(format string, args ...any) {
	w.calls[len(w.calls)-1].Text += fmt.Sprintf(format, args...)
}

// stale is how a call on slots may end, which tells nothing: the kernel gives
// ESTALE when a lookup finds a directory that it knows in another directory,
// whose lock is taken at that moment.
func stale(err error, text string) bool {
	return err == unix.ESTALE && (strings.Contains(text, "d/n") || strings.Contains(text, "e/n"))
}

// unexpected is what tells returns for an error that is none of the known.
func unexpected(err error) ([]Fact, error) {
	return nil, fmt.Errorf("unexpected %w", err)
}

func (w *worker) path(rest string) string { return w.Dir + "/" + rest }

func (w *worker) chance(percent int) bool { return w.rng.IntN(100) < percent }

// retry repeats a call that a signal cut short before it did anything; the Go
// runtime sends some.
func retry(do func() error) error {
	for {
		if err := do(); err != unix.EINTR {
			return err
		}
	}
}
