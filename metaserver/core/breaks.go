package core

// breaks are rules switched off on purpose, for tests that must notice: the
// words are those of Config.Break.
type breaks struct {
	noWait            bool // S1-no-wait: a mutation is proposed without the acks
	noRecheck         bool // S1-no-recheck: what it touches is not looked at again
	queueReads        bool // S2-queue: reads wait for gates
	noConfirm         bool // S3-no-confirm: reads and renewals are answered unconfirmed
	grantContended    bool // S4-grant-contended: contention is not looked at
	noReclaimWait     bool // S5-no-wait: a new leader waits for nobody
	grantUndeclared   bool // S5-grant: it grants before everybody has declared
	logNoPin          bool // S6-log-no-pin: inodes born in a log are not pinned
	grantDespiteOther bool // S7-grant-despite-holder: Write is granted beside Read
	staleGrant        bool // G-stale-grant: answers older than a change are granted
	noQuery           bool // R-no-query: reads do not ask holders of Write
}

// Breaks lists the words that Config.Break knows.
var Breaks = []string{
	"S1-no-wait", "S1-no-recheck", "S2-queue", "S3-no-confirm", "S4-grant-contended", "S5-no-wait", "S5-grant",
	"S6-log-no-pin", "S7-grant-despite-holder", "G-stale-grant", "R-no-query",
}

func parseBreak(word string) breaks {
	return breaks{
		noWait:            word == "S1-no-wait",
		noRecheck:         word == "S1-no-recheck",
		queueReads:        word == "S2-queue",
		noConfirm:         word == "S3-no-confirm",
		grantContended:    word == "S4-grant-contended",
		noReclaimWait:     word == "S5-no-wait",
		grantUndeclared:   word == "S5-grant",
		logNoPin:          word == "S6-log-no-pin",
		grantDespiteOther: word == "S7-grant-despite-holder",
		staleGrant:        word == "G-stale-grant",
		noQuery:           word == "R-no-query",
	}
}
