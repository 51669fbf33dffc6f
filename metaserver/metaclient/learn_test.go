package metaclient

import (
	"testing"

	"agentdrive/internal/rpc"
)

// Every server is asked in turn, however often one failure is told.
func TestEveryServerIsAsked(t *testing.T) {
	const group = 1
	for _, told := range []int{1, 2, 3} {
		servers := []string{"a:1", "b:1", "c:1"}
		c, err := New(Config{Servers: servers, Network: rpc.TCP{}})
		if err != nil {
			t.Fatal(err)
		}
		asked := map[string]bool{}
		for range servers {
			addr := c.presumed(group)
			asked[addr] = true
			for range told {
				c.learn(group, addr, "")
			}
		}
		if len(asked) != len(servers) {
			t.Errorf("with each failure told %d times only %v are asked", told, asked)
		}
	}
}

// A hint outlives the late news that the server that gave it hung up.
func TestHintOutlivesLateFailure(t *testing.T) {
	c, err := New(Config{Servers: []string{"a:1", "b:1", "c:1"}, Network: rpc.TCP{}})
	if err != nil {
		t.Fatal(err)
	}
	c.learn(1, "a:1", "c:1")
	c.unanswered(1, "a:1")
	if got := c.presumed(1); got != "c:1" {
		t.Errorf("asks %s, want the server of the hint", got)
	}
}
