------------------------------- MODULE Leases -------------------------------
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

-----------------------------------------------------------------------------
(* The kernel calls, the client core answers or sends. *)

Start(s, k, r) == /\ up[s][SlotOf(k)] = NoUp
                  /\ s \notin poisoned
                  /\ bud[k] > 0
                  /\ bud' = [bud EXCEPT ![k] = @ - 1]
                  /\ SetUp(s, SlotOf(k), [r EXCEPT !.k = k, !.lb = done])

(* The kernel asks only for what it does not know. *)
KernelAsks(s, k) == CASE k = "look" -> kern[s].kd = 0
                      [] k \in {"read", "getattr"} -> kern[s].known /\ kern[s].ka = 0
                      [] k = "mutF" -> kern[s].known
                      [] OTHER -> TRUE

localRead(s, k) ==
  /\ KernelAsks(s, k)
  /\ \A o \in Objs(k) : CanAnswer(s, o)
  /\ Start(s, k, [NoUp EXCEPT !.st = "ans",
                    !.v = [o \in O |-> IF o \in Objs(k) THEN know[s][o] ELSE 0],
                    !.c = [o \in O |-> o \in Objs(k)]])
  /\ UNCHANGED <<server, client, wires, kern, done>>

(* A local operation takes its place in the log when it is answered. *)
Logged(s, k) ==
  /\ know' = [know EXCEPT ![s] = [o \in O |-> IF o \in Objs(k) THEN @[o] + 1 ELSE @[o]]]
  /\ pend' = [pend EXCEPT ![s] = Append(@, Objs(k))]
LoggedAnswer(s, k, r) ==
  [r EXCEPT !.st = "ans", !.v = [o \in O |-> IF o \in Objs(k) THEN know[s][o] + 1 ELSE 0],
            !.c = [o \in O |-> o \in Objs(k)]]

localOp(s, k) ==
  /\ KernelAsks(s, k) /\ CanMutate(s, k)
  /\ Start(s, k, LoggedAnswer(s, k, NoUp))
  /\ Logged(s, k)
  /\ UNCHANGED <<server, conn, held, rec, trust, poisoned, wires, kern, done>>

(* Everything else goes to the server: reads at once; mutations ask for Write
   first (D2), or go synchronously after the client recalled itself (D4). *)
MarkOld(r, os) == [r EXCEPT !.old = [o \in O |-> @[o] \/ (r.st = "ans" /\ o \in os)]]

kernelLookup(s, k) ==
  /\ k \in Reads /\ KernelAsks(s, k)
  /\ ~\A o \in Objs(k) : CanAnswer(s, o)
  /\ Start(s, k, [NoUp EXCEPT !.st = "net"])
  /\ UNCHANGED <<server, client, wires, kern, done>>

kernelMutation(s, k, st) ==
  /\ k \in Mutations /\ KernelAsks(s, k)
  /\ st = "acq" => \E o \in Objs(k) : held[s][o] < 2
  /\ Start(s, k, [NoUp EXCEPT !.st = st])
  /\ UNCHANGED <<server, client, wires, kern, done>>

-----------------------------------------------------------------------------
(* Invalidation in the kernel: C4, C5, C6. Each gives the new kern and up, or is
   not possible yet. own is the slot whose upcall is being sent (D4), or "-". *)

AnsweredOld(s, o) == \E x \in Slots : up[s][x].st = "ans" /\ up[s][x].old[o]

(* INVAL_INODE(F). ENOENT while a reply that brings the inode is being applied. *)
kernelInvalInode(s, own) ==
  /\ OK("C4wait") => ~AnsweredOld(s, "F")
  /\ IF kern[s].known
     THEN /\ up[s]["f"].k = "read" => own = "f"                   \* its folio is locked
          /\ ~OK("C6") => (up[s]["f"].k = "mutF" => own = "f")   \* C6 skips that range
          /\ kern' = [kern EXCEPT ![s].ka = 0]
          /\ up' = [up EXCEPT ![s] = [x \in Slots |-> IF @[x] = NoUp THEN NoUp ELSE [@[x] EXCEPT !.avo = TRUE]]]
     ELSE /\ OK("C4") => up[s]["d"].st # "wr"                     \* repeat
          /\ UNCHANGED <<kern, up>>

GaveName(s) == kern[s].kd > 0 \/ (up[s]["d"].st = "wr" /\ up[s]["d"].c["D"])

(* INVAL_ENTRY(D, name) wants the directory lock; INC_EPOCH does not. *)
kernelInvalEntry(s) ==
  /\ OK("C4wait") => ~AnsweredOld(s, "D")
  /\ IF ~GaveName(s) THEN UNCHANGED <<kern, up>>
     ELSE IF up[s]["d"] = NoUp THEN kern' = [kern EXCEPT ![s].kd = 0] /\ UNCHANGED up
     ELSE /\ IncEpoch /\ up[s]["d"].st \in Unanswered
          /\ kern' = [kern EXCEPT ![s].kd = 0]
          /\ up' = [up EXCEPT ![s]["d"].ke = TRUE]

(* D4: before a synchronous mutation leaves. Two steps where it touches both. *)
selfRecall(s, x) ==
  LET r == up[s][x] IN
  /\ r.st = "self" /\ r.k \in Mutations
  /\ ~OK("D4") \/ \A o \in Objs(r.k) : know[s][o] = 0
  /\ ~OK("D4") \/ ~GaveName(s) \/ "D" \notin Objs(r.k)
  /\ ~OK("D4") \/ "F" \notin Objs(r.k) \/ r.avo \/ ~kern[s].known
  /\ SetUp(s, x, [r EXCEPT !.st = "net", !.avo = FALSE])
  /\ UNCHANGED <<server, client, wires, kern, done, bud>>

selfForget(s, x, o) == \* knowledge first, with the epoch of the answers on their way
  LET r == up[s][x] IN
  /\ OK("D4") /\ r.st = "self" /\ o \in Objs(r.k) /\ know[s][o] > 0
  /\ know' = [know EXCEPT ![s][o] = 0]
  /\ up' = [up EXCEPT ![s] = [y \in Slots |-> IF y = x THEN @[y] ELSE MarkOld(@[y], {o})]]
  /\ UNCHANGED <<server, conn, held, pend, rec, trust, poisoned, wires, kern, done, bud>>

selfInval(s, x, o) ==
  LET r == up[s][x] IN
  /\ OK("D4") /\ r.st = "self" /\ o \in Objs(r.k) /\ know[s][o] = 0
  /\ \/ o = "D" /\ GaveName(s) /\ kernelInvalEntry(s)
     \/ o = "F" /\ kern[s].known /\ ~r.avo /\ kernelInvalInode(s, x)
  /\ UNCHANGED <<server, client, wires, done, bud>>

-----------------------------------------------------------------------------
(* Client core: answers to the kernel. *)

(* C1, C2, C3: what may be cached is decided when the reply is written. *)
answerUpcall(s, x) ==
  LET r == up[s][x]
      may(o) == /\ r.c[o]
                /\ OK("C1") => /\ trust[s] /\ ~r.old[o] /\ held[s][o] >= 1
                               /\ rec[s][o] \in {"no", "down"}
                               /\ (OK("D4") => ~Mutating(s, o))
                /\ (o = "D" /\ ~IncEpoch) => held[s].D = 2
                /\ (o = "F" /\ r.k \in Mutations) => ~OK("C2")
  IN /\ r.st = "ans"
     /\ SetUp(s, x, [r EXCEPT !.st = "wr", !.c = [o \in O |-> may(o)], !.old = No])
     /\ UNCHANGED <<server, client, wires, kern, done, bud>>

kernelApplyReply(s, x) ==
  LET r == up[s][x]
      k == kern[s]
      brings == r.k \in {"look", "mutD"}     \* the reply carries the inode
      checked == r.avo /\ r.k \notin {"mutD"} /\ (k.known \/ EvictCtr)
      attr == CASE r.k \in {"mutU", "mutF"} -> 0
                [] checked -> k.ka
                [] r.c["F"] -> r.v["F"]
                [] OTHER -> 0
      name == IF SlotOf(r.k) = "f" THEN k.kd
              ELSE IF r.c["D"] /\ ~r.ke /\ r.k # "mutU" THEN r.v["D"] ELSE 0
      rest == [y \in Slots |-> IF y = x \/ up[s][y] = NoUp THEN NoUp
                               ELSE IF r.k \in {"mutF", "mutU"} THEN [up[s][y] EXCEPT !.avo = TRUE]
                               ELSE up[s][y]]
  IN /\ r.st = "wr"
     /\ up' = [up EXCEPT ![s] = rest]
     /\ kern' = [kern EXCEPT ![s] = [kd |-> name, ka |-> attr, known |-> k.known \/ brings]]
     \* attributes that the kernel discarded were seen by nobody
     /\ done' = [o \in O |-> IF o \in Objs(r.k) /\ ~(o = "F" /\ checked /\ r.k \in Reads)
                             THEN Max(done[o], r.v[o]) ELSE done[o]]
     /\ UNCHANGED <<server, client, wires, bud>>

kernelForget(s) ==
  /\ bud.forget > 0 /\ kern[s].known /\ up[s]["f"] = NoUp
  /\ kern' = [kern EXCEPT ![s] = [kd |-> 0, ka |-> 0, known |-> FALSE]]
  /\ up' = [up EXCEPT ![s]["d"] = IF @ = NoUp THEN @ ELSE [@ EXCEPT !.avo = TRUE]]
  /\ bud' = [bud EXCEPT !.forget = @ - 1]
  /\ UNCHANGED <<server, client, wires, done>>

kernelTimeout(s) ==
  /\ Timeouts /\ kern[s].kd > 0
  /\ kern' = [kern EXCEPT ![s].kd = 0]
  /\ UNCHANGED <<server, client, wires, up, done, bud>>

-----------------------------------------------------------------------------
(* Client core: frames of the leader. *)

HeadIs(s, t) == s2c[s] # <<>> /\ Head(s2c[s]).t = t
Pop(s) == s2c' = [s2c EXCEPT ![s] = Tail(@)]

(* Grants count unless the client released the object after the request left. *)
Counts(r, m, o) == m.g[o] > 0 /\ (OK("ReleaseCross") => ~r.pre[o])

onReply(s) ==
  /\ HeadIs(s, "reply")
  /\ LET m == Head(s2c[s])
         x == m.x
         r == up[s][x]
         h == [o \in O |-> IF Counts(r, m, o) THEN Max(held[s][o], m.g[o]) ELSE held[s][o]]
         fresh(o) == /\ Counts(r, m, o) /\ rec[s][o] = "no"
                     /\ (OK("D4") => ~\E y \in Slots : y # x /\ up[s][y].k \in Mutations
                                         /\ up[s][y].st \in {"self", "net", "gate", "prop", "rep"}
                                         /\ o \in Objs(up[s][y].k))
         mine == r.k \in Mutations /\ r.st = "rep"
         \* what the table knows wins, except over replies to own mutations
         table(o) == ~mine /\ CanAnswer(s, o)
         val == [o \in O |-> IF table(o) /\ m.v[o] > 0 THEN know[s][o] ELSE m.v[o]]
     IN /\ r.st \in {"rep", "acqr"}
        /\ held' = [held EXCEPT ![s] = h]
        /\ know' = [know EXCEPT ![s] = [o \in O |->
              IF m.v[o] > 0 /\ fresh(o) /\ ~table(o) THEN m.v[o]
              ELSE IF mine /\ o \in Objs(r.k) THEN 0 ELSE @[o]]]
        /\ SetUp(s, x, IF r.st = "acqr" THEN [r EXCEPT !.st = "acqd", !.pre = No]
                       ELSE [r EXCEPT !.st = "ans", !.v = val, !.pre = No, !.tch = No, !.q = NoUp.q, !.cm = FALSE,
                                      !.c = [o \in O |-> m.v[o] > 0 /\ (fresh(o) \/ table(o) \/ (mine /\ o \notin Objs(r.k) /\ h[o] > 0))]])
  /\ Pop(s)
  /\ UNCHANGED <<server, conn, pend, rec, trust, poisoned, ackMsg, relMsg, kern, done, bud>>

(* After Acquire: local if everything was granted, else synchronous. *)
onGrant(s, x) ==
  LET r == up[s][x] IN
  /\ r.st = "acqd"
  /\ IF CanMutate(s, r.k)
     THEN /\ SetUp(s, x, LoggedAnswer(s, r.k, r)) /\ Logged(s, r.k)
     ELSE /\ SetUp(s, x, [r EXCEPT !.st = "self", !.avo = FALSE]) /\ UNCHANGED <<know, pend>>
  /\ UNCHANGED <<server, conn, held, rec, trust, poisoned, wires, kern, done, bud>>

onRecall(s) ==
  /\ HeadIs(s, "recall")
  /\ LET m == Head(s2c[s]) IN
     /\ rec' = [rec EXCEPT ![s][m.o] = m.m]
     /\ up' = [up EXCEPT ![s] = [x \in Slots |-> IF m.m = "inv" THEN MarkOld(@[x], {m.o}) ELSE @[x]]]
  /\ Pop(s)
  /\ UNCHANGED <<server, conn, held, know, pend, trust, poisoned, ackMsg, relMsg, kern, done, bud>>

(* Query: answered once the log has gone up to the object's last operation. *)
onQuery(s) ==
  /\ HeadIs(s, "query")
  /\ LET m == Head(s2c[s]) IN
     /\ OK("Flush") => ~Touches(pend[s], m.o)
     /\ up' = IF up[m.s][m.x].q[m.o] = "sent" THEN [up EXCEPT ![m.s][m.x].q[m.o] = "ok"] ELSE up
  /\ Pop(s)
  /\ UNCHANGED <<server, client, ackMsg, relMsg, kern, done, bud>>

Flushed(s, o) == OK("Flush") => ~Touches(pend[s], o)

invalidate(s, o) ==
  /\ rec[s][o] = "inv" /\ Flushed(s, o)
  /\ IF o = "F" THEN kernelInvalInode(s, "-") ELSE kernelInvalEntry(s)
  /\ know' = [know EXCEPT ![s][o] = 0]
  /\ rec' = [rec EXCEPT ![s][o] = "invDone"]
  /\ UNCHANGED <<server, conn, held, pend, trust, poisoned, wires, done, bud>>

After(kind, o, m) == IF m = "inv" /\ o = "F" THEN 0 ELSE Min(kind, 1)

ackRecall(s, o) ==
  /\ \/ rec[s][o] = "invDone"
     \/ rec[s][o] = "down" /\ Flushed(s, o)
  /\ held' = [held EXCEPT ![s][o] = After(@, o, IF rec[s][o] = "down" THEN "down" ELSE "inv")]
  /\ rec' = [rec EXCEPT ![s][o] = "no"]
  /\ ackMsg' = [ackMsg EXCEPT ![s][o] = TRUE]
  /\ UNCHANGED <<server, conn, know, pend, trust, poisoned, up, s2c, relMsg, kern, done, bud>>

(* Lease memory, or the end of a drain: nothing given is still running. *)
releaseLease(s, o) ==
  /\ bud.rel > 0 /\ held[s][o] > 0 /\ rec[s][o] = "no" /\ ~Touches(pend[s], o)
  /\ ~\E x \in Slots : up[s][x].st \in {"ans", "wr"} /\ o \in Objs(up[s][x].k)
  /\ IF o = "D" THEN kern[s].kd = 0 ELSE kern[s].ka = 0
  /\ ~relMsg[s][o]
  /\ held' = [held EXCEPT ![s][o] = 0]
  /\ know' = [know EXCEPT ![s][o] = 0]
  /\ relMsg' = [relMsg EXCEPT ![s][o] = TRUE]
  /\ up' = [up EXCEPT ![s] = [x \in Slots |-> IF @[x].st \in AtServer THEN [@[x] EXCEPT !.pre[o] = TRUE] ELSE @[x]]]
  /\ bud' = [bud EXCEPT !.rel = @ - 1]
  /\ UNCHANGED <<server, conn, pend, rec, trust, poisoned, s2c, ackMsg, kern, done>>

-----------------------------------------------------------------------------
(* Server core. *)

AtLeader(s) == conn[s] = lead /\ s \in alive
Undeclared == alive \ declared
(* S5: until all have reclaimed, only what the session itself holds Write on. *)
Reclaimed(s, k) == \/ Undeclared = {}
                   \/ ~OK("S5")
                   \/ s \in declared /\ \A o \in Objs(k) : lease[s][o] = 2
(* Frames of a stream are in order: a request behind a Release is read after it. *)
InOrder(s, r) == \A o \in O : relMsg[s][o] => r.pre[o]

Holders(s, o, kind) == {t \in alive \ {s} : lease[t][o] >= kind}

gateEnter(s, x) ==
  LET r == up[s][x] IN
  /\ r.k \in Mutations /\ r.st \in {"net", "acq"}
  /\ AtLeader(s) /\ Reclaimed(s, r.k) /\ InOrder(s, r)
  /\ pend[s] = <<>>                         \* after=
  /\ IF r.cm
     THEN /\ SetUp(s, x, [r EXCEPT !.st = "rep"])     \* recorded outcome
          /\ s2c' = [s2c EXCEPT ![s] = Append(@, [t |-> "reply", x |-> x, v |-> r.v, g |-> Z])]
          /\ UNCHANGED <<gate, acked>>
     ELSE /\ \A o \in Objs(r.k) : gate[o] = NoGate
          /\ gate' = [o \in O |-> IF o \in Objs(r.k) THEN <<s, x>> ELSE gate[o]]
          /\ acked' = [o \in O |-> IF o \in Objs(r.k) THEN {} ELSE acked[o]]
          /\ SetUp(s, x, [r EXCEPT !.st = IF r.st = "acq" THEN "acqg" ELSE "gate"])
          /\ UNCHANGED s2c
  /\ UNCHANGED <<ver, lease, owed, lead, declared, alive, snap, client, ackMsg, relMsg, kern, done, bud>>

(* planRecalls: what the operation in the gate still has to recall from t. *)
planRecalls(s, x, t, o) ==
  LET r == up[s][x] IN
  IF t = s \/ t \notin alive \/ o \notin Objs(r.k) \/ lease[t][o] = 0 THEN "no"
  ELSE IF r.st = "acqg" THEN IF o = "F" THEN "inv" ELSE IF lease[t][o] = 2 THEN "down" ELSE "no"
  ELSE IF o = "F" \/ t \notin acked[o] THEN "inv" ELSE "no"

Recalls(s, x) == {p \in Session \X O : planRecalls(s, x, p[1], p[2]) # "no"}

recall(s, x) ==
  LET new == {p \in Recalls(s, x) : owed[p[1]][p[2]] = "no"}
      frame(t, o) == IF <<t, o>> \in new THEN <<[t |-> "recall", o |-> o, m |-> planRecalls(s, x, t, o)]>> ELSE <<>>
  IN /\ up[s][x].st \in {"gate", "acqg"} /\ new # {} /\ conn[s] = lead
     /\ owed' = [t \in Session |-> [o \in O |-> IF <<t, o>> \in new THEN planRecalls(s, x, t, o) ELSE owed[t][o]]]
     /\ s2c' = [t \in Session |-> s2c[t] \o frame(t, "D") \o frame(t, "F")]
     /\ UNCHANGED <<ver, lease, gate, acked, lead, declared, alive, snap, client, up, ackMsg, relMsg, kern, done, bud>>

onAck(s, o) ==
  /\ ackMsg[s][o] /\ AtLeader(s)
  /\ lease' = [lease EXCEPT ![s][o] = After(@, o, owed[s][o])]
  /\ acked' = [acked EXCEPT ![o] = IF owed[s][o] = "inv" /\ gate[o] # NoGate THEN @ \cup {s} ELSE @]
  /\ owed' = [owed EXCEPT ![s][o] = "no"]
  /\ ackMsg' = [ackMsg EXCEPT ![s][o] = FALSE]
  /\ up' = [t \in Session |-> [x \in Slots |-> IF up[t][x].st = "conf" /\ conn[t] = lead THEN [up[t][x] EXCEPT !.tch[o] = TRUE] ELSE up[t][x]]]
  /\ UNCHANGED <<ver, gate, lead, declared, alive, snap, client, s2c, relMsg, kern, done, bud>>

onRelease(s, o) ==
  /\ relMsg[s][o] /\ AtLeader(s)
  /\ lease' = [lease EXCEPT ![s][o] = 0]
  /\ relMsg' = [relMsg EXCEPT ![s][o] = FALSE]
  /\ UNCHANGED <<ver, gate, acked, owed, lead, declared, alive, snap, client, up, s2c, ackMsg, kern, done, bud>>

Clear(s, x) == \A t \in alive, o \in Objs(up[s][x].k) : t # s => owed[t][o] = "no"
S1Holds(s, x) == OK("S1") => Recalls(s, x) = {} /\ Clear(s, x)

propose(s, x) ==
  /\ bud.elect > 0   \* only an election can come between
  /\ up[s][x].st = "gate" /\ conn[s] = lead /\ S1Holds(s, x)
  /\ SetUp(s, x, [up[s][x] EXCEPT !.st = "prop"])
  /\ UNCHANGED <<server, client, wires, kern, done, bud>>

(* Everything read and not yet answered notices the change (release sequence). *)
Touch(u, os) == [t \in Session |-> [y \in Slots |->
   IF u[t][y].st = "conf" /\ conn[t] = lead
   THEN [u[t][y] EXCEPT !.tch = [o \in O |-> @[o] \/ o \in os]] ELSE u[t][y]]]

(* The kind that a reply to s may grant on o: what the leader believes (view). *)
Grantable(v, s, o) ==
  IF \/ \E t \in Session \ {s} : t \in v.alive /\ v.lease[t][o] = 2
     \/ OK("GrantOwed") /\ v.owed[s][o] # "no"
  THEN 0
  ELSE IF v.lease[s][o] = 2 \/ (v.lease[s]["D"] = 2 /\ \A t \in Session \ {s} : t \in v.alive => v.lease[t][o] = 0) THEN 2
  ELSE 1
Now == [ver |-> ver, lease |-> lease, owed |-> owed, gate |-> gate, alive |-> alive]

opApplied(s, x) ==
  LET r == up[s][x]
      nv == [o \in O |-> IF o \in Objs(r.k) THEN ver[o] + 1 ELSE ver[o]]
      alone(o) == \A t \in alive \ {s} : lease[t][o] = 0
      top(o) == IF o \notin Objs(r.k) THEN 0
                ELSE IF OK("GrantOwed") /\ owed[s][o] # "no" THEN 0
                ELSE IF alone(o) THEN 2 ELSE Grantable(Now, s, o)
  IN /\ r.st = "prop" \/ (bud.elect = 0 /\ r.st = "gate" /\ S1Holds(s, x))
     /\ AtLeader(s)
     /\ \E g \in {Z, [o \in O |-> top(o)]} :
        /\ lease' = [lease EXCEPT ![s] = [o \in O |-> Max(@[o], g[o])]]
        /\ s2c' = [s2c EXCEPT ![s] = Append(@, [t |-> "reply", x |-> x, g |-> g,
              v |-> [o \in O |-> IF o \in Objs(r.k) THEN nv[o] ELSE IF r.k = "mutD" /\ ~OK("C2") THEN ver[o] ELSE 0]])]
     /\ ver' = nv
     /\ gate' = [o \in O |-> IF o \in Objs(r.k) THEN NoGate ELSE gate[o]]
     /\ acked' = [o \in O |-> IF o \in Objs(r.k) THEN {} ELSE acked[o]]
     /\ up' = Touch([up EXCEPT ![s][x] = [r EXCEPT !.st = "rep", !.cm = TRUE, !.v = [o \in O |-> IF o \in Objs(r.k) THEN nv[o] ELSE 0]]], Objs(r.k))
     /\ UNCHANGED <<owed, lead, declared, alive, snap, client, ackMsg, relMsg, kern, done, bud>>

(* Acquire: Write where nobody else holds anything, else an answer without. *)
answerAcquire(s, x) ==
  LET r == up[s][x]
      top(o) == IF o \in Objs(r.k) /\ (\A t \in alive \ {s} : lease[t][o] = 0) /\ (OK("GrantOwed") => owed[s][o] = "no") THEN 2 ELSE 0
      g == [o \in O |-> top(o)]
  IN /\ r.st = "acqg" /\ AtLeader(s) /\ S1Holds(s, x)
     /\ lease' = [lease EXCEPT ![s] = [o \in O |-> Max(@[o], g[o])]]
     /\ gate' = [o \in O |-> IF o \in Objs(r.k) THEN NoGate ELSE gate[o]]
     /\ acked' = [o \in O |-> IF o \in Objs(r.k) THEN {} ELSE acked[o]]
     /\ SetUp(s, x, [r EXCEPT !.st = "acqr"])
     /\ s2c' = [s2c EXCEPT ![s] = Append(@, [t |-> "reply", x |-> x, g |-> g,
           v |-> [o \in O |-> IF g[o] > 0 THEN ver[o] ELSE 0]])]
     /\ UNCHANGED <<ver, owed, lead, declared, alive, snap, client, ackMsg, relMsg, kern, done, bud>>

(* A read of something that another session holds Write on. *)
query(s, x, t, o) ==
  LET r == up[s][x] IN
  /\ r.k \in Reads /\ r.st = "net" /\ AtLeader(s) /\ o \in Objs(r.k) /\ InOrder(s, r) /\ Reclaimed(s, r.k)
  /\ t \in Holders(s, o, 2) /\ r.q[o] = "no" /\ owed[t][o] = "no"
  /\ \/ /\ up' = [up EXCEPT ![s][x].q[o] = "sent"]
        /\ s2c' = [s2c EXCEPT ![t] = Append(@, [t |-> "query", o |-> o, s |-> s, x |-> x])]
        /\ UNCHANGED owed
     \/ /\ owed' = [owed EXCEPT ![t][o] = "down"]
        /\ s2c' = [s2c EXCEPT ![t] = Append(@, [t |-> "recall", o |-> o, m |-> "down"])]
        /\ UNCHANGED up
  /\ UNCHANGED <<ver, lease, gate, acked, lead, declared, alive, snap, client, ackMsg, relMsg, kern, done, bud>>

(* S3: the state is read under a leadership confirmed after the request came. *)
confirmRead(s, x) ==
  LET r == up[s][x]
      here == conn[s] = lead
      v == IF here THEN Now ELSE snap
  IN /\ r.k \in Reads /\ r.st = "net" /\ InOrder(s, r)
     /\ here \/ (~OK("S3") /\ snap # <<>>)
     /\ s \in v.alive
     /\ here => Reclaimed(s, r.k)
     /\ OK("After") => \A o \in Objs(r.k) : ~Touches(pend[s], o)   \* after=, for reads too
     /\ OK("Query") => \A o \in Objs(r.k) : (\E t \in v.alive \ {s} : v.lease[t][o] = 2) => r.q[o] = "ok"
     /\ ~OK("S2") => \A o \in Objs(r.k) : v.gate[o] = NoGate
     /\ SetUp(s, x, [r EXCEPT !.st = "conf", !.v = [o \in O |-> IF o \in Objs(r.k) THEN v.ver[o] ELSE 0], !.tch = No])
     /\ UNCHANGED <<server, client, wires, kern, done, bud>>

(* ReadDone: the answer leaves, perhaps from a leader deposed since. *)
answerRead(s, x) ==
  LET r == up[s][x]
      here == conn[s] = lead
      v == IF here THEN Now ELSE snap
      top(o) == IF \/ o \notin Objs(r.k) \/ v.gate[o] # NoGate
                   \/ (OK("Changed") /\ r.tch[o])
                THEN 0 ELSE Grantable(v, s, o)
  IN /\ r.k \in Reads /\ r.st = "conf"
     /\ here \/ snap # <<>>
     /\ s \in v.alive
     /\ \E g \in {Z, [o \in O |-> top(o)]} :
        /\ IF here THEN lease' = [lease EXCEPT ![s] = [o \in O |-> Max(@[o], g[o])]] /\ UNCHANGED snap
           ELSE snap' = [snap EXCEPT !.lease[s] = [o \in O |-> Max(@[o], g[o])]] /\ UNCHANGED lease
        /\ s2c' = [s2c EXCEPT ![s] = Append(@, [t |-> "reply", x |-> x, v |-> r.v, g |-> g])]
     /\ SetUp(s, x, [r EXCEPT !.st = "rep"])
     /\ UNCHANGED <<ver, gate, acked, owed, lead, declared, alive, client, ackMsg, relMsg, kern, done, bud>>

(* One record of the log: taken while its session holds Write, gates or not. *)
Returned(s, rc) == ~\E x \in Slots : up[s][x].st \in {"ans", "wr"} /\ up[s][x].k \in Mutations /\ Objs(up[s][x].k) = rc

onLog(s) ==
  /\ pend[s] # <<>> /\ AtLeader(s) /\ s \in declared
  /\ OK("LogOutruns") => Returned(s, Head(pend[s]))
  /\ ver' = [o \in O |-> IF o \in Head(pend[s]) THEN ver[o] + 1 ELSE ver[o]]
  /\ pend' = [pend EXCEPT ![s] = Tail(@)]
  /\ up' = Touch(up, Head(pend[s]))
  /\ UNCHANGED <<lease, gate, acked, owed, lead, declared, alive, snap, conn, held, know, rec, trust, poisoned, wires, kern, done, bud>>

-----------------------------------------------------------------------------
(* Faults. *)

becomeLeader ==
  /\ bud.elect > 0 /\ lead = 0
  /\ bud' = [bud EXCEPT !.elect = @ - 1]
  /\ lead' = 1 /\ declared' = {} /\ snap' = Now
  /\ lease' = [s \in Session |-> Z] /\ gate' = [o \in O |-> NoGate] /\ acked' = [o \in O |-> {}]
  /\ owed' = [s \in Session |-> [o \in O |-> "no"]]
  /\ \* what was proposed is in the new leader's log, or lost
     \E kept \in SUBSET {p \in Session \X Slots : up[p[1]][p[2]].st = "prop"} :
       LET hit(o) == \E p \in kept : o \in Objs(up[p[1]][p[2]].k) IN
       /\ ver' = [o \in O |-> IF hit(o) THEN ver[o] + 1 ELSE ver[o]]
       /\ up' = [s \in Session |-> [x \in Slots |->
             IF <<s, x>> \in kept
             THEN [up[s][x] EXCEPT !.cm = TRUE, !.v = [o \in O |-> IF o \in Objs(up[s][x].k) THEN ver[o] + 1 ELSE 0]]
             ELSE up[s][x]]]
  /\ UNCHANGED <<alive, client, wires, kern, done>>

(* Whoever waits for a Query that went down with the stream of s looks again. *)
AskAgain(s, t, x) ==
  LET asked(o) == \E n \in 1..Len(s2c[s]) : /\ s2c[s][n].t = "query" /\ s2c[s][n].s = t
                                            /\ s2c[s][n].x = x /\ s2c[s][n].o = o
  IN [up[t][x] EXCEPT !.q = [o \in O |-> IF asked(o) /\ @[o] = "sent" THEN "no" ELSE @[o]]]

(* A stream breaks and the session resumes, at the same leader or at the new
   one: frames under way are lost, requests are sent again under their ids, the
   server believes what Reclaim declares. Recalls of the old stream are void. *)
resume(s) ==
  /\ s \in alive
  /\ conn[s] < lead \/ bud.brk > 0
  /\ bud' = IF conn[s] < lead THEN bud ELSE [bud EXCEPT !.brk = @ - 1]
  /\ LET moved == conn[s] < lead
         again(r) ==
           CASE r.st \in {"net", "conf", "rep"} \/ (moved /\ r.st \in {"gate", "prop"}) ->
                  [r EXCEPT !.st = "net", !.pre = No, !.tch = No, !.q = NoUp.q, !.v = IF r.cm THEN @ ELSE Z]
             [] r.st \in {"acq", "acqr"} \/ (moved /\ r.st = "acqg") -> [r EXCEPT !.st = "acq", !.pre = No]
             [] OTHER -> [r EXCEPT !.pre = No]
     IN up' = [t \in Session |-> [x \in Slots |->
          IF t = s THEN again(up[t][x]) ELSE AskAgain(s, t, x)]]
  /\ conn' = [conn EXCEPT ![s] = lead]
  /\ s2c' = [s2c EXCEPT ![s] = <<>>]
  /\ ackMsg' = [ackMsg EXCEPT ![s] = No] /\ relMsg' = [relMsg EXCEPT ![s] = No]
  /\ rec' = [rec EXCEPT ![s] = [o \in O |-> "no"]]
  /\ owed' = [owed EXCEPT ![s] = [o \in O |-> "no"]]
  /\ lease' = [lease EXCEPT ![s] = [o \in O |->       \* reclaimLeases, onReclaim
        IF ~OK("ReclaimOwed") /\ rec[s][o] # "no" THEN After(held[s][o], o, "inv") ELSE held[s][o]]]
  /\ declared' = declared \cup {s}
  /\ UNCHANGED <<ver, gate, acked, lead, alive, snap, held, know, pend, trust, poisoned, kern, done>>

(* validUntil passes. What the kernel was given has run out before (C3: its
   timeouts end 2 s earlier, and it applies a reply within these 2 s). *)
leaseLost(s) ==
  /\ bud.expire > 0 /\ trust[s] /\ s \in alive
  /\ ~\E x \in Slots : up[s][x].st = "wr" /\ \E o \in O : up[s][x].c[o]
  /\ trust' = [trust EXCEPT ![s] = FALSE]
  /\ kern' = [kern EXCEPT ![s].kd = 0, ![s].ka = 0]
  /\ up' = [up EXCEPT ![s] = [x \in Slots |-> IF @[x] = NoUp THEN NoUp ELSE [@[x] EXCEPT !.ke = TRUE, !.avo = @ \/ up[s][x].st # "self"]]]
  /\ bud' = [bud EXCEPT !.expire = @ - 1]
  /\ UNCHANGED <<server, conn, held, know, pend, rec, poisoned, wires, done>>

onRenewed(s) ==
  /\ ~trust[s] /\ AtLeader(s)
  /\ trust' = [trust EXCEPT ![s] = TRUE]
  /\ UNCHANGED <<server, conn, held, know, pend, rec, poisoned, wires, up, kern, done, bud>>

(* The server's timer: never before the client's validUntil. What the session
   did not flush is gone; that counts as a change of the objects. *)
expireSessions(s) ==
  /\ s \in alive
  /\ \/ ~trust[s] /\ UNCHANGED bud
     \/ ~OK("Expiry") /\ trust[s] /\ bud.expire > 0 /\ bud' = [bud EXCEPT !.expire = @ - 1]
  /\ ~\E x \in Slots : up[s][x].st = "prop"
  /\ alive' = alive \ {s} /\ declared' = declared \ {s}
  /\ lease' = [lease EXCEPT ![s] = Z]
  /\ owed' = [owed EXCEPT ![s] = [o \in O |-> "no"]]
  /\ gate' = [o \in O |-> IF gate[o][1] = s THEN NoGate ELSE gate[o]]
  /\ LET lost == {o \in O : Touches(pend[s], o)} IN
     /\ ver' = [o \in O |-> IF o \in lost THEN Max(ver[o], know[s][o]) + 1 ELSE ver[o]]
     /\ up' = Touch([t \in Session |-> [x \in Slots |-> AskAgain(s, t, x)]], lost)
  /\ UNCHANGED <<acked, lead, snap, client, wires, kern, done>>

(* The client learns of it: everything is dropped, lost work says EIO. *)
evictSession(s) ==
  /\ s \notin alive /\ s \notin poisoned
  /\ poisoned' = poisoned \cup {s}
  /\ held' = [held EXCEPT ![s] = Z] /\ know' = [know EXCEPT ![s] = Z]
  /\ pend' = [pend EXCEPT ![s] = <<>>] /\ rec' = [rec EXCEPT ![s] = [o \in O |-> "no"]]
  /\ trust' = [trust EXCEPT ![s] = FALSE]
  /\ s2c' = [s2c EXCEPT ![s] = <<>>]
  /\ ackMsg' = [ackMsg EXCEPT ![s] = No] /\ relMsg' = [relMsg EXCEPT ![s] = No]
  /\ kern' = [kern EXCEPT ![s].kd = 0, ![s].ka = 0]
  /\ up' = [up EXCEPT ![s] = [x \in Slots |-> IF @[x].st = "wr" THEN @[x] ELSE NoUp]]
  /\ UNCHANGED <<server, conn, done, bud>>

-----------------------------------------------------------------------------
(* For readable traces. *)
Short(r) == IF r = NoUp THEN "-" ELSE [k |-> r.k, st |-> r.st, v |-> r.v, f |->
   {z \in {"cD", "cF", "oldD", "oldF", "ke", "avo", "cm"} :
      CASE z = "cD" -> r.c.D [] z = "cF" -> r.c.F [] z = "oldD" -> r.old.D [] z = "oldF" -> r.old.F
        [] z = "ke" -> r.ke [] z = "avo" -> r.avo [] z = "cm" -> r.cm}]
View == [ver |-> ver, done |-> done, gate |-> gate, lead |-> <<lead, conn, declared, alive, snap>>,
  s |-> [s \in Session |-> [lease |-> lease[s], held |-> held[s], know |-> know[s], pend |-> pend[s],
     rec |-> <<rec[s], owed[s], ackMsg[s], relMsg[s]>>, kern |-> kern[s], trust |-> trust[s], s2c |-> s2c[s],
     d |-> Short(up[s]["d"]), f |-> Short(up[s]["f"])]]]

Quiet == /\ \A s \in Session : /\ up[s] = [x \in Slots |-> NoUp]
                               /\ s2c[s] = <<>> /\ ackMsg[s] = No /\ relMsg[s] = No /\ pend[s] = <<>>
                               /\ s \in alive => \A o \in O : rec[s][o] = "no" /\ owed[s][o] = "no"
quiet == Quiet /\ UNCHANGED vars

Kernel(s) == \/ \E x \in Slots : kernelApplyReply(s, x)
             \/ kernelForget(s) \/ kernelTimeout(s)
             \/ \E k \in Reads : kernelLookup(s, k)
             \/ \E k \in Mutations, st \in {"acq", "self"} : kernelMutation(s, k, st)
Client(s) == \/ \E k \in Reads : localRead(s, k)
             \/ \E k \in Mutations : localOp(s, k)
             \/ onReply(s) \/ onRecall(s) \/ onQuery(s)
             \/ \E x \in Slots : \/ answerUpcall(s, x) \/ selfRecall(s, x) \/ onGrant(s, x)
                                 \/ \E o \in O : selfForget(s, x, o) \/ selfInval(s, x, o)
             \/ \E o \in O : invalidate(s, o) \/ ackRecall(s, o) \/ releaseLease(s, o)
Server(s) == \/ onLog(s)
             \/ \E o \in O : onAck(s, o) \/ onRelease(s, o)
             \/ \E x \in Slots : \/ gateEnter(s, x) \/ recall(s, x) \/ propose(s, x) \/ opApplied(s, x)
                                 \/ answerAcquire(s, x) \/ confirmRead(s, x) \/ answerRead(s, x)
                                 \/ \E t \in Session, o \in O : query(s, x, t, o)
Faults(s) == resume(s) \/ leaseLost(s) \/ onRenewed(s) \/ expireSessions(s) \/ evictSession(s)

Next == becomeLeader \/ quiet \/ \E s \in Session : Kernel(s) \/ Client(s) \/ Server(s) \/ Faults(s)
Spec == Init /\ [][Next]_vars
Symmetry == Permutations(Session)

-----------------------------------------------------------------------------
(* What must hold. *)

\* The kernel answers from its caches without asking anybody.
NoStaleKernel == \A s \in Session : /\ kern[s].kd > 0 => kern[s].kd >= done.D
                                    /\ kern[s].ka > 0 => kern[s].ka >= done.F
\* So does the client core.
NoStaleClient == \A s \in Session, o \in O : CanAnswer(s, o) => know[s][o] >= done[o]
\* No read returns less than what was known somewhere when it was called.
NoStaleAnswer == \A s \in Session, x \in Slots :
  up[s][x].st = "wr" /\ up[s][x].k \in Reads => \A o \in Objs(up[s][x].k) : up[s][x].v[o] >= up[s][x].lb[o]
\* Write excludes every other lease, for the server and for the clients that trust theirs.
Exclusive == \A s, t \in Session : \A o \in O : s # t =>
  /\ s \in alive /\ t \in alive /\ lease[s][o] = 2 => lease[t][o] = 0
  /\ trust[s] /\ trust[t] /\ held[s][o] = 2 => held[t][o] = 0
\* A record of a live session is never refused.
LogAccepted == \A s \in Session : s \in alive /\ s \in declared /\ conn[s] = lead /\ pend[s] # <<>> =>
  \A o \in Head(pend[s]) : lease[s][o] = 2
\* The Write holder knows the truth: the state and its own log behind it.
LocalTruth == \A s \in Session, o \in O :
  s \in alive /\ trust[s] /\ held[s][o] = 2 /\ know[s][o] > 0 /\ rec[s][o] \in {"no", "down"} /\ ~Mutating(s, o)
    => know[s][o] = ver[o] + CountPend(s, o)
\* What an application saw is in the state or in the log of a live session.
NothingLost == \A o \in O : \/ done[o] <= ver[o]
                            \/ \E s \in alive : done[o] <= ver[o] + CountPend(s, o)
=============================================================================
