------------------------------- MODULE Leases -------------------------------
(* The whole: faults, the next step, and what must hold. README.md first. *)
EXTENDS LeaseServer

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

(* Progress. Every step uses something up, so a behaviour that goes on as long as
   it can ends quiet unless it deadlocks; stated as properties for live.cfg. *)
Fair == Spec /\ WF_vars(Next)
AcksArrive == \A s \in Session, o \in O : owed[s][o] # "no" ~> owed[s][o] = "no"
CallsReturn == \A s \in Session, x \in Slots : up[s][x] # NoUp ~> up[s][x] = NoUp
=============================================================================
