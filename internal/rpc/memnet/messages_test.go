package memnet

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// drain delivers everything and returns it as "from>to:body@at", duplicates
// marked with +.
func drain(m *Messages) []string {
	var out []string
	for {
		msg, ok := m.Step()
		if !ok {
			return out
		}
		out = append(out, show(msg))
	}
}

func show(msg Message) string {
	mark := ""
	if msg.Copy {
		mark = "+"
	}
	return fmt.Sprintf("%s>%s:%s@%d%s", msg.From, msg.To, msg.Body, msg.At, mark)
}

func TestMessagesPlain(t *testing.T) {
	m := NewMessages(1, MessagesConfig{})
	for i := range 3 {
		m.Send("a", "b", fmt.Append(nil, i))
		m.Send("b", "a", fmt.Append(nil, i))
	}
	want := "a>b:0@0 b>a:0@0 a>b:1@0 b>a:1@0 a>b:2@0 b>a:2@0"
	if got := strings.Join(drain(m), " "); got != want {
		t.Errorf("got %s", got)
	}
	if _, ok := m.Next(); ok {
		t.Error("something is left")
	}
}

// TestMessagesReplay: the same seed and calls give the same history, another
// seed another.
func TestMessagesReplay(t *testing.T) {
	run := func(seed uint64) ([]string, Stats) {
		m := NewMessages(seed, MessagesConfig{MinDelay: 1, MaxDelay: 50, Drop: 0.2, Duplicate: 0.2, Reorder: true})
		rng := rand.New(rand.NewPCG(seed, 7))
		hosts := []string{"a", "b", "c"}
		var out []string
		for i := range 500 {
			x, y := hosts[rng.IntN(3)], hosts[rng.IntN(3)]
			switch rng.IntN(20) {
			case 0:
				m.Partition(x, y)
			case 1:
				m.Heal(x, y)
			case 2:
				m.Discard(x, y)
			case 3:
				m.AdvanceTo(m.Now()+rng.Int64N(30), func(msg Message) { out = append(out, show(msg)) })
			default:
				m.Send(x, y, fmt.Append(nil, i))
			}
		}
		for _, x := range hosts {
			for _, y := range hosts {
				m.Heal(x, y)
			}
		}
		return append(out, drain(m)...), m.Stats()
	}
	first, stats := run(42)
	again, _ := run(42)
	other, _ := run(43)
	if !reflect.DeepEqual(first, again) {
		t.Error("seed 42 does not replay")
	}
	if reflect.DeepEqual(first, other) {
		t.Error("seeds 42 and 43 give the same history")
	}
	if stats.Sent+stats.Duplicated != stats.Delivered+stats.Dropped || stats.Dropped == 0 || stats.Duplicated == 0 {
		t.Errorf("counters are %+v", stats)
	}
}

// TestMessagesLaws runs seeded schedules and checks what each link promises.
func TestMessagesLaws(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cfg := MessagesConfig{MinDelay: rng.Int64N(5), Reorder: rng.IntN(2) == 0, Hold: rng.IntN(2) == 0}
		cfg.MaxDelay = cfg.MinDelay + rng.Int64N(40)
		m := NewMessages(seed, cfg)
		blocked := false
		last, lastAt, delivered, sent := -1, int64(0), 0, 0
		check := func(msg Message) {
			var i int
			fmt.Sscan(string(msg.Body), &i)
			delivered++
			switch {
			case blocked:
				t.Fatalf("seed %d: message %d crossed a partition", seed, i)
			case msg.At < lastAt || m.Now() != msg.At:
				t.Fatalf("seed %d: time went from %d to %d, now is %d", seed, lastAt, msg.At, m.Now())
			case msg.At-msg.Sent < cfg.MinDelay:
				t.Fatalf("seed %d: message %d took %d", seed, i, msg.At-msg.Sent)
			case !cfg.Reorder && i < last:
				t.Fatalf("seed %d (%+v): message %d overtook %d", seed, cfg, last, i)
			}
			last, lastAt = i, msg.At
		}
		for range 300 {
			switch rng.IntN(10) {
			case 0:
				m.Partition("a", "b")
				blocked = true
			case 1, 2:
				m.Heal("a", "b")
				blocked = false
			case 3, 4:
				m.AdvanceTo(m.Now()+rng.Int64N(20), check)
				lastAt = m.Now()
			case 5:
				if at, ok := m.Next(); ok {
					msg, ok := m.Step()
					if !ok || msg.At != at {
						t.Fatalf("seed %d: Next said %d, Step %d", seed, at, msg.At)
					}
					check(msg)
				}
			default:
				m.Send("a", "b", fmt.Append(nil, sent))
				sent++
			}
		}
		m.Heal("a", "b")
		blocked = false
		m.AdvanceTo(m.Now()+1000, check)
		if lost := int(m.Stats().Dropped); m.Pending() != 0 || delivered+lost != sent || cfg.Hold && lost > 0 {
			t.Fatalf("seed %d (%+v): sent %d, delivered %d, lost %d, pending %d", seed, cfg, sent, delivered, lost, m.Pending())
		}
	}
}

// TestMessagesLooking: looking at what comes next changes nothing.
func TestMessagesLooking(t *testing.T) {
	m := NewMessages(1, MessagesConfig{MinDelay: 10, MaxDelay: 10})
	m.Send("a", "b", []byte("1"))
	m.Partition("a", "b")
	if at, ok := m.Next(); ok {
		t.Errorf("a blocked message is announced for %d", at)
	}
	m.Heal("a", "b") // before it would have arrived: it is not lost
	if got := drain(m); !reflect.DeepEqual(got, []string{"a>b:1@10"}) {
		t.Errorf("got %v", got)
	}
}

func TestMessagesDiscard(t *testing.T) {
	m := NewMessages(1, MessagesConfig{Hold: true})
	m.Partition("a", "b")
	m.Send("a", "b", []byte("held"))
	m.AdvanceTo(5, func(Message) { t.Error("delivered over a partition") })
	m.Send("b", "a", []byte("on its way"))
	m.Send("a", "c", []byte("other"))
	if got := m.Discard("b", "a"); got != 2 {
		t.Errorf("discarded %d, want 2", got)
	}
	m.Heal("a", "b")
	if got := drain(m); !reflect.DeepEqual(got, []string{"a>c:other@5"}) {
		t.Errorf("got %v", got)
	}
}

func TestMessagesLinkAndDuplicates(t *testing.T) {
	m := NewMessages(3, MessagesConfig{})
	m.SetLink("a", "b", MessagesConfig{Duplicate: 1})
	m.SetLink("b", "a", MessagesConfig{Drop: 1})
	m.Send("a", "b", []byte("x"))
	m.Send("b", "a", []byte("y"))
	if got := drain(m); !reflect.DeepEqual(got, []string{"a>b:x@0", "a>b:x@0+"}) {
		t.Errorf("got %v", got)
	}
	for name, f := range map[string]func(){
		"config": func() { NewMessages(1, MessagesConfig{MinDelay: 2, MaxDelay: 1}) },
		"time":   func() { m.AdvanceTo(-1, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
