/*
 * One kernel's record, owner key and fences, with N proxies that may be paused, expired or killed
 * between any two steps. Checked by spin (tests/models/test_spin.py); the code that it models:
 *   claim                 ownership.py        decide_claim, and proxy/.../ownership/owner.py
 *   record and its steps  kernel_records.py   TRANSITIONS, next_step; starting.py, endings.py
 *   fences                fencing.py, launcher/holdfast_launcher/state/fences.py, keeper/fence.py
 *
 * etcd is a set of variables changed in one atomic step each, as its transactions are. A call to
 * launcher or keeper takes effect in a later step than the one that decided it: everything may
 * happen in between, which is what a pause or a slow network is. The lease's fence_at is left out
 * on purpose: safety must not need it.
 *
 * Claims (assert): EFFECT     no call takes effect once a later claim is in effect
 *                  AGREEMENT  when nothing is left to do, the record says what runs
 * Planted bugs, each found by the checker: compile with -DNO_LAUNCHER_FENCE, -DNO_KEEPER_FENCE,
 * -DBLIND_WRITE, -DTOMBSTONE_FIRST, -DNO_RESUME.
 */
#ifndef PROXIES
#define PROXIES 2
#endif
#ifndef CRASHES
#define CRASHES 2      /* proxies killed, at any step, and started again */
#endif
#ifndef PAUSES
#define PAUSES 2       /* leases that end while their proxy lives and does not know */
#endif

mtype = { NONE, STARTING, LAUNCHED, RUNNING, DELETING, TOMBSTONE };

/* etcd */
byte revision = 0;
mtype record = NONE;
byte record_rev = 0;
byte owner = 0;            /* proxy number, 0: no key */
byte owner_rev = 0;        /* its mod revision, the fencing token; 0: no key */

/* the launcher and the keeper that it forked; fences outlive the keeper at the launcher */
byte launcher_fence = 0;
byte keeper_fence = 0;
bool keeper = false;
bool kernel = false;

/* the world */
byte crashes = CRASHES;
byte pauses = PAUSES;
bool wanted = true;        /* a client's POST that is still to be made */
bool unwanted = false;     /* a client's DELETE that is still to be made */
bool alive[PROXIES + 1] = true;

/* A claim is in effect when launcher and keeper have both acknowledged its token. */
#define in_effect ((keeper && keeper_fence < launcher_fence) -> keeper_fence : launcher_fence)

inline effect(t) {
    assert(t >= in_effect)                /* EFFECT */
}

#ifdef BLIND_WRITE
#define mine_still true
#else
#define mine_still (record_rev == seen && owner_rev == token)
#endif

#ifdef NO_RESUME
#define claimable (record == RUNNING)
#else
#define claimable (record != NONE && record != TOMBSTONE)
#endif

/* A write of the record: compares its revision and the owner key, as KernelWriter does. */
inline write_record(next) {
    atomic {
        if
        :: mine_still -> revision++; record = next; record_rev = revision
        :: else -> token = 0
        fi
    }
}

inline may_crash() {
    if
    :: true
    :: atomic { crashes > 0 -> crashes--; alive[me] = false; goto dead }
    fi
}

proctype Proxy(byte me) {
    byte token = 0, seen = 0, observed = 0;
    mtype state = NONE;
idle:
    token = 0; seen = 0; observed = 0; state = NONE;
    if
    /* POST: record and owner key in one transaction */
    :: atomic { wanted && record == NONE && owner_rev == 0 ->
           wanted = false; unwanted = true;
           revision++; record = STARTING; record_rev = revision;
           owner = me; owner_rev = revision; token = revision }
    /* claim: nobody owns it, or a former process of ours did */
    :: atomic { claimable && (owner_rev == 0 || owner == me) -> observed = owner_rev }
       may_crash();
       atomic {
           if
           :: owner_rev == observed ->
                  revision++; owner = me; owner_rev = revision; token = revision
           :: else
           fi
       }
       /* the new owner's first calls, if they arrive: both acknowledge the token */
       may_crash();
       atomic { if :: token > launcher_fence -> launcher_fence = token :: true fi };
       may_crash();
       atomic { if :: keeper && token > keeper_fence -> keeper_fence = token :: true fi }
    fi;
work:
    may_crash();
    if
    :: token == 0 -> goto idle
    :: else
    fi;
    atomic { state = record; seen = record_rev };
    if
    :: state == STARTING ->
           may_crash();
           atomic {                                     /* launcher: PUT */
               if
#ifndef NO_LAUNCHER_FENCE
               :: token < launcher_fence -> token = 0; goto idle
#endif
               :: else ->
                      effect(token);
                      launcher_fence = token;
                      keeper_fence = (keeper -> keeper_fence : 0);
                      keeper = true
               fi
           }
           may_crash();
           write_record(LAUNCHED);
           goto work
    :: state == LAUNCHED ->
           may_crash();
           atomic {                                     /* keeper: start */
               if
               :: !keeper -> token = 0; goto idle
#ifndef NO_KEEPER_FENCE
               :: keeper && token < keeper_fence -> token = 0; goto idle
#endif
               :: else ->
                      effect(token);
                      keeper_fence = token;
                      kernel = true
               fi
           }
           may_crash();
           write_record(RUNNING);
           goto work
    :: state == RUNNING ->
           if                                           /* a client's DELETE, or a restart */
           :: atomic { unwanted -> unwanted = false }
              may_crash();
#ifdef TOMBSTONE_FIRST
              write_record(TOMBSTONE);
#else
              write_record(DELETING);
#endif
#ifdef TOMBSTONE_FIRST
              may_crash();
              atomic { if :: token != 0 -> keeper = false; kernel = false :: else fi };
              goto idle
#else
              goto work
#endif
           :: atomic { owner_rev != token -> goto idle }
           fi
    :: state == DELETING ->
           may_crash();
           atomic {                                     /* launcher: DELETE, by the keeper */
               if
#ifndef NO_LAUNCHER_FENCE
               :: token < launcher_fence -> token = 0; goto idle
#endif
#ifndef NO_KEEPER_FENCE
               :: token >= launcher_fence && keeper && token < keeper_fence ->
                      launcher_fence = keeper_fence; token = 0; goto idle
#endif
               :: else ->
                      effect(token);
                      launcher_fence = token;
                      keeper = false; kernel = false
               fi
           }
           may_crash();
           atomic {                                     /* tombstone, and the owner key goes */
               if
               :: mine_still ->
                      revision++; record = TOMBSTONE; record_rev = revision;
                      owner = 0; owner_rev = 0
               :: else
               fi
           }
           goto idle
    :: else -> goto idle
    fi;
dead:
    atomic { !alive[me] -> alive[me] = true; goto idle }
}

/* Leases end: at once when their proxy is dead, and now and then although it lives. */
proctype Leases() {
end:
    do
    :: atomic { owner != 0 && !alive[owner] -> owner = 0; owner_rev = 0 }
    :: atomic { owner != 0 && pauses > 0 -> pauses--; owner = 0; owner_rev = 0 }
    od
}

proctype Monitor() {
    timeout;
    /* AGREEMENT */
    assert(!wanted);
    assert((record == RUNNING && keeper && kernel) ||
           (record == TOMBSTONE && !keeper && !kernel))
}

init {
    byte n = 1;
    atomic {
        do
        :: n <= PROXIES -> run Proxy(n); n++
        :: else -> break
        od;
        run Leases();
        run Monitor()
    }
}
