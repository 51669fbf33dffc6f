----------------------------- MODULE LeaseKernel ----------------------------
(* What the kernel does with a FUSE filesystem: it asks, applies replies late and
   without versions, forgets, and carries out notifications. *)
EXTENDS LeaseState

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

-----------------------------------------------------------------------------
(* Replies are applied some time after they were written. *)
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
=============================================================================
