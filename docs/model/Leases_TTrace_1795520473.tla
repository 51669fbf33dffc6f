---- MODULE Leases_TTrace_1795520473 ----
EXTENDS Sequences, TLCExt, Leases, Toolbox, Leases_TEConstants, Naturals, TLC

_expression ==
    LET Leases_TEExpression == INSTANCE Leases_TEExpression
    IN Leases_TEExpression!expression
----

_trace ==
    LET Leases_TETrace == INSTANCE Leases_TETrace
    IN Leases_TETrace!trace
----

_inv ==
    ~(
        TLCGet("level") = Len(_TETrace)
        /\
        trust = ((a :> TRUE @@ b :> TRUE @@ c :> TRUE))
        /\
        declared = ({a, b, c})
        /\
        conn = ((a :> 0 @@ b :> 0 @@ c :> 0))
        /\
        relMsg = ((a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]))
        /\
        ver = ([D |-> 2, F |-> 1])
        /\
        alive = ({a, b, c})
        /\
        kern = ((a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]))
        /\
        s2c = ((a :> <<>> @@ b :> <<>> @@ c :> <<>>))
        /\
        held = ((a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]))
        /\
        poisoned = ({})
        /\
        done = ([D |-> 2, F |-> 1])
        /\
        acked = ([D |-> {}, F |-> {}])
        /\
        lead = (0)
        /\
        bud = ([look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0])
        /\
        rec = ((a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]))
        /\
        ackMsg = ((a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]))
        /\
        owed = ((a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]))
        /\
        know = ((a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]))
        /\
        lease = ((a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]))
        /\
        gate = ([D |-> <<"none">>, F |-> <<"none">>])
        /\
        up = ((a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]))
        /\
        snap = (<<>>)
        /\
        pend = ((a :> <<>> @@ b :> <<>> @@ c :> <<>>))
    )
----

_init ==
    /\ done = _TETrace[1].done
    /\ know = _TETrace[1].know
    /\ lead = _TETrace[1].lead
    /\ trust = _TETrace[1].trust
    /\ alive = _TETrace[1].alive
    /\ snap = _TETrace[1].snap
    /\ conn = _TETrace[1].conn
    /\ pend = _TETrace[1].pend
    /\ rec = _TETrace[1].rec
    /\ relMsg = _TETrace[1].relMsg
    /\ ackMsg = _TETrace[1].ackMsg
    /\ lease = _TETrace[1].lease
    /\ ver = _TETrace[1].ver
    /\ poisoned = _TETrace[1].poisoned
    /\ declared = _TETrace[1].declared
    /\ bud = _TETrace[1].bud
    /\ gate = _TETrace[1].gate
    /\ kern = _TETrace[1].kern
    /\ up = _TETrace[1].up
    /\ acked = _TETrace[1].acked
    /\ s2c = _TETrace[1].s2c
    /\ held = _TETrace[1].held
    /\ owed = _TETrace[1].owed
----

_next ==
    /\ \E i,j \in DOMAIN _TETrace:
        /\ \/ /\ j = i + 1
              /\ i = TLCGet("level")
        /\ done  = _TETrace[i].done
        /\ done' = _TETrace[j].done
        /\ know  = _TETrace[i].know
        /\ know' = _TETrace[j].know
        /\ lead  = _TETrace[i].lead
        /\ lead' = _TETrace[j].lead
        /\ trust  = _TETrace[i].trust
        /\ trust' = _TETrace[j].trust
        /\ alive  = _TETrace[i].alive
        /\ alive' = _TETrace[j].alive
        /\ snap  = _TETrace[i].snap
        /\ snap' = _TETrace[j].snap
        /\ conn  = _TETrace[i].conn
        /\ conn' = _TETrace[j].conn
        /\ pend  = _TETrace[i].pend
        /\ pend' = _TETrace[j].pend
        /\ rec  = _TETrace[i].rec
        /\ rec' = _TETrace[j].rec
        /\ relMsg  = _TETrace[i].relMsg
        /\ relMsg' = _TETrace[j].relMsg
        /\ ackMsg  = _TETrace[i].ackMsg
        /\ ackMsg' = _TETrace[j].ackMsg
        /\ lease  = _TETrace[i].lease
        /\ lease' = _TETrace[j].lease
        /\ ver  = _TETrace[i].ver
        /\ ver' = _TETrace[j].ver
        /\ poisoned  = _TETrace[i].poisoned
        /\ poisoned' = _TETrace[j].poisoned
        /\ declared  = _TETrace[i].declared
        /\ declared' = _TETrace[j].declared
        /\ bud  = _TETrace[i].bud
        /\ bud' = _TETrace[j].bud
        /\ gate  = _TETrace[i].gate
        /\ gate' = _TETrace[j].gate
        /\ kern  = _TETrace[i].kern
        /\ kern' = _TETrace[j].kern
        /\ up  = _TETrace[i].up
        /\ up' = _TETrace[j].up
        /\ acked  = _TETrace[i].acked
        /\ acked' = _TETrace[j].acked
        /\ s2c  = _TETrace[i].s2c
        /\ s2c' = _TETrace[j].s2c
        /\ held  = _TETrace[i].held
        /\ held' = _TETrace[j].held
        /\ owed  = _TETrace[i].owed
        /\ owed' = _TETrace[j].owed

\* Uncomment the ASSUME below to write the states of the error trace
\* to the given file in Json format. Note that you can pass any tuple
\* to `JsonSerialize`. For example, a sub-sequence of _TETrace.
    \* ASSUME
    \*     LET J == INSTANCE Json
    \*         IN J!JsonSerialize("Leases_TTrace_1795520473.json", _TETrace)

=============================================================================

 Note that you can extract this module `Leases_TEExpression`
  to a dedicated file to reuse `expression` (the module in the 
  dedicated `Leases_TEExpression.tla` file takes precedence 
  over the module `Leases_TEExpression` below).

---- MODULE Leases_TEExpression ----
EXTENDS Sequences, TLCExt, Leases, Toolbox, Leases_TEConstants, Naturals, TLC

expression == 
    [
        \* To hide variables of the `Leases` spec from the error trace,
        \* remove the variables below.  The trace will be written in the order
        \* of the fields of this record.
        done |-> done
        ,know |-> know
        ,lead |-> lead
        ,trust |-> trust
        ,alive |-> alive
        ,snap |-> snap
        ,conn |-> conn
        ,pend |-> pend
        ,rec |-> rec
        ,relMsg |-> relMsg
        ,ackMsg |-> ackMsg
        ,lease |-> lease
        ,ver |-> ver
        ,poisoned |-> poisoned
        ,declared |-> declared
        ,bud |-> bud
        ,gate |-> gate
        ,kern |-> kern
        ,up |-> up
        ,acked |-> acked
        ,s2c |-> s2c
        ,held |-> held
        ,owed |-> owed
        
        \* Put additional constant-, state-, and action-level expressions here:
        \* ,_stateNumber |-> _TEPosition
        \* ,_doneUnchanged |-> done = done'
        
        \* Format the `done` variable as Json value.
        \* ,_doneJson |->
        \*     LET J == INSTANCE Json
        \*     IN J!ToJson(done)
        
        \* Lastly, you may build expressions over arbitrary sets of states by
        \* leveraging the _TETrace operator.  For example, this is how to
        \* count the number of times a spec variable changed up to the current
        \* state in the trace.
        \* ,_doneModCount |->
        \*     LET F[s \in DOMAIN _TETrace] ==
        \*         IF s = 1 THEN 0
        \*         ELSE IF _TETrace[s].done # _TETrace[s-1].done
        \*             THEN 1 + F[s-1] ELSE F[s-1]
        \*     IN F[_TEPosition - 1]
    ]

=============================================================================



Parsing and semantic processing can take forever if the trace below is long.
 In this case, it is advised to uncomment the module below to deserialize the
 trace from a generated binary file.

\*
\*---- MODULE Leases_TETrace ----
\*EXTENDS IOUtils, Leases, Leases_TEConstants, TLC
\*
\*trace == IODeserialize("Leases_TTrace_1795520473.bin", TRUE)
\*
\*=============================================================================
\*

---- MODULE Leases_TETrace ----
EXTENDS Leases, Leases_TEConstants, TLC

trace == 
    <<
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 1, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 1, read |-> 0, getattr |-> 0, mutD |-> 1, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 1, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 1, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 1, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<{"D"}>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 1, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "net", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<{"D"}>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 1, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<[x |-> "d", s |-> b, o |-> "D", t |-> "query"]>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "net", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "sent", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<{"D"}>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<[x |-> "d", s |-> b, o |-> "D", t |-> "query"]>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "net", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "sent", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "net", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "ok", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "conf", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 1], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "ok", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<[v |-> [D |-> 2, F |-> 1], x |-> "d", t |-> "reply", g |-> [D |-> 0, F |-> 0]]>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "look", st |-> "rep", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 1], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "ok", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> TRUE], k |-> "look", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 1], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 1, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> TRUE], k |-> "look", st |-> "wr", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 1], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)]),
    ([trust |-> (a :> TRUE @@ b :> TRUE @@ c :> TRUE),declared |-> {a, b, c},conn |-> (a :> 0 @@ b :> 0 @@ c :> 0),relMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),ver |-> [D |-> 2, F |-> 1],alive |-> {a, b, c},kern |-> (a :> [kd |-> 1, ka |-> 0, known |-> TRUE] @@ b :> [kd |-> 0, ka |-> 1, known |-> TRUE] @@ c :> [kd |-> 0, ka |-> 0, known |-> TRUE]),s2c |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>),held |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),poisoned |-> {},done |-> [D |-> 2, F |-> 1],acked |-> [D |-> {}, F |-> {}],lead |-> 0,bud |-> [look |-> 0, read |-> 0, getattr |-> 0, mutD |-> 0, mutF |-> 0, mutU |-> 0, elect |-> 0, expire |-> 0, brk |-> 0, rel |-> 0, forget |-> 0, log |-> 0],rec |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),ackMsg |-> (a :> [D |-> FALSE, F |-> FALSE] @@ b :> [D |-> FALSE, F |-> FALSE] @@ c :> [D |-> FALSE, F |-> FALSE]),owed |-> (a :> [D |-> "no", F |-> "no"] @@ b :> [D |-> "no", F |-> "no"] @@ c :> [D |-> "no", F |-> "no"]),know |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 1] @@ c :> [D |-> 0, F |-> 0]),lease |-> (a :> [D |-> 2, F |-> 0] @@ b :> [D |-> 0, F |-> 2] @@ c :> [D |-> 0, F |-> 0]),gate |-> [D |-> <<"none">>, F |-> <<"none">>],up |-> (a :> [d |-> [c |-> [D |-> TRUE, F |-> FALSE], k |-> "mutD", st |-> "ans", lb |-> [D |-> 1, F |-> 1], v |-> [D |-> 2, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ b :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]] @@ c :> [d |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE], f |-> [c |-> [D |-> FALSE, F |-> FALSE], k |-> "-", st |-> "-", lb |-> [D |-> 0, F |-> 0], v |-> [D |-> 0, F |-> 0], old |-> [D |-> FALSE, F |-> FALSE], pre |-> [D |-> FALSE, F |-> FALSE], tch |-> [D |-> FALSE, F |-> FALSE], q |-> [D |-> "no", F |-> "no"], ke |-> FALSE, avo |-> FALSE, cm |-> FALSE]]),snap |-> <<>>,pend |-> (a :> <<>> @@ b :> <<>> @@ c :> <<>>)])
    >>
----


=============================================================================

---- MODULE Leases_TEConstants ----
EXTENDS Leases

CONSTANTS a, b, c

=============================================================================

---- CONFIG Leases_TTrace_1795520473 ----
CONSTANTS
    Session = { a , b , c }
    Starts = { "none" , "readers" , "writer" , "split" , "dirread" , "onereader" }
    MaxLook = 1
    MaxRead = 0
    MaxMutD = 1
    MaxMutF = 0
    MaxMutU = 0
    MaxElect = 0
    MaxExpire = 0
    MaxBreak = 0
    MaxRelease = 0
    MaxForget = 0
    MaxLog = 1
    IncEpoch = TRUE
    EvictCtr = TRUE
    Timeouts = FALSE
    Broken = { }
    c = c
    b = b
    a = a

INVARIANT
    _inv

CHECK_DEADLOCK
    \* CHECK_DEADLOCK off because of PROPERTY or INVARIANT above.
    FALSE

INIT
    _init

NEXT
    _next

CONSTANT
    _TETrace <- _trace

ALIAS
    _expression
=============================================================================
\* Generated on Tue Nov 24 11:41:17 UTC 2026