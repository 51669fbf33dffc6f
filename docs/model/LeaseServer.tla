----------------------------- MODULE LeaseServer ----------------------------
(* The server core: gates, recalls, reads, grants, the log. *)
EXTENDS LeaseClient

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
=============================================================================
