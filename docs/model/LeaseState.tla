----------------------------- MODULE LeaseState -----------------------------
(* The lease protocol of docs/protocol.md: server core, client cores, and the
   kernel caches behind them. Read README.md of this folder first.

   Content is a version number: every change of the one name in directory "D"
   or of the content and attributes of file "F" adds one. A cache holds the
   version it was given; stale means: lower than one that some application has
   already seen. *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Session,      \* the mounts
  Starts,       \* leases at the start, a set of names: see StartLease
  Warm,         \* kernel caches at the start: "cold", "known" (inode only), "hot"
  MaxLook, MaxRead, MaxGetattr, MaxMutD, MaxMutF, MaxMutU,   \* upcalls in one behaviour
  MaxElect, MaxExpire, MaxBreak, MaxRelease, MaxForget, \* faults and events
  MaxLog,       \* unacknowledged log records of one session
  IncEpoch,     \* kernel has INC_EPOCH (>= 6.16)
  EvictCtr,     \* kernel distrusts replies older than the eviction of an inode
  Timeouts,     \* kernel timeouts may run out (FALSE: waiting for one counts as a deadlock)
  Broken        \* names of rules broken on purpose

VARIABLES
  ver,     \* committed version of each object
  lease,   \* leader memory: kind held by session, 0 none 1 Read 2 Write
  gate,    \* leader memory: who is in the gate of an object, or NoGate
  acked,   \* leader memory: sessions whose Names ack counts for the operation in the gate
  owed,    \* leader memory: mode of the outstanding recall, or "no"
  lead,    \* term of the leader: 0, then 1
  declared,\* sessions that the leader knows leases of (Reclaim), S5
  alive,   \* sessions not ended
  snap,    \* what the deposed leader believes
  conn,    \* term of the leader that the session's stream leads to
  held, know, pend, rec, trust, poisoned, \* client core
  up,      \* upcalls: two slots a session, "d" holds the directory lock, "f" works on the file
  s2c,     \* frames to the client, in order
  ackMsg, relMsg,                         \* frames to the server
  kern,    \* kernel caches
  done,    \* highest version that any application was answered with
  bud      \* what is left of the budgets

server == <<ver, lease, gate, acked, owed, lead, declared, alive, snap>>
client == <<conn, held, know, pend, rec, trust, poisoned>>
wires  == <<s2c, ackMsg, relMsg>>
vars == <<ver, lease, gate, acked, owed, lead, declared, alive, snap, conn, held,
          know, pend, rec, trust, poisoned, up, s2c, ackMsg, relMsg, kern, done, bud>>

O == {"D", "F"}
Slots == {"d", "f"}
Z == [D |-> 0, F |-> 0]
No == [D |-> FALSE, F |-> FALSE]
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b
OK(rule) == rule \notin Broken

NoGate == <<"none">>
Reads == {"look", "read", "getattr"}
Mutations == {"mutD", "mutU", "mutF"}
Objs(k) == CASE k \in {"look", "mutU"} -> O
             [] k = "mutD" -> {"D"}
             [] k \in {"read", "getattr", "mutF"} -> {"F"}
             [] OTHER -> {}
SlotOf(k) == IF k \in {"look", "mutD", "mutU"} THEN "d" ELSE "f"
NoUp == [k |-> "-", st |-> "-", lb |-> Z, v |-> Z, c |-> No, old |-> No,
         pre |-> No, tch |-> No, q |-> [D |-> "no", F |-> "no"],
         ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]
(* st of an upcall: acq, acqg: Acquire sent, in the gates; acqr: its reply under
   way; self: the client recalls itself (D4); net: sent; conf: read from the
   state under a confirmed leadership; gate: in its gates; prop: proposed; rep:
   reply under way; ans: the core has its answer; wr: written to the kernel,
   which has yet to apply it. *)
AtServer == {"acq", "acqg", "acqr", "net", "conf", "gate", "prop", "rep"}
Unanswered == AtServer \cup {"self"}

Other(x) == IF x = "d" THEN "f" ELSE "d"
SetUp(s, x, r) == up' = [up EXCEPT ![s][x] = r]
Touches(r, o) == \E n \in 1..Len(r) : o \in r[n]
CountPend(s, o) == Cardinality({n \in 1..Len(pend[s]) : o \in pend[s][n]})

(* A synchronous mutation of the session on o is between self-recall and reply. *)
Mutating(s, o) == \E x \in Slots : /\ up[s][x].k \in Mutations
                                   /\ up[s][x].st \in {"self", "net", "gate", "prop", "rep"}
                                   /\ o \in Objs(up[s][x].k)
SelfBlocked(s, o) == OK("D4") /\ Mutating(s, o)
CanAnswer(s, o) == /\ trust[s] /\ held[s][o] >= 1 /\ know[s][o] > 0
                   /\ rec[s][o] \in {"no", "down"} /\ ~SelfBlocked(s, o)
CanMutate(s, k) == /\ trust[s] /\ Len(pend[s]) < MaxLog
                   /\ \A o \in Objs(k) : /\ held[s][o] = 2 /\ know[s][o] > 0
                                         /\ rec[s][o] = "no" /\ ~Mutating(s, o)

-----------------------------------------------------------------------------
(* Start states. Leases are there already, so that few operations go far. *)
StartLease(n, s) ==
  CASE n[1] = "none"   -> Z
    [] n[1] = "readers" -> [D |-> 1, F |-> 1]
    [] n[1] = "writer" -> IF s = n[2] THEN [D |-> 2, F |-> 2] ELSE Z
    [] n[1] = "split"  -> IF s = n[2] THEN [D |-> 2, F |-> 0] ELSE IF s = n[3] THEN [D |-> 0, F |-> 2] ELSE Z
    [] n[1] = "dirread" -> IF s = n[2] THEN [D |-> 1, F |-> 2] ELSE [D |-> 1, F |-> 0]
    [] n[1] = "onereader" -> IF s = n[2] THEN [D |-> 1, F |-> 1] ELSE Z

StartSet == UNION {{<<n, a, b>> : a \in Session, b \in Session} : n \in Starts}

Init == \E n \in StartSet, warm \in Warm :
  /\ n[2] # n[3]
  /\ ver = [D |-> 1, F |-> 1]
  /\ lease = [s \in Session |-> StartLease(n, s)]
  /\ held = lease
  /\ know = [s \in Session |-> [o \in O |-> Min(lease[s][o], 1)]]
  /\ kern = [s \in Session |-> [kd |-> IF warm = "hot" /\ (IncEpoch \/ lease[s].D = 2) THEN Min(lease[s].D, 1) ELSE 0,
                                ka |-> IF warm = "hot" THEN Min(lease[s].F, 1) ELSE 0,
                                known |-> warm # "cold"]]
  /\ gate = [o \in O |-> NoGate] /\ acked = [o \in O |-> {}]
  /\ owed = [s \in Session |-> [o \in O |-> "no"]]
  /\ lead = 0 /\ declared = Session /\ alive = Session /\ snap = <<>>
  /\ conn = [s \in Session |-> 0]
  /\ pend = [s \in Session |-> <<>>] /\ rec = owed
  /\ trust = [s \in Session |-> TRUE] /\ poisoned = {}
  /\ up = [s \in Session |-> [x \in Slots |-> NoUp]]
  /\ s2c = [s \in Session |-> <<>>]
  /\ ackMsg = [s \in Session |-> No] /\ relMsg = [s \in Session |-> No]
  /\ done = ver
  /\ bud = [look |-> MaxLook, read |-> MaxRead, getattr |-> MaxGetattr, mutD |-> MaxMutD, mutF |-> MaxMutF,
            mutU |-> MaxMutU, elect |-> MaxElect, expire |-> MaxExpire, brk |-> MaxBreak,
            rel |-> MaxRelease, forget |-> MaxForget, log |-> 0]
=============================================================================
