package rpc

import (
	"bytes"
	"math"
	"testing"

	"agentdrive/internal/errs"
)

func TestPreambleGolden(t *testing.T) {
	p := Preamble{Group: 0x01020304, Cluster: ClusterID{0: 0xaa, 15: 0xbb}, Sender: 5}
	want := "\xadRFT\x01" + "\x01\x02\x03\x04" + "\xaa\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xbb" + "\x00\x00\x00\x05"
	got := AppendPreamble([]byte("x"), p)
	if string(got) != "x"+want {
		t.Errorf("preamble is %x, want %x", got[1:], want)
	}
	if len(want) != preambleSize {
		t.Errorf("size is %d, not %d", len(want), preambleSize)
	}
}

func FuzzDecodePreamble(f *testing.F) {
	good := AppendPreamble(nil, Preamble{Group: 1, Cluster: ClusterID{1}, Sender: math.MaxUint32})
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:28])
	f.Add(append(bytes.Clone(good), 0))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n....."))
	newer := bytes.Clone(good)
	newer[4] = 2
	f.Add(newer)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePreamble(b)
		if err != nil {
			if k := errs.KindOf(err); k != errs.Corrupt && k != errs.Version {
				t.Errorf("kind %v: %v", k, err)
			}
			return
		}
		if again := AppendPreamble(nil, p); !bytes.Equal(again, b) {
			t.Errorf("%x decodes, but encodes as %x", b, again)
		}
	})
}

func TestAnswers(t *testing.T) {
	for answer, want := range map[byte]errs.Kind{
		answerVersion: errs.Version, answerCluster: errs.Mismatch, answerGroup: errs.Unavailable,
		answerShutdown: errs.Unavailable, 99: errs.Corrupt,
	} {
		if err := answerError(answer, "peer:1", Preamble{}); !errs.Is(err, want) || !bytes.Contains([]byte(err.Error()), []byte("peer:1")) {
			t.Errorf("answer %d gives %v, want kind %v", answer, err, want)
		}
	}
	if err := answerError(answerWelcome, "", Preamble{}); err != nil {
		t.Error(err)
	}
}
