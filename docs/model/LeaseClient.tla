----------------------------- MODULE LeaseClient ----------------------------
(* The client core: answers upcalls, logs local operations, obeys the leader. *)
EXTENDS LeaseKernel

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
=============================================================================
