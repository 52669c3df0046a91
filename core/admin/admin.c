/* The admin's socket, microhttpd in the main loop, and the bounds on clients.
 *
 * We accept ourselves: microhttpd would spin when descriptors are short. It moves bytes whenever
 * its epoll descriptor or the tick says so. Each connection carries one request. */
#include "admin_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/proxy/handover.h"
#include "penstock/proxy/listener.h"

enum { TICK_MS = 1000, BACKLOG = 64 };

static uint64_t now_ms(void)
{
    return clock_now_ns() / 1000000;
}

/* --- requests
 * -------------------------------------------------------------------------------------------- */

static struct client *client_of(struct MHD_Connection *http)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(http, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void check_access(struct request *r)
{
    struct MHD_Connection *http = r->http;
    const char *why;
    struct access_headers headers = {
        .host = MHD_lookup_connection_value(http, MHD_HEADER_KIND, "Host"),
        .origin = MHD_lookup_connection_value(http, MHD_HEADER_KIND, "Origin"),
        .authorization = MHD_lookup_connection_value(http, MHD_HEADER_KIND, "Authorization"),
    };
    unsigned status = access_refused(&r->admin->rules, &headers, &why);
    if (status)
        request_fail(r, status, "%s", why);
}

/* The headers are there. */
static struct request *request_new(struct admin *a, struct MHD_Connection *http, const char *path,
                                   const char *method)
{
    struct client *client = client_of(http);
    struct request *r = client ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return NULL;
    r->admin = a;
    r->http = http;
    client->request = r;
    check_access(r);
    if (!r->status)
        route_find(r, method, path);
    return r;
}

/* Hands the answer over to microhttpd. */
static enum MHD_Result queue(struct request *r)
{
    static char nothing[] = "";
    bool empty = buf_len(&r->out) == 0;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        buf_len(&r->out), empty ? nothing : r->out.data + r->out.start, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", r->type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Connection", "close");
    if (r->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (r->allow)
        MHD_add_response_header(response, "Allow", r->allow);
    enum MHD_Result result = MHD_queue_response(r->http, r->status, response);
    MHD_destroy_response(response);
    r->queued = true;
    client_of(r->http)->deadline_ms = now_ms() + ADMIN_ANSWER_MS;
    return result;
}

static void take_body(struct request *r, const char *bytes, size_t n)
{
    size_t max = r->route && r->route->body_max ? r->route->body_max : ADMIN_BODY_MAX;
    if (r->status)
        return;
    if (n > max - buf_len(&r->body))
        request_fail(r, ADMIN_TOO_LARGE, "the body of this has at most %zu bytes", max);
    else if (buf_append(&r->body, bytes, n))
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
}

static void run(struct request *r)
{
    char *end = buf_reserve(&r->body, 1);
    if (!end) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return;
    }
    *end = '\0';
    if (r->admin->ending)
        request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "penstock has ended");
    else
        r->route->run(r);
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are microhttpd's */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *http, const char *path,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *n, void **memory)
{
    struct request *r = *memory;
    (void)version;
    if (!r) {
        *memory = r = request_new(arg, http, path, method);
        return !r ? MHD_NO : r->status ? queue(r) : MHD_YES;
    }
    if (*n) {
        take_body(r, bytes, *n);
        *n = 0;
        return MHD_YES;
    }
    if (!r->status)
        run(r);
    if (r->status)
        return queue(r);
    r->waiting = true;
    MHD_suspend_connection(http);
    return MHD_YES;
}

static void on_request_over(void *arg, struct MHD_Connection *http, void **memory,
                            enum MHD_RequestTerminationCode why)
{
    struct request *r = *memory;
    (void)arg;
    (void)why;
    if (!r)
        return;
    client_of(http)->request = NULL;
    pending_leave(r);
    buf_deinit(&r->body);
    buf_deinit(&r->out);
    request_free_memory(r);
    free(r);
    *memory = NULL;
}

void request_answer(struct request *r, unsigned status, const char *type)
{
    r->status = status;
    r->type = type;
    if (!r->waiting)
        return;
    r->waiting = false;
    client_of(r->http)->deadline_ms = now_ms() + ADMIN_ANSWER_MS;
    MHD_resume_connection(r->http);
    uv_async_send(&r->admin->answered); /* microhttpd has to run for it */
}

void request_answer_json(struct request *r, unsigned status, const struct json *j)
{
    if (j->failed)
        buf_deinit(&r->out);
    request_answer(r, j->failed ? MHD_HTTP_INTERNAL_SERVER_ERROR : status, "application/json");
}

void request_fail(struct request *r, unsigned status, const char *fmt, ...)
{
    char text[8192]; /* a Lua traceback fits */
    struct json j;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    buf_deinit(&r->out);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "error", text);
    json_end_object(&j);
    request_answer_json(r, status, &j);
}

/* --- clients
 * ---------------------------------------------------------------------------------------------- */

static void watch_accepting(struct admin *a);

static void accept_again(struct admin *a)
{
    if (!a->paused || a->handed_over)
        return;
    a->paused = false;
    watch_accepting(a);
}

static void on_connection(void *arg, struct MHD_Connection *http, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct admin *a = arg;
    struct client *client = *context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        client = calloc(1, sizeof *client);
        *context = client;
        if (!client)
            return; /* its request is refused: request_new() */
        client->http = http;
        client->deadline_ms = now_ms() + ADMIN_REQUEST_MS;
        list_push(&a->clients, &client->node);
    } else if (client) {
        list_remove(&client->node);
        free(client);
        *context = NULL;
    }
    a->n_clients += what == MHD_CONNECTION_NOTIFY_STARTED ? 1u : -1u;
}

static int socket_of(const struct client *c)
{
    return MHD_get_connection_info(c->http, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

/* Late ones are cut; microhttpd sees the end of the socket and does the rest. It does not look at
 * those that are suspended. */
static void look_at_clients(struct admin *a)
{
    uint64_t now = now_ms();
    list_for_each (node, tmp, &a->clients) {
        const struct client *c = container_of(node, struct client, node);
        if (c->request && c->request->waiting)
            pending_look(c->request, socket_of(c));
        else if (now >= c->deadline_ms)
            shutdown(socket_of(c), SHUT_RDWR);
    }
}

/* Lets microhttpd move what can be moved. A client that sends a byte now and then puts the tick
 * off: so it is not the tick alone that looks at deadlines. */
static void move(struct admin *a)
{
    MHD_UNSIGNED_LONG_LONG ms = TICK_MS;
    look_at_clients(a);
    MHD_run(a->http);
    if (a->n_clients < ADMIN_CLIENTS_MAX)
        accept_again(a);
    if (MHD_get_timeout(a->http, &ms) != MHD_YES || ms > TICK_MS)
        ms = TICK_MS;
    if (a->n_clients || a->paused)
        uv_timer_start(&a->tick, a->tick.timer_cb, ms, 0);
    else
        uv_timer_stop(&a->tick);
    if (a->handed_over)
        server_guest_left(a->server);
}

static void on_tick(uv_timer_t *timer)
{
    struct admin *a = timer->data;
    accept_again(a); /* descriptors may be there again */
    move(a);
}

static void on_moving(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    move(poll->data);
}

static void pause_accepting(struct admin *a)
{
    a->paused = true;
    uv_poll_stop(&a->accepting);
    uv_timer_start(&a->tick, on_tick, TICK_MS, 0);
}

static void on_accepting(uv_poll_t *poll, int status, int events)
{
    struct admin *a = poll->data;
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    (void)status;
    (void)events;
    if (a->n_clients >= ADMIN_CLIENTS_MAX) {
        pause_accepting(a);
        return;
    }
    int fd =
        accept4(a->listener->fds[0], (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 &&
        MHD_add_connection(a->http, fd, (struct sockaddr *)&from, len) != MHD_YES) /* closes it */
        log_warn("admin: cannot take a client: %s", err_text(-errno));
    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        log_warn("admin: cannot accept: %s", err_text(-errno));
        pause_accepting(a);
        return;
    }
    move(a);
}

static void watch_accepting(struct admin *a)
{
    uv_poll_start(&a->accepting, UV_READABLE, on_accepting);
}

static void on_answered(uv_async_t *async)
{
    struct admin *a = async->data;
    conns_collect(a);
    pools_collect(a);
    lua_collect(a);
    move(a);
}

static void on_pause_over(uv_timer_t *timer)
{
    conns_resume(timer->data);
}

/* --- life
 * --------------------------------------------------------------------------------------------------
 */

static void on_handle_closed(uv_handle_t *handle)
{
    struct admin *a = handle->data;
    if (--a->n_handles == 0)
        free(a);
}

static void close_handle(struct admin *a, uv_handle_t *handle)
{
    if (handle->data == a && !uv_is_closing(handle)) /* it was initialised */
        uv_close(handle, on_handle_closed);
}

static void shut(struct admin *a)
{
    close_handle(a, (uv_handle_t *)&a->accepting);
    close_handle(a, (uv_handle_t *)&a->moving);
    close_handle(a, (uv_handle_t *)&a->tick);
    close_handle(a, (uv_handle_t *)&a->answered);
    close_handle(a, (uv_handle_t *)&a->pause);
    if (a->http)
        MHD_stop_daemon(a->http);
    listener_unlink(a->listener);
    listener_drop(a->listener);
    config_drop(a->first);
    if (a->n_handles == 0)
        free(a);
}

static int open_listener(struct admin *a, const struct admin_options *options, char *why,
                         size_t why_cap)
{
    struct config_listener c = {.socket = {.nodelay = true, .backlog = BACKLOG}};
    struct listener_sockets *before = NULL;
    char text[400];
    int err = endpoint_parse(options->config->admin, ENDPOINT_LISTEN, &c.bind, text, sizeof text);
    if (!err)
        before = handover_take(options->handover, c.bind.text, true);
    if (before) {
        err = listener_adopt(&a->listener, &c, 1, before);
        snprintf(text, sizeof text, "%s", err_text(err));
    } else if (!err) {
        mode_t mask = umask(S_IRWXG | S_IRWXO | S_IXUSR); /* no other thread makes files yet */
        err = listener_open(&a->listener, &c, 1, text, sizeof text);
        umask(mask);
    }
    endpoint_deinit(&c.bind);
    if (err)
        snprintf(why, why_cap, "admin: %s", text);
    return err;
}

static int give_away(const struct admin *a, const struct admin_options *o)
{
    if (!o->uid || !a->listener->path || lchown(a->listener->path, *o->uid, *o->gid) == 0)
        return 0;
    return -errno;
}

static void on_handed_over(void *arg)
{
    struct admin *a = arg;
    a->handed_over = true;
    close_handle(a, (uv_handle_t *)&a->accepting);
    listener_release(a->listener);
}

/* Those that wait for something are told of the end by admin_close(). */
static bool is_busy(void *arg)
{
    const struct admin *a = arg;
    list_for_each (node, tmp, &a->clients) {
        const struct client *c = container_of(node, struct client, node);
        if (!c->request || !c->request->waiting)
            return true;
    }
    return false;
}

static int add_handle(struct admin *a, uv_handle_t *handle, int err)
{
    if (!err) {
        handle->data = a;
        a->n_handles++;
    }
    return err;
}

static int open_handles(struct admin *a)
{
    uv_loop_t *loop = server_loop(a->server);
    int moving = MHD_get_daemon_info(a->http, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    int err = add_handle(a, (uv_handle_t *)&a->accepting,
                         uv_poll_init(loop, &a->accepting, a->listener->fds[0]));
    if (!err)
        err = add_handle(a, (uv_handle_t *)&a->moving, uv_poll_init(loop, &a->moving, moving));
    if (!err)
        err = add_handle(a, (uv_handle_t *)&a->tick, uv_timer_init(loop, &a->tick));
    if (!err)
        err = add_handle(a, (uv_handle_t *)&a->answered,
                         uv_async_init(loop, &a->answered, on_answered));
    if (!err)
        err = add_handle(a, (uv_handle_t *)&a->pause, uv_timer_init(loop, &a->pause));
    if (err)
        return err;
    a->pause.timer_cb = on_pause_over;
    a->tick.timer_cb = on_tick;
    watch_accepting(a);
    return uv_poll_start(&a->moving, UV_READABLE, on_moving);
}

/* Decoded by those who know where a piece ends: request_decode(). */
static size_t leave_encoded(void *arg, struct MHD_Connection *http, char *text)
{
    (void)arg;
    (void)http;
    return strlen(text);
}

static int start_http(struct admin *a)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
    a->http = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, a, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)ADMIN_REQUEST_BYTES, MHD_OPTION_CONNECTION_LIMIT, (unsigned)ADMIN_CLIENTS_MAX + 1,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, a, MHD_OPTION_NOTIFY_COMPLETED,
        on_request_over, a, MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL, MHD_OPTION_END);
    return a->http ? 0 : -ENOMEM;
}

int admin_open(const struct admin_options *options, struct admin **out, char *why, size_t why_cap)
{
    const struct config *c = options->config;
    struct access_rules rules = {0};
    int err = 0;
    if (c->admin_token_file)
        err = access_read_token(&rules, c->admin_token_file, why, why_cap);
    if (err)
        return err;
    struct admin *a = calloc(1, sizeof *a);
    snprintf(why, why_cap, "admin: %s", err_text(-ENOMEM));
    if (!a)
        return -ENOMEM;
    a->server = options->server;
    a->shared = options->shared;
    a->lua = c->admin_lua;
    a->first = config_hold(server_config(a->server)); /* dropped in shut() */
    a->rules = rules;
    list_init(&a->clients);
    list_init(&a->queries);
    list_init(&a->drains);
    list_init(&a->prompts);
    list_init(&a->waits);
    err = open_listener(a, options, why, why_cap);
    if (err) {
        config_drop(a->first);
        free(a);
        return err;
    }
    a->rules.bound = a->listener->address;
    err = give_away(a, options);
    if (!err)
        err = start_http(a);
    if (!err)
        err = open_handles(a);
    if (err) {
        snprintf(why, why_cap, "admin: %s", err_text(err));
        shut(a);
        return err;
    }
    a->guest = (struct server_guest){
        .listener = a->listener, .on_handed_over = on_handed_over, .is_busy = is_busy, .arg = a};
    server_set_guest(a->server, &a->guest);
    log_info("admin listens on %s", a->listener->text);
    *out = a;
    return 0;
}

void admin_close(struct admin *a)
{
    if (!a)
        return;
    a->ending = true;
    conns_cancel(a); /* the workers have ended, and answered all */
    pools_collect(a);
    lua_collect(a);
    request_cancel_waits(a);
    MHD_run(a->http); /* what has been answered just now goes out, as far as the sockets take it */
    MHD_run(a->http);
    server_set_guest(a->server, NULL);
    shut(a);
}
