package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var writeFlag = flag.Bool("sim.write", false, "find and shrink what notices each broken rule; write docs/SIMULATION.md and known_test.go")

const (
	tableDoc  = "../../docs/SIMULATION.md"
	knownFile = "known_test.go"
	tableMark = "<!-- table: go test ./bench/sim -run TestTable -sim.write -timeout 60m -->"
	tableEnd  = "<!-- end of table -->"
)

// TestTable writes the table of rules and seeds, if asked to.
func TestTable(t *testing.T) {
	if !*writeFlag {
		t.Skip("without -sim.write")
	}
	var table, known bytes.Buffer
	fmt.Fprintf(&table, "| Rule | Seed | Steps | Noticed as |\n|---|---|---|---|\n")
	for _, rule := range Rules() {
		if why := unnoticed[rule.String()]; why != "" {
			fmt.Fprintf(&table, "| `%v` | - | - | not noticed: %s |\n", rule, why)
			continue
		}
		row := "| `%v` | - | - | no seed found |\n"
		p, f := notice(rule)
		if p == nil {
			t.Errorf("no seed notices %v", rule)
			fmt.Fprintf(&table, row, rule)
			continue
		}
		small := Shrink(p, 60, func(q *Plan) bool {
			g := Run(q, rule, nil).Failure
			return g != nil && alike(f, g)
		})
		what, _, _ := strings.Cut(Run(small, rule, nil).Failure.What, "\n")
		fmt.Fprintf(&table, "| `%v` | %d | %d of %d | %s |\n", rule, p.Seed, len(small.Steps), len(p.Steps), strings.ReplaceAll(what, "|", "/"))
		fmt.Fprintf(&known, "\t%q: %d,\n", rule.String(), p.Seed)
		t.Logf("%v: seed %d, %d of %d steps", rule, p.Seed, len(small.Steps), len(p.Steps))
	}
	doc, err := os.ReadFile(tableDoc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), tableMark)
	_, foot, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", tableDoc)
	}
	write(t, tableDoc, head+tableMark+"\n\n"+table.String()+"\n"+tableEnd+foot)
	src, err := os.ReadFile(knownFile)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ = strings.Cut(string(src), "var knownSeeds")
	write(t, knownFile, head+"var knownSeeds = map[string]uint64{\n"+known.String()+"}\n")
}

// notice finds the first seed that notices a broken rule.
func notice(rule Rule) (*Plan, *Failure) {
	for _, seed := range ruleSeeds(rule) {
		p := NewPlan(seed)
		if f := Run(p, rule, nil).Failure; f != nil {
			return p, f
		}
	}
	return nil, nil
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
