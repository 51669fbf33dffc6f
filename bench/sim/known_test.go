package sim

// unnoticed are rules that no schedule can tell from their absence by what
// applications see, with the reason.
var unnoticed = map[string]string{
	"S4-grant-contended": "it costs time, not truth",
	"S5-grant":           "reads and Acquires wait for declarations anyway (`S5-no-wait`)",
	"keep-after-recall":  "the adapter drops pages of READs that an invalidation overtook, and times of modification tell",
}

// knownSeeds are seeds that noticed a broken rule when this was written (see
// table_test.go). They move with the cores and the generator: a rule whose seed
// has moved away is looked for in others.
var knownSeeds = map[string]uint64{}
