package metatest

import (
	"reflect"
	"testing"
)

func TestFormatParse(t *testing.T) {
	ops := Gen(7, 300, Config{})
	got, err := Parse(Format(ops))
	if err != nil || !reflect.DeepEqual(got, ops) {
		t.Errorf("parsed text differs: %v", err)
	}
	if !reflect.DeepEqual(Gen(7, 300, Config{}), ops) {
		t.Error("the same seed gave other operations")
	}
	if reflect.DeepEqual(Gen(8, 300, Config{}), ops) {
		t.Error("another seed gave the same operations")
	}
	if _, err := Parse("{\n"); err == nil {
		t.Error("nonsense was parsed")
	}
}

// TestShrink looks for three operations that only fail together.
func TestShrink(t *testing.T) {
	ops := make([]Op, 100)
	for i := range ops {
		ops[i].Seed = uint64(i)
	}
	calls := 0
	small := Shrink(ops, func(ops []Op) bool {
		calls++
		need := 0
		for _, op := range ops {
			if op.Seed == 3 || op.Seed == 50 || op.Seed == 99 {
				need++
			}
		}
		return need == 3
	})
	if len(small) != 3 || calls > 600 {
		t.Errorf("%d operations left after %d calls", len(small), calls)
	}
}
