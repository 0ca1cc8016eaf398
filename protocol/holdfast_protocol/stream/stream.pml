/*
 * One session's stream between client (shim) and keeper, over connections that may break at any
 * moment with bytes on the way, which a proxy may go on delivering; the client may be killed and
 * come back with a new id. Checked by spin (tests/models/test_spin.py); the code that it models:
 *   client.py   what the shim sends and acknowledges
 *   keeper.py   RESUME, detach, accepted, DATA after a position, GAP
 *   ../log.py   trimming: what is acknowledged, and the oldest at the limit
 *
 * Client messages are numbered from 1, log entries 1..ENTRIES. A connection is a pair of channels.
 *
 * Claims (assert): ONCE        each client message is applied once, in order
 *                  CONTIGUOUS  what the client is given goes on where it was, or is marked as gap
 *                  COMPLETE    when nothing is left to do, all that the living client wanted to
 *                              send was applied, and all that was logged was given or marked
 * Planted bugs, each found by the checker: compile with -DNO_DEDUPLICATION, -DNO_DETACH,
 * -DSILENT_TRIM, -DRESUME_FROM_WRITTEN, -DSTALE_BYTES, -DATTEMPTS_UNCHECKED.
 */
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif
#ifndef LIMIT
#define LIMIT 1            /* entries that the log holds */
#endif
#define CONNECTIONS 3      /* two breaks */
#define NOBODY CONNECTIONS

mtype = { RESUME, RESUMED, DATA, GAP, ACK };

/* up: RESUME(position, client id) DATA(number, client id) ACK(position, -)
   down: RESUMED(accepted, position) DATA(entry, after) GAP(last, after) */
chan up[CONNECTIONS] = [2] of { mtype, byte, byte };
chan down[CONNECTIONS] = [2] of { mtype, byte, byte };

/* client */
byte current = 0;          /* its connection, which is its attempt number too */
byte id = 1;
bool resuming = true;      /* RESUME is to be sent */
bool online = false;       /* RESUMED has come */
bool fresh = true;         /* no RESUMED for this id yet */
byte base = 0;             /* this id's messages are base + 1 .. base + MESSAGES */
byte sent = 0;
byte position = 0;         /* last entry given to the notebook */

/* keeper */
byte attached = NOBODY;
byte known = 0;            /* the client id of the session */
byte accepted = 0;
byte head = 0;
byte first = 1;            /* oldest entry that the log still has */
byte written = 0;          /* last entry or gap written to the attached connection */
byte acknowledged = 0;

byte applied = 0;          /* ghosts: what the kernel got, and how much of it from the present id */
byte applied_of_id = 0;

#ifdef STALE_BYTES
#define reads(c) (c <= current)
#else
#define reads(c) (c == current)
#endif

#ifdef NO_DETACH
#define is_read(c) true
#else
#define is_read(c) (c == attached)
#endif

#ifdef ATTEMPTS_UNCHECKED
#define is_newer(c) true
#else
#define is_newer(c) (attached == NOBODY || c > attached)
#endif

inline from_keeper(c) {
    if
    :: down[c]?RESUMED(a, b) ->
           online = true;
#ifdef NO_DEDUPLICATION
           sent = (fresh -> a : base);                       /* it asks not what was accepted */
#else
           sent = a;
#endif
           if
           :: fresh -> fresh = false; base = a; position = b
           :: else -> assert(b == position)
           fi
    :: down[c]?DATA(a, b) ->
           assert(b == position && a == b + 1);              /* CONTIGUOUS */
           position = a;
           if
           :: nfull(up[current]) -> up[current]!ACK(position, 0)
           :: true
           fi
    :: down[c]?GAP(a, b) ->
           assert(b == position && a > b);                   /* CONTIGUOUS */
           position = a
    fi
}

active proctype Client() {
    byte a, b;
end:
    do
    :: atomic { current < CONNECTIONS - 1 ->
           current++; resuming = true; online = false;
           if
           :: true
           :: id == 1 -> id = 2; fresh = true; applied_of_id = 0    /* killed, and started again */
           fi }
    :: atomic { resuming -> up[current]!RESUME(position, id); resuming = false }
    :: atomic { online && sent < base + MESSAGES && nfull(up[current]) ->
           sent++; up[current]!DATA(sent, id) }
    :: atomic { reads(0) && nempty(down[0]) -> from_keeper(0) }
    :: atomic { reads(1) && nempty(down[1]) -> from_keeper(1) }
    :: atomic { reads(2) && nempty(down[2]) -> from_keeper(2) }
    od
}

inline apply(n, who) {
#ifndef NO_DEDUPLICATION
    if
    :: n <= accepted
    :: else ->
#endif
           assert(n == applied + 1);                         /* ONCE */
           applied = n; accepted = n;
           applied_of_id = applied_of_id + (who == id -> 1 : 0)
#ifndef NO_DEDUPLICATION
    fi
#endif
}

inline attach(c, n, who) {
    attached = c;                                            /* the former is read no more */
    if
    :: who > known -> known = who; written = acknowledged    /* it knows no position */
#ifdef RESUME_FROM_WRITTEN
    :: else -> written = (written > n -> written : n)
#else
    :: else -> written = n
#endif
    fi;
    acknowledged = (written > acknowledged -> written : acknowledged);
    down[c]!RESUMED(accepted, written)
}

inline from_client(c) {
    if
    :: up[c]?RESUME(n, who) ->
           if
           :: is_newer(c) && who >= known -> attach(c, n, who)
           :: else                                           /* refused as gone */
           fi
    :: up[c]?DATA(n, who) ->
           if
           :: is_read(c) -> apply(n, who)
           :: else                                           /* discarded unread */
           fi
    :: up[c]?ACK(n, who) ->
           if
           :: c == attached && n > acknowledged ->
                  acknowledged = n;
                  first = (first > n -> first : n + 1)
           :: else
           fi
    fi
}

active proctype Keeper() {
    byte n, who;
end:
    do
    :: atomic { head < ENTRIES ->                            /* the kernel says something */
           head++;
           first = (head - first + 1 > LIMIT -> first + 1 : first) }
    :: atomic { nempty(up[0]) && nfull(down[0]) -> from_client(0) }
    :: atomic { nempty(up[1]) && nfull(down[1]) -> from_client(1) }
    :: atomic { nempty(up[2]) && nfull(down[2]) -> from_client(2) }
    :: atomic { attached != NOBODY && written < head && nfull(down[attached]) ->
           if
           :: first > written + 1 ->
#ifndef SILENT_TRIM
                  down[attached]!GAP(first - 1, written);
#endif
                  written = first - 1
           :: else ->
                  down[attached]!DATA(written + 1, written);
                  written++
           fi }
    :: atomic { attached != NOBODY && attached < current && full(down[attached]) ->
           attached = NOBODY }                               /* it notices the broken connection */
    od
}

active proctype Monitor() {
    timeout;
    assert(applied_of_id == MESSAGES && position == head)    /* COMPLETE */
}
