package core

import (
	"flag"
	"fmt"
	"testing"

	"agentdrive/metaserver/meta"
)

var (
	traceSeed  = flag.Int64("trace.seed", 0, "replay this seed of TestRandom under leases and print it")
	traceTurns = flag.Int("trace.turns", 700, "turns of it")
	moreSeeds  = flag.Int64("trace.more", 0, "so many more seeds of TestRandom under leases")
	tracing    bool
)

// tracef prints a line of a replay.
func tracef(format string, args ...any) {
	if tracing {
		fmt.Printf(format+"\n", args...)
	}
}

func (w *world) traceEvent(ev Event) {
	if !tracing {
		return
	}
	switch x := ev.(type) {
	case FrameIn:
		tracef("%d >> %s", w.now, brief(x.Frame))
	case Request:
		tracef("%d request %d %s", w.now, x.ID, brief(x.Op))
	default:
		tracef("%d event %T %+v", w.now, ev, ev)
	}
}

func (w *world) traceEffect(e Effect) {
	if !tracing {
		return
	}
	switch x := e.(type) {
	case Send:
		tracef("%d    << %s", w.now, brief(x.Frame))
	case Answer:
		tracef("%d    answer %d %s %v", w.now, x.ID, brief(x.Result), x.Err)
	case PutBlock:
		tracef("%d    put %d of %d bytes", w.now, x.Token, len(x.Data))
	case Timer:
	default:
		tracef("%d    %T %+v", w.now, e, e)
	}
}

// brief renders a message without its data.
func brief(x any) string {
	switch o := x.(type) {
	case WriteFile:
		return fmt.Sprintf("WriteFile ino %d off %d len %d app %v sync %v wb %v", o.Ino, o.Off, len(o.Data), o.Append, o.Sync, o.Writeback)
	case *meta.Write:
		s := fmt.Sprintf("Write ino %d app %v", o.Ino, o.Append)
		for _, e := range o.Extents {
			s += fmt.Sprintf(" %d+%d k%d", e.Off, e.Len, e.Kind)
		}
		return s
	case *meta.MapResult:
		return fmt.Sprintf("Map v%d size %d covered %d n %d", o.Attr.DataVersion, o.Attr.Size, o.Covered, len(o.Extents))
	case *meta.AttrResult:
		return fmt.Sprintf("Attr ino %d v%d size %d m %d c %d off %d", o.Attr.Ino, o.Attr.DataVersion, o.Attr.Size, o.Attr.Mtime, o.Attr.Ctime, o.Off)
	case *meta.OpFrame:
		return fmt.Sprintf("Op %d after %d %T %s", o.ID, o.After, o.Op, brief(o.Op))
	case *meta.Reply:
		return fmt.Sprintf("Reply %d %s err %v grants %v", o.ID, brief(o.Outcome.Result), o.Outcome.Err, o.Grants)
	case *meta.Log:
		s := fmt.Sprintf("Log first %d:", o.First)
		for _, r := range o.Records {
			s += fmt.Sprintf(" [%d %s]", r.Now, brief(r.Op))
		}
		return s
	case *FilePlan:
		n := 0
		for _, p := range o.Pieces {
			n += int(p.Len)
		}
		return fmt.Sprintf("Plan v%d size %d len %d keep %v", o.Attr.DataVersion, o.Attr.Size, n, o.Keep)
	}
	return fmt.Sprintf("%T %+v", x, x)
}

// TestMoreSeeds is TestRandom for as long as one likes.
func TestMoreSeeds(t *testing.T) {
	for i := range *moreSeeds {
		runSeed(t, *traceSeed+i, *traceTurns, true)
	}
}

// TestSeed replays one random test and prints what happens in it.
func TestSeed(t *testing.T) {
	if *traceSeed == 0 || *moreSeeds > 0 {
		t.Skip("no -trace.seed")
	}
	tracing = true
	defer func() { tracing = false }()
	runSeed(t, *traceSeed, *traceTurns, true)
}
