package sim

// unnoticed are rules that no schedule can tell from their absence by what
// applications see, with the reason.
var unnoticed = map[string]string{
	"S4-grant-contended": "it costs time, not truth",
}

// knownSeeds are seeds that noticed a broken rule when this was written (see
// table_test.go). They move with the cores and the generator: a rule whose seed
// has moved away is looked for in others.
var knownSeeds = map[string]uint64{}
