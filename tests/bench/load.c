// The run of a load: set-up, warm-up, the measured window, the drain, and one line of JSON. Between
// the phases it stands still until the runner, which reads the forwarder's CPU time meanwhile,
// writes a line.
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SETUP_AT_ONCE                                                                              \
    16u // connections in set-up at a time: short backlogs are not what is measured
#define SETUP_MAX_NS 30000000000ull
// A connection lost from a forwarder's short backlog comes back after up to 13 s.
#define DRAIN_MAX_NS 20000000000ull
// Of a forwarder that replaces chunk by chunk: tokens cut by a border, 7 bytes in a chunk's length.
#define MISSED_MAX_PERCENT 2u

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void load_error(struct load *load, const char *format, ...)
{
    if (load->errors++ > 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(load->first_error, sizeof(load->first_error), format, arguments);
    va_end(arguments);
}

void load_latency(struct load *load, uint64_t ns)
{
    if (load->latencies == load->latencies_room) {
        load->latencies_room = load->latencies_room ? load->latencies_room * 2 : 1u << 20;
        load->latencies_ns = realloc(load->latencies_ns, load->latencies_room * sizeof(uint32_t));
        if (!load->latencies_ns)
            abort();
    }
    load->latencies_ns[load->latencies++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static void dispatch(struct load *load, uint64_t deadline_ns)
{
    struct epoll_event events[256];
    uint64_t now = now_ns();
    int wait_ms = now >= deadline_ns ? 0 : (int)((deadline_ns - now + 999999) / 1000000);
    int n = epoll_wait(load->epoll_fd, events, 256, wait_ms);
    for (int i = 0; i < n; i++) {
        struct stream *stream = events[i].data.ptr;
        uint32_t told = events[i].events;
        if (!stream->tls || tls_on_event(load, stream, &told))
            stream->on_event(load, stream, told);
        if (load->again)
            load->again->on_event(load, load->again, EPOLLIN);
    }
}

static void run_for(struct load *load, uint64_t duration_ns)
{
    uint64_t deadline_ns = now_ns() + duration_ns;
    uint64_t most = load->options.most;
    while (now_ns() < deadline_ns && (most == 0 || load->transactions < most))
        dispatch(load, deadline_ns);
}

// Tells the runner and stands still until it answers; end of file means that there is no runner any
// more.
static void pause_for_runner(const char *word)
{
    char answer[64];
    printf("%s\n", word);
    fflush(stdout);
    if (read(STDIN_FILENO, answer, sizeof(answer)) <= 0)
        exit(2);
}

static bool setup(struct load *load, const struct client_ops *ops)
{
    uint64_t deadline_ns = now_ns() + SETUP_MAX_NS;
    uint32_t wanted = load->options.connections;
    load->phase = PHASE_SETUP;
    while (load->ready + load->finished < wanted) {
        while (load->opened < wanted && load->opened - load->ready - load->finished < SETUP_AT_ONCE)
            ops->open(load, &load->clients[load->opened++]);
        if (load->ready + load->finished == wanted)
            break;
        if (now_ns() >= deadline_ns || load->errors) {
            load_error(load, "set-up: %u of %u connections", load->ready, wanted);
            return false;
        }
        dispatch(load, now_ns() + 100000000u);
    }
    return load->errors == 0;
}

static void each_client(struct load *load, void (*call)(struct load *, struct stream *))
{
    for (uint32_t i = 0; i < load->options.connections; i++)
        call(load, &load->clients[i]);
}

static void drain(struct load *load, const struct client_ops *ops)
{
    uint64_t deadline_ns = now_ns() + DRAIN_MAX_NS;
    load->phase = PHASE_DRAIN;
    server_drain(load);
    each_client(load, ops->drain);
    // In an upload the backend must have seen the end too: some forwarders close both sides at the
    // first.
    uint32_t ends = strcmp(load->options.mode, "up") == 0 ? load->options.connections : 0;
    while (load->finished < load->options.connections || load->ends_seen < ends) {
        if (now_ns() >= deadline_ns) {
            load_error(load, "%u of %u connections did not end",
                       load->options.connections - load->finished + ends - load->ends_seen,
                       load->options.connections);
            return;
        }
        dispatch(load, now_ns() + 100000000u);
    }
}

static void check_tokens(struct load *load, uint64_t *tokens, uint64_t *missed)
{
    *tokens = load->options.tokens ? load->payload_bytes / TOKEN_EVERY_BYTES : 0;
    *missed = load->missed_bytes / TOKEN_CHANGED_BYTES;
    if (load->missed_bytes % TOKEN_CHANGED_BYTES)
        load_error(load, "a token was replaced in part");
    if (*missed * 100 > *tokens * (load->options.all_tokens ? 0 : MISSED_MAX_PERCENT))
        load_error(load, "%llu of %llu tokens were not replaced", (unsigned long long)*missed,
                   (unsigned long long)*tokens);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(const struct load *load, double part)
{
    if (load->latencies == 0)
        return 0;
    size_t i = (size_t)(part * (double)(load->latencies - 1) + 0.5);
    return load->latencies_ns[i] / 1e3;
}

static void print_result(struct load *load, double seconds)
{
    uint64_t tokens;
    uint64_t missed;
    check_tokens(load, &tokens, &missed);
    if (load->latencies)
        qsort(load->latencies_ns, load->latencies, sizeof(uint32_t), compare);
    for (char *c = load->first_error; *c; c++)
        *c = *c == '"' || *c == '\\' || *c < ' ' ? '\'' : *c;
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"transactions\": %llu, ", seconds,
           (unsigned long long)load->bytes, (unsigned long long)load->transactions);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, ",
           percentile_us(load, 0.5), percentile_us(load, 0.9), percentile_us(load, 0.99),
           percentile_us(load, 0.999));
    printf("\"tokens\": %llu, \"tokens_missed\": %llu, \"errors\": %llu, \"error\": \"%s\"}\n",
           (unsigned long long)tokens, (unsigned long long)missed, (unsigned long long)load->errors,
           load->first_error);
    fflush(stdout);
}

static double measure(struct load *load, const struct client_ops *ops)
{
    load->phase = PHASE_WARM;
    each_client(load, ops->go);
    run_for(load, load->options.warm_ns);
    pause_for_runner("ready");
    load->phase = PHASE_MEASURE;
    load->phase_started_ns = now_ns();
    run_for(load, load->options.run_ns);
    double seconds = (double)(now_ns() - load->phase_started_ns) / 1e9;
    pause_for_runner("done");
    drain(load, ops);
    return seconds;
}

static const struct client_ops *ops_of(const char *mode)
{
    static const struct {
        const char *mode;
        const struct client_ops *ops;
    } all[] = {{"up", &bulk_ops},
               {"down", &bulk_ops},
               {"rr", &rr_ops},
               {"churn", &churn_ops},
               {"idle", &idle_ops}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i].mode, mode) == 0)
            return all[i].ops;
    }
    return NULL;
}

static void load_init(struct load *load)
{
    pattern_init(&load->pattern, load->options.tokens, load->options.lines);
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->clients = calloc(load->options.connections, sizeof(*load->clients));
    load->buffer = malloc(CHUNK_BYTES);
    if (load->epoll_fd < 0 || !load->clients || !load->buffer)
        abort();
    if (load->options.tls_trusted || load->options.tls_identity)
        tls_init(load);
    for (uint32_t i = 0; i < load->options.connections; i++) {
        load->clients[i].fd = -1;
        load->clients[i].index = i;
    }
    fcntl(load->options.listen_fd, F_SETFL, O_NONBLOCK);
    server_start(load);
}

static void load_deinit(struct load *load)
{
    for (uint32_t i = 0; i < load->options.connections; i++) {
        stream_close(&load->clients[i], true);
        tls_forget_session(&load->clients[i]);
    }
    server_stop(load);
    tls_deinit(load);
    close(load->epoll_fd);
    free(load->clients);
    free(load->buffer);
    free(load->latencies_ns);
    pattern_deinit(&load->pattern);
}

static int load_main(const struct options *options, const struct client_ops *ops)
{
    struct load load = {.options = *options};
    double seconds = 0;
    load_init(&load);
    if (setup(&load, ops))
        seconds = measure(&load, ops);
    print_result(&load, seconds);
    int status = load.errors ? 1 : 0;
    load_deinit(&load);
    return status;
}

// Keeps a core from halting; the runner gives it SCHED_IDLE and its core. No pause instruction:
// hypervisors may take the processor away from a loop of them.
static void spin_main(void)
{
    for (volatile uint64_t i = 0;; i++)
        ;
}

static int usage(void)
{
    fputs("usage: penstock_load up|down|rr|churn|idle -t PORT [-c CONNECTIONS] [-s BYTES] [-w "
          "WARM_MS]\n"
          "                     [-d MEASURED_MS] [-n TRANSACTIONS] [-f LISTENING_FD] [-k] [-K] "
          "[-l] [-u]\n"
          "                     [-T CERTIFICATE [-r]] [-S CERTIFICATE_AND_KEY]\n"
          "       penstock_load start -t PORT -f LISTENING_FD -p CPU -- COMMAND...\n"
          "       penstock_load spin\n"
          "-n: the measured part ends after as many\n"
          "-k: the payload has a token about every 4 KiB, which must arrive replaced; some, cut by "
          "the borders of chunks, may stay\n"
          "-K: the same, and none may stay\n"
          "-l: the payload is lines of 100 bytes\n"
          "-u: idle connections that wait for no echo\n"
          "-T: the clients speak TLS and trust this certificate\n"
          "-r: churn: all connections but a client's first must resume its session\n"
          "-S: the backend speaks TLS\n",
          stderr);
    return 64;
}

static bool parse_options(int argc, char **argv, struct options *options)
{
    int option;
    while ((option = getopt(argc, argv, "t:c:s:w:d:n:f:kKluT:S:r")) != -1) {
        int number = optarg ? atoi(optarg) : 0;
        if (option == 't')
            options->target.sin_port = htons((uint16_t)number);
        else if (option == 'c')
            options->connections = (uint32_t)number;
        else if (option == 's')
            options->size = (uint32_t)number;
        else if (option == 'w')
            options->warm_ns = (uint64_t)number * 1000000u;
        else if (option == 'd')
            options->run_ns = (uint64_t)number * 1000000u;
        else if (option == 'n')
            options->most = (uint64_t)number;
        else if (option == 'f')
            options->listen_fd = number;
        else if (option == 'k')
            options->tokens = true;
        else if (option == 'K')
            options->tokens = options->all_tokens = true;
        else if (option == 'l')
            options->lines = true;
        else if (option == 'u')
            options->unanswered = true;
        else if (option == 'T')
            options->tls_trusted = optarg;
        else if (option == 'S')
            options->tls_identity = optarg;
        else if (option == 'r')
            options->resume = true;
        else
            return false;
    }
    return options->target.sin_port != 0 && options->connections > 0 &&
           options->size >= HELLO_BYTES && options->size <= MESSAGE_MAX_BYTES &&
           (!options->resume || options->tls_trusted);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage();
    if (strcmp(argv[1], "spin") == 0)
        spin_main();
    if (strcmp(argv[1], "start") == 0)
        return start_main(argc - 1, argv + 1);
    struct options options = {.mode = argv[1],
                              .connections = 1,
                              .size = 64,
                              .warm_ns = 300000000u,
                              .run_ns = 1000000000u,
                              .listen_fd = 3};
    options.target.sin_family = AF_INET;
    options.target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const struct client_ops *ops = ops_of(argv[1]);
    if (!ops || !parse_options(argc - 1, argv + 1, &options))
        return usage();
    return load_main(&options, ops);
}
