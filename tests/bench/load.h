// The load generator: clients and backend in one process, one thread, one epoll set, so that both
// ends of every connection can be compared. load.c owns the run; load_bulk.c and load_rr.c are the
// clients, load_server.c the backend, load_pattern.c the content, load_stream.c and load_tls.c what
// carries it; load_start.c is a program of its own behind the same binary.
#ifndef PENSTOCK_BENCH_LOAD_H
#define PENSTOCK_BENCH_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define CHUNK_BYTES (256u * 1024u)  // the most one send or recv moves
#define PATTERN_BYTES (61u * 4096u) // 61 is prime: a lost or doubled power of two never fits
#define TOKEN_EVERY_BYTES 4096u
#define TOKEN "tok_abcd"
#define TOKEN_REPLACED "TOK_ABCD"
#define TOKEN_CHANGED_BYTES 7u // '_' is the same in both
#define LINE_BYTES 100u
#define HELLO_BYTES 16u
#define MESSAGE_MAX_BYTES (64u * 1024u) // the longest request of rr

// The first bytes of every connection tell the backend what to do with it; text, as script filters
// may want text.
enum kind {
    KIND_ECHO = 'e', // answer each message of `size` bytes with itself
    KIND_ONCE = 'o', // answer one message, then close
    KIND_UP = 'u',   // verify what arrives until end of file
    KIND_DOWN = 'd', // send the pattern until the run drains
};

enum phase {
    PHASE_SETUP,   // connections are opened
    PHASE_WARM,    // traffic, not counted
    PHASE_MEASURE, // traffic, counted
    PHASE_DRAIN,   // no new work; what is under way must arrive
};

struct load;
struct stream;
struct tls;            // load_tls.c: one stream's
struct tls_context;    // load_tls.c: the run's
struct ssl_session_st; // OpenSSL's
typedef void (*stream_event_fn)(struct load *load, struct stream *stream, uint32_t events);

// One end of a connection, client's or backend's.
struct stream {
    int fd; // -1: closed
    stream_event_fn on_event;
    uint32_t interest;              // what the stream waits for
    uint32_t watched;               // what epoll watches: TLS may wait for something else
    struct tls *tls;                // NULL: plain
    struct ssl_session_st *session; // client that resumes: its newest ticket, NULL: none yet
    enum kind kind;
    uint32_t index;    // the connection's number; picks its place in the pattern
    uint32_t size;     // message size of the echo kinds
    uint64_t sent;     // bulk: payload bytes; echo: bytes of this message
    uint64_t received; // as `sent`
    uint64_t
        upstream_sent;   // client of a KIND_DOWN: what the backend sent, known once it has stopped
    bool upstream_done;  // the backend has set `upstream_sent`
    uint64_t sequence;   // messages finished
    uint64_t started_ns; // when this message, or connection, was begun
    bool started;        // counted as ready
    bool finished;       // nothing more will come
    char hello[HELLO_BYTES];
    uint32_t hello_have;  // backend: bytes of it so far
    char *message;        // backend: a message that came or went in parts; freed with the stream
    struct stream *other; // bulk: the end of this connection at the other side, NULL: not there
    uint32_t pieces;      // bulk with tokens, sender: sent so far of those that pattern_send() cuts
    bool held_back;       // … and the next one waits
    struct stream *next;  // backend: list of open streams
    struct stream *prev;
};

struct pattern {
    char *send;   // PATTERN_BYTES, repeated for CHUNK_BYTES more
    char *expect; // the same with tokens replaced; the same memory without tokens
};

struct options {
    const char *mode;
    uint32_t connections;
    uint32_t size;
    bool tokens;
    bool all_tokens; // also those that a border between chunks cuts must arrive replaced
    bool lines;
    bool unanswered;          // idle: a message that was sent is enough
    const char *tls_trusted;  // file with the certificate that TLS clients trust; NULL: plain ones
    const char *tls_identity; // file with the TLS backend's certificate and key; NULL: plain
    bool resume;              // churn: all connections but a client's first resume its session
    uint64_t warm_ns;
    uint64_t run_ns;
    uint64_t most; // transactions that end the measured phase early; 0: no limit
    int listen_fd;
    struct sockaddr_in target;
};

struct load {
    struct options options;
    struct pattern pattern;
    enum phase phase;
    int epoll_fd;
    struct stream *clients; // `options.connections` of them
    struct stream *servers; // list of the backend's open streams
    struct stream listener;
    uint32_t opened;    // clients begun in PHASE_SETUP
    uint32_t ready;     // clients past set-up
    uint32_t finished;  // clients with nothing under way, in PHASE_DRAIN
    uint32_t ends_seen; // uploads whose end has reached the backend
    uint64_t phase_started_ns;
    uint64_t bytes;         // counted in PHASE_MEASURE, at the receiver
    uint64_t transactions;  // the same: answered messages, or whole connections
    uint64_t payload_bytes; // over the whole run
    uint64_t missed_bytes;  // bytes of tokens that were not replaced
    uint32_t *latencies_ns;
    size_t latencies;
    size_t latencies_room;
    uint64_t errors;
    char first_error[160];
    char *buffer;            // CHUNK_BYTES, for one stream_recv
    struct tls_context *tls; // NULL: no TLS
    struct stream *again;    // its end came together with its last bytes, and is still to be told
};

// load.c
uint64_t now_ns(void);
// Counts an error and keeps the first text. The run goes on; its figures will be discarded.
void load_error(struct load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));
void load_latency(struct load *load, uint64_t ns);

// load_stream.c
// Sets what epoll watches for the stream (adds it the first time).
void stream_watch(struct load *load, struct stream *stream, uint32_t interest);
// Opens the client's socket and starts to connect, and the handshake of TLS. False: an error was
// counted.
bool stream_connect(struct load *load, struct stream *stream, stream_event_fn on_event);
// As send() and sendmsg(), encrypted where the stream is. EAGAIN: later, when EPOLLOUT is told.
ssize_t stream_send(struct stream *stream, const char *bytes, size_t length);
ssize_t stream_send_parts(struct load *load, struct stream *stream, struct iovec *parts, int count);
// As recv(), decrypted; `load->buffer` is where it goes. 0: the end, close_notify or not.
ssize_t stream_recv(struct load *load, struct stream *stream);
// Nothing more will be sent: close_notify after what waits, and a FIN.
void stream_end(struct stream *stream);
// Closes the socket; with `reset` by RST, so that nothing stays in TIME_WAIT. No effect when
// closed.
void stream_close(struct stream *stream, bool reset);

// load_tls.c: TLS 1.3, TLS_AES_128_GCM_SHA256 only. What stream_*() need; errors are counted.
void tls_init(struct load *load); // exits when a file is no good
void tls_deinit(struct load *load);
// Begins TLS on a connected (or connecting) stream, as the client or as the server.
void tls_start(struct load *load, struct stream *stream, bool is_client);
// What comes before the stream's own on_event(): handshake, and ciphertext that waits. False: of
// `events` nothing is left for the stream.
bool tls_on_event(struct load *load, struct stream *stream, uint32_t *events);
uint32_t tls_interest(const struct tls *tls, uint32_t interest); // what epoll must watch
ssize_t tls_send(struct tls *tls, const char *bytes, size_t length);
ssize_t tls_recv(struct tls *tls, char *bytes, size_t room); // room: CHUNK_BYTES
void tls_end(struct tls *tls);
// Frees it; with `notify` after close_notify, as far as the socket takes it.
void tls_close(struct tls *tls, bool notify);
void tls_forget_session(struct stream *stream);

// load_pattern.c
void pattern_init(struct pattern *pattern, bool tokens, bool lines);
void pattern_deinit(struct pattern *pattern);
// Where in the pattern the byte `position` of connection `index` lies.
uint32_t pattern_at(uint32_t index, uint64_t position);
// Compares received bulk bytes with the pattern; counts errors and tokens that were not replaced.
void pattern_verify(struct load *load, struct stream *stream, const char *bytes, size_t length);
// The end of what `stream` receives: a token that ends there in the middle was none.
void pattern_ended(struct load *load, const struct stream *stream);
// Sends what comes next of the pattern. The first tokens of a connection are cut, once at each of
// their inner borders: the second part goes when all before the token has arrived, so that the
// forwarder has read the first part alone. Returns as send().
ssize_t pattern_send(struct load *load, struct stream *stream);
void hello_write(char *hello, enum kind kind, uint32_t size, uint32_t index);
bool hello_parse(const char *hello, enum kind *kind, uint32_t *size, uint32_t *index);

// load_server.c
void server_start(struct load *load);
void server_drain(struct load *load); // ends the backend's own sending
void server_stop(struct load *load);  // closes everything

// load_bulk.c and load_rr.c. `open` begins client `stream`; `go` is called for each when PHASE_WARM
// begins; `drain` when PHASE_DRAIN begins.
struct client_ops {
    void (*open)(struct load *load, struct stream *stream);
    void (*go)(struct load *load, struct stream *stream);
    void (*drain)(struct load *load, struct stream *stream);
};
extern const struct client_ops bulk_ops;
// The backend has the client's hello: the upload begins. Not before, as the bulk of a stream that
// finds its way open is what is measured (and haproxy 2.6's Lua filters spoil a first chunk that
// had to wait for the upstream).
void bulk_pour(struct load *load, struct stream *client);
extern const struct client_ops rr_ops;
extern const struct client_ops churn_ops;
extern const struct client_ops idle_ops;

// load_start.c: starts a forwarder and measures until the first echo. Returns the exit status.
int start_main(int argc, char **argv);

#endif
