package mountd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

func TestMountAndUmount(t *testing.T) {
	f := setup(t)
	st := f.mustStart(t)
	if st.Already || st.Pid == 0 || st.Session != 7 || st.State != mountd.StateMounted {
		t.Fatalf("%+v", st)
	}
	again, err := f.start("demo", "rw")
	if err != nil || !again.Already || again.Pid != st.Pid {
		t.Fatalf("second mount: %+v, %v", again, err)
	}
	for _, c := range [][2]string{{"other", "rw"}, {"demo", "ro"}} {
		_, err := f.start(c[0], c[1])
		wantKind(t, err, errs.Busy)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "x"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.reg.Sync(context.Background(), filepath.Join(f.dir, "sub", "dir")); err != nil {
		t.Fatal("sync of a directory inside:", err)
	}
	if all := f.list(t); len(all) != 1 || all[0].Dir != f.dir {
		t.Fatalf("%+v", all)
	}
	if out, err := f.umount(mountd.Plain); err != nil || out.Dead {
		t.Fatal(out, err)
	}
	if f.mounted(t) || len(f.list(t)) != 0 {
		t.Fatal("still there")
	}
	if log, _ := os.ReadFile(f.backing + ".log"); string(log) != "sync\nflush\nflush\nclose\n" {
		t.Errorf("asked of the filesystem: %q", log)
	}
	_, err = f.umount(mountd.Plain)
	wantKind(t, err, errs.NotExist)
	wantKind(t, f.reg.Sync(context.Background(), f.dir), errs.NotExist)
}

func TestDirectoryMustBeEmpty(t *testing.T) {
	f := setup(t)
	if err := os.MkdirAll(filepath.Join(f.dir, "file"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := f.start("demo", "rw")
	wantKind(t, err, errs.NotEmpty)
	f.dir = filepath.Join(f.backing, "plain")
	if err := os.WriteFile(f.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = f.start("demo", "rw")
	wantKind(t, err, errs.NotDir)
}

func TestFailureOfTheDaemonComesBack(t *testing.T) {
	f := setup(t)
	_, err := f.start("missing", "rw")
	wantKind(t, err, errs.NotExist)
	if errs.HintOf(err) != "create it" || exists(f.dir) {
		t.Errorf("hint %q, directory left: %v", errs.HintOf(err), exists(f.dir))
	}
}

func TestBusy(t *testing.T) {
	f := setup(t)
	f.mustStart(t)
	open, err := os.Create(filepath.Join(f.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, err = f.umount(mountd.Plain)
	wantKind(t, err, errs.Busy)
	if !strings.Contains(err.Error(), fmt.Sprintf("(%d)", os.Getpid())) || errs.HintOf(err) == "" {
		t.Errorf("it does not name us: %v; hint %q", err, errs.HintOf(err))
	}
	open.Close()
	if _, err := f.umount(mountd.Plain); err != nil {
		t.Fatal(err)
	}
}

// After a lazy unmount the open file works on, the directory takes a new
// mount, and the daemon ends with the file.
func TestLazy(t *testing.T) {
	f := setup(t)
	first := f.mustStart(t)
	open, err := os.Create(filepath.Join(f.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	out, err := f.umount(mountd.Lazy)
	if err != nil || !out.Detached || len(out.Users) == 0 || f.mounted(t) {
		t.Fatal(out, err)
	}
	if _, err := open.WriteString("works on"); err != nil {
		t.Fatal(err)
	}
	second := f.mustStart(t)
	if second.Pid == first.Pid {
		t.Fatal("same daemon")
	}
	eventually(t, "both listed", func() bool {
		all := f.list(t)
		return len(all) == 2 && (all[0].State == mountd.StateDetached || all[1].State == mountd.StateDetached)
	})
	open.Close()
	eventually(t, "detached daemon ends", func() bool { return len(f.list(t)) == 1 })
}

func TestForceSaysWhatItDiscards(t *testing.T) {
	f := setup(t)
	f.mustStart(t)
	open, err := os.Create(filepath.Join(f.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := os.WriteFile(f.backing+".away", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = f.reg.Umount(ctx, f.dir, mountd.Plain) // cannot flush
	wantKind(t, err, errs.Timeout)
	if !f.mounted(t) || !strings.Contains(errs.HintOf(err), "--force") {
		t.Fatalf("mounted %v, hint %q", f.mounted(t), errs.HintOf(err))
	}
	out, err := f.umount(mountd.Force)
	if err != nil || out.DiscardedBytes != 123 || out.DiscardedFiles != 2 || f.mounted(t) {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, err := open.WriteString("x"); err == nil {
		t.Error("the open file still works")
	}
}

func TestDeadDaemon(t *testing.T) {
	f := setup(t)
	kill := func() {
		t.Helper()
		st := f.mustStart(t)
		if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "mount is dead", func() bool {
			all := f.list(t)
			return len(all) == 1 && all[0].State == mountd.StateDead
		})
	}
	kill()
	out, err := f.umount(mountd.Plain)
	if err != nil || !out.Dead || f.mounted(t) || len(f.list(t)) != 0 {
		t.Fatal(out, err)
	}
	kill()
	st, err := f.start("demo", "ro") // mounting again takes the dead one away
	if err != nil || st.Already || !st.Buried {
		t.Fatalf("%+v, %v", st, err)
	}
}

func TestStopAllCutsOff(t *testing.T) {
	f := setup(t)
	f.mustStart(t)
	open, err := os.Create(filepath.Join(f.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done, err := f.reg.StopAll(ctx, mountd.Stop)
	if err != nil || len(done) != 1 || len(done[f.dir].Users) == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if f.mounted(t) || len(f.list(t)) != 0 {
		t.Fatal("still there")
	}
	if log, _ := os.ReadFile(f.backing + ".log"); !strings.HasPrefix(string(log), "flush\n") {
		t.Errorf("not flushed: %q", log)
	}
}

func TestSignalStopsInOrder(t *testing.T) {
	f := setup(t)
	st := f.mustStart(t)
	if err := syscall.Kill(st.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unmounted", func() bool { return !f.mounted(t) && len(f.list(t)) == 0 })
}

func TestUnmountedByHand(t *testing.T) {
	f := setup(t)
	f.mustStart(t)
	if err := syscall.Unmount(f.dir, 0); err != nil {
		t.Skip("may not unmount: ", err)
	}
	eventually(t, "daemon has ended", func() bool { return len(f.list(t)) == 0 })
	if log, _ := os.ReadFile(f.backing + ".log"); string(log) != "flush\nclose\n" {
		t.Errorf("asked of the filesystem: %q", log)
	}
}

// A connection cut by somebody else leaves no dead mount behind.
func TestAborted(t *testing.T) {
	f := setup(t)
	f.mustStart(t)
	var st syscall.Stat_t
	if err := syscall.Stat(f.dir, &st); err != nil {
		t.Fatal(err)
	}
	if err := abort(f.backing+".test", fmt.Sprint(unix.Minor(st.Dev))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "daemon has ended", func() bool { return len(f.list(t)) == 0 && !f.mounted(t) })
}

func TestForeignMountIsLeftAlone(t *testing.T) {
	f := setup(t)
	f.dir = "/proc"
	_, err := f.start("demo", "rw")
	wantKind(t, err, errs.Busy)
	_, err = f.umount(mountd.Force)
	wantKind(t, err, errs.NotExist)
	if !f.mounted(t) {
		t.Fatal("/proc is gone")
	}
	f.dir = f.backing // not a mount: nothing to clean up
}

func TestPrepare(t *testing.T) {
	f := setup(t)
	if already, err := f.reg.Prepare(context.Background(), f.config("demo", "rw")); already || err != nil {
		t.Fatal(already, err)
	}
	f.mustStart(t)
	if already, err := f.reg.Prepare(context.Background(), f.config("demo", "rw")); !already || err != nil {
		t.Fatal(already, err)
	}
}

func TestCanonical(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(base, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"abs": real, "rel": "real", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"real": real, "abs": real, "rel": real, "abs/new/dir": real + "/new/dir", "none/../rel": real,
	} {
		got, err := mountd.Canonical(filepath.Join(base, in))
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	if got, err := mountd.Canonical(filepath.Join(base, "loop")); err == nil {
		t.Errorf("loop: %s", got)
	}
}
