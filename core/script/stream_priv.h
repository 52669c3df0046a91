/* Streams as scripts see them: what their parts share (lib_stream.c, stream_read.c, filter.c,
 * lib_socket.c).
 *
 * A stream has a source it reads from, a destination it writes to, or both. Each is a relay of a
 * connection, a relay of a socket (ps.tcp), or the queue between two filters. Nothing of it closes
 * a connection: errors of its sockets are the connection's business; a read that meets one just
 * never returns, and the end of the connection cancels it. */
#ifndef PENSTOCK_SCRIPT_STREAM_PRIV_H
#define PENSTOCK_SCRIPT_STREAM_PRIV_H

#include <sys/types.h>

#include "penstock/base/buf.h"
#include "script_priv.h"

enum {
    STREAM_LINE_MAX = 64 * 1024,    /* default of line, lines, upto, peek_line */
    STREAM_FRAME_MAX = 1024 * 1024, /* default of frame */
    STREAM_READ_MAX = 64 << 20,     /* what a script may ask to be gathered at most */
    STREAM_DELIM_MAX = 32,
    STREAM_TURN_BYTES = 256 * 1024, /* read in one go; then others have their turn */
};

enum read_kind {
    READ_SOME,      /* what there is, up to `max` */
    READ_EXACTLY,   /* `max` bytes */
    READ_UPTO,      /* before a delimiter */
    READ_LINE,      /* a line and its terminator */
    READ_FRAME,     /* a header that tells the length of a body */
    READ_PEEK,      /* `max` bytes, not consumed */
    READ_PEEK_LINE, /* a line, not consumed */
    READ_VIEW,      /* as READ_SOME, not made into a string */
    READ_TLS,       /* nothing: the end of a TLS handshake */
    READ_PARSED,    /* what `parse` makes of it, not consumed */
};

/* A parser for READ_PARSED: pushes its results and returns how many; 0: it needs more bytes. Bad
 * input is an answer, too: nil and a word. May raise. */
typedef int stream_parse_fn(lua_State *L, const char *bytes, size_t n);

/* What a script has asked for. */
struct read_op {
    enum read_kind kind;
    uint8_t delim_len;
    uint8_t len_bytes; /* frame: of the length; 0: varint */
    bool little_endian;
    size_t max;
    size_t skip;    /* frame: bytes before the length */
    int64_t adjust; /* frame: added to the length */
    size_t scanned; /* bytes that were searched in vain */
    stream_parse_fn *parse;
    char delim[STREAM_DELIM_MAX];
};

/* What was found: the first string, the second string behind it (line terminator, frame body), and
 * how much of both is consumed. */
struct read_match {
    size_t first, second, consumed;
};

enum read_result { READ_FOUND, READ_MORE, READ_TOO_LONG, READ_ENDED };

/* Pure: looks for what `op` wants in the n bytes. `ended`: no more will come. */
enum read_result read_look(struct read_op *op, const char *bytes, size_t n, bool ended,
                           struct read_match *m);

/* The queue between two filters of a direction. */
struct stream_queue {
    struct buf bytes;
    bool ended;    /* its writer has finished */
    size_t missed; /* bytes that its reader waits with: more than that is what it needs */
    struct script_stream *reader, *writer;
};

struct script_stream {
    struct vm *vm;
    struct script_conn *script;    /* whose connection; NULL: a socket of ps.tcp */
    struct script_socket *socket;  /* NULL: of a connection */
    struct relay *in, *out;        /* NULL: it does not read, or write, there */
    struct stream_queue *in_queue; /* instead of `in` */
    struct stream_queue *out_queue;
    struct task *reader, *writer; /* who waits */
    uint64_t timeout_ms;          /* of each wait; 0: none */
    size_t mark;                  /* writer: waits until no more than that is held */
    int ref;                      /* anchors the userdata while it is attached */
    bool reads;                   /* made with room for what follows */
    /* Only of a stream that reads: the memory of others ends here. */
    uint64_t run; /* entry into Lua that `run_bytes` counts in */
    size_t run_bytes;
    uint64_t deadline_ms; /* of all its reads together, in the loop's time; 0: none */
    struct read_op op;
};

/* Pushes a new stream that is anchored until lib_stream_detach(); `reads`: it will have a source.
 * May raise. */
struct script_stream *lib_stream_push_new(lua_State *L, struct vm *vm, bool reads);
/* The same, not anchored: whoever holds it in Lua keeps it. */
struct script_stream *lib_stream_push_loose(lua_State *L, struct vm *vm);
/* The stream at `index`, or an error that shows the right call. */
struct script_stream *lib_stream_check(lua_State *L, int index, const char *call);
/* It has neither source nor destination any more: its methods answer "closed". Nobody waits on it.
 * Does not raise. */
void lib_stream_detach(struct script_stream *s);

/* Points it at another source or destination; who waits there is asked again. */
void lib_stream_set_source(struct script_stream *s, struct relay *in, struct stream_queue *queue);
void lib_stream_set_destination(struct script_stream *s, struct relay *out,
                                struct stream_queue *queue);
/* Nothing may follow what was written. */
void lib_stream_finish(struct script_stream *s);
/* Notes that what was put wants to be written once Lua is left. */
void lib_stream_soil(struct script_stream *s);

/* A socket's or connection's relay has something for who waits. True when it was taken. */
bool lib_stream_on_input(struct script_stream *s);
void lib_stream_on_room(struct script_stream *s);

/* The stream that reads what the client sends, made at its first use. May raise. */
struct script_stream *lib_stream_client(lua_State *L, struct script_conn *c);

/* Reads by `op`, or waits: for C functions, as sched_may_wait() says. Fails after timeout_ms (0:
 * never). */
int lib_stream_read_or_wait(lua_State *L, struct script_stream *s, uint64_t timeout_ms);

/* Whoever uses a stream of a connection that is over: cancelled, when it belongs to it, else
 * "closed". Pushes that and returns how many. */
int lib_stream_over(lua_State *L, struct vm *vm);
/* Pushes false and an error: another coroutine already `what` ("reads") it. Returns 2. */
int lib_stream_taken(lua_State *L, const char *what);
/* wait_kind.drop of reads. */
void lib_stream_drop_read(struct task *t);
/* write, flush, finish, pass (lib_stream_write.c); upvalue: the VM. */
extern const luaL_Reg lib_stream_writers[];

/* Pushes bytes as a view (lib_view.c). May raise. */
void lib_view_push(lua_State *L, struct vm *vm, const char *bytes, size_t n);
/* The bytes of the view at `index`; NULL when there is something else. */
const char *lib_view_bytes(lua_State *L, int index, struct vm *vm, size_t *n);
void lib_view_open(lua_State *L, struct vm *vm);

#endif
