/* The old side of an upgrade: starts the program anew, hands it the sockets, and leaves once it
 * accepts on all of them. Whatever goes wrong before that leaves this process as it was.
 *
 * Waiting for a reload that is under way → taking the sockets from the workers → starting: the new
 * process takes them and opens what else it needs → going: it may accept, and so may we → over. One
 * that fails is waited for until it has ended. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handover_wire.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/net/tls_ctx.h"
#include "penstock/proxy/inherited.h"
#include "penstock/proxy/notify.h"
#include "penstock/proxy/shared.h"
#include "server_priv.h"
#include "successor.h"
#include "upgrade_sockets.h"

enum {
    REAP_MS = 20,     /* between looks whether it has ended */
    REAP_LOOKS = 250, /* then it is ended */
    KILL_MS = 5000    /* more than the time that its clients have to end */
};

enum stage { WAITING, TAKING, STARTING, GOING, FAILED };

struct upgrade {
    struct server *server;
    enum stage stage;
    const char *by; /* static storage */
    struct server_waiter *waiter;
    struct upgrade_sockets sockets;
    size_t sent; /* messages so far */
    int channel; /* -1: none */
    pid_t pid;   /* 0: none, or it has been reaped */
    unsigned looks;
    bool reported;
    char *why; /* of a failure; NULL: it ended without a word */
    uv_poll_t poll;
};

/* --- its end
 * -----------------------------------------------------------------------------------------------
 */

static void free_upgrade(struct upgrade *u)
{
    upgrade_sockets_deinit(&u->sockets);
    free(u->why);
    free(u);
}

static void on_poll_closed(uv_handle_t *handle)
{
    free_upgrade(handle->data);
}

static void end(struct upgrade *u)
{
    u->server->upgrade = NULL;
    server_set_copied(u->server, false); /* it has ended, or executed the program */
    uv_timer_stop(&u->server->upgrading);
    if (u->channel < 0) {
        free_upgrade(u);
        return;
    }
    uv_close((uv_handle_t *)&u->poll, on_poll_closed);
    close(u->channel);
}

static void tell(struct upgrade *u, int err, const char *why)
{
    struct server_waiter *waiter = u->waiter;
    u->waiter = NULL;
    if (!waiter)
        return;
    list_remove(&waiter->node);
    waiter->done(waiter, err, (unsigned)u->pid, why);
}

static void report(struct upgrade *u, const char *why)
{
    if (u->reported)
        return;
    u->reported = true;
    log_error("%s: this process goes on: %s", u->by, why);
    tell(u, -ECANCELED, why);
}

/* What can be done only when no upgrade is under way. */
static void go_on(struct server *s)
{
    server_reload_wanted(s);
}

static void describe_end(bool known, int status, char *why, size_t cap)
{
    if (known && WIFSIGNALED(status))
        snprintf(why, cap, "the new process was ended by signal %d before it was up",
                 WTERMSIG(status));
    else if (known)
        snprintf(why, cap,
                 "the new process ended with status %d before it was up; the log may have its "
                 "message",
                 WEXITSTATUS(status));
    else
        snprintf(why, cap, "the new process ended before it was up");
}

/* Has it ended? Then so has the upgrade. */
static void reap(struct upgrade *u)
{
    struct server *s = u->server;
    char why[128];
    int status;
    pid_t pid = waitpid(u->pid, &status, WNOHANG);
    if (pid == 0) {
        if (++u->looks == REAP_LOOKS)
            kill(u->pid, SIGKILL);
        return;
    }
    u->pid = 0;
    describe_end(pid > 0, status, why, sizeof why); /* SIGCHLD may be ignored */
    report(u, u->why ? u->why : why);
    end(u);
    go_on(s);
}

/* Its channel has ended, so it will soon. */
static void await_end(struct upgrade *u)
{
    u->stage = FAILED;
    uv_poll_stop(&u->poll);
    uv_timer_start(&u->server->upgrading, u->server->upgrading.timer_cb, REAP_MS, REAP_MS);
    reap(u);
}

/* Of a new process that is there: told to the waiter once that has ended. */
static void note_failure(struct upgrade *u, const char *why)
{
    u->stage = FAILED;
    if (!u->why)
        u->why = strdup(why);
}

/* There is no new process. */
static void fail(struct upgrade *u, const char *why)
{
    struct server *s = u->server;
    u->stage = FAILED;
    report(u, why);
    if (atomic_load(&u->sockets.n_busy)) /* workers still know it: server_upgrade_taken() goes on */
        return;
    end(u);
    go_on(s);
}

static void on_time(uv_timer_t *timer);

static void give_up(struct upgrade *u)
{
    char why[128], time[32];
    uint64_t ms = u->server->version.config->upgrade_ms;
    snprintf(why, sizeof why, "%s within %s (--upgrade-timeout)",
             u->stage == TAKING ? "a worker did not answer" : "the new process did not come up",
             units_format_time(ms, time, sizeof time));
    if (!u->pid) {
        fail(u, why);
        return;
    }
    kill(u->pid, u->stage == GOING ? SIGTERM : SIGKILL); /* it may have clients, which it drains */
    if (u->stage == GOING)
        report(u, why);
    note_failure(u, why);
    uv_timer_start(&u->server->upgrading, on_time, u->server->version.config->drain_ms + KILL_MS,
                   0);
}

static void on_time(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct upgrade *u = s->upgrade;
    if (u->stage != FAILED)
        give_up(u);
    else if (u->pid && uv_is_active((uv_handle_t *)&u->poll))
        kill(u->pid, SIGKILL); /* it has failed, and does not end */
    else if (u->pid)
        reap(u);
}

/* --- it has taken over
 * ------------------------------------------------------------------------------------- */

static void succeed(struct upgrade *u)
{
    struct server *s = u->server;
    log_info("%s: process %ld has taken over", u->by, (long)u->pid);
    notify_main(u->pid);
    s->quiet = true;
    handover_send_word(u->channel, "main");
    upgrade_sockets_hand_over(&u->sockets);
    tell(u, 0, "");
    if (s->wanted)
        kill(u->pid, SIGHUP); /* what was to be loaded may be newer than what it has */
    s->wanted = 0;
    u->pid = 0;
    end(u);
    server_fail_waiters(s);
    server_leave(s);
}

/* --- what is said
 * ------------------------------------------------------------------------------------------ */

static int send_tickets(struct upgrade *u)
{
    static const char word[] = "tickets ";
    unsigned char message[sizeof word - 1 + TLS_TICKETS_BYTES];
    memcpy(message, word, sizeof word - 1);
    tls_tickets_write(shared_tickets(u->server->shared), message + sizeof word - 1);
    int err = handover_send(u->channel, message, sizeof message, -1);
    explicit_bzero(message, sizeof message);
    return err;
}

static int send_number(struct upgrade *u, size_t number)
{
    char form[16];
    snprintf(form, sizeof form, "%d", HANDOVER_FORM);
    if (number == 0)
        return handover_send_text(u->channel, "begin", form);
    if (number <= u->sockets.n)
        return upgrade_sockets_send(&u->sockets, number - 1, u->channel);
    return number == u->sockets.n + 1 ? send_tickets(u) : handover_send_word(u->channel, "end");
}

static bool all_sent(const struct upgrade *u)
{
    return u->sent == u->sockets.n + 3;
}

static void on_channel(uv_poll_t *poll, int status, int events);

static void send_more(struct upgrade *u)
{
    int err = 0;
    while (!err && !all_sent(u)) {
        err = send_number(u, u->sent);
        u->sent += !err;
    }
    if (err && err != -EAGAIN && err != -EPIPE && err != -ECONNRESET) {
        kill(u->pid, SIGKILL);
        note_failure(u, err_text(err));
    } /* one that has ended is noticed by the reading side */
    uv_poll_start(&u->poll, err == -EAGAIN ? UV_READABLE | UV_WRITABLE : UV_READABLE, on_channel);
}

static void note_no_exec(struct upgrade *u, const char *bytes, size_t n)
{
    char why[512];
    int number = 0;
    if (n == sizeof number)
        memcpy(&number, bytes, n);
    snprintf(why, sizeof why, "cannot execute %s: %s", u->server->origin->path, err_text(-number));
    note_failure(u, why);
}

/* False when the upgrade is over. */
static bool obey(struct upgrade *u, const struct handover_message *m)
{
    const char *text;
    size_t n;
    if ((text = handover_is(m, "exec", &n))) {
        note_no_exec(u, text, n);
    } else if ((text = handover_is(m, "failed", &n))) {
        note_failure(u, text);
    } else if ((text = handover_is(m, "adopted", &n))) {
        upgrade_sockets_adopted(&u->sockets, text);
    } else if (handover_is(m, "bound", &n) && u->stage == STARTING && all_sent(u)) {
        u->stage = GOING;
        handover_send_word(u->channel, "go");
    } else if (handover_is(m, "ready", &n) && u->stage == GOING) {
        succeed(u);
        return false;
    }
    return true;
}

static void on_channel(uv_poll_t *poll, int status, int events)
{
    struct upgrade *u = poll->data;
    struct handover_message m;
    int n;
    (void)status;
    while ((n = handover_receive(u->channel, &m)) > 0) {
        if (m.fd >= 0)
            close(m.fd);
        if (!obey(u, &m))
            return;
    }
    if (n != -EAGAIN)
        await_end(u);
    else if (events & UV_WRITABLE)
        send_more(u);
}

/* --- starting it
 * ------------------------------------------------------------------------------------------- */

/* The numbers of inherited sockets, which its configuration may name, too. */
static int *find_kept(const struct server *s, size_t *n)
{
    const struct config *c = s->version.config;
    unsigned inherited = inherited_count();
    int *list = malloc((inherited + c->n_listeners) * sizeof *list);
    *n = 0;
    for (unsigned i = 0; list && i < inherited; i++)
        list[(*n)++] = INHERITED_FIRST + (int)i;
    for (size_t i = 0; list && i < c->n_listeners; i++)
        if (c->listeners[i].bind.kind == ENDPOINT_FD && c->listeners[i].bind.fd >= 0)
            list[(*n)++] = c->listeners[i].bind.fd;
    return list;
}

static int start_process(struct upgrade *u, int channel)
{
    const struct server_origin *origin = u->server->origin;
    struct successor_options options = {
        .path = origin->path, .argv = origin->argv, .channel = channel};
    int *kept = find_kept(u->server, &options.n_keep);
    options.keep = kept;
    int err = kept ? successor_start(&options, &u->pid) : -ENOMEM;
    if (err)
        u->pid = 0;
    free(kept);
    return err;
}

static int start(struct upgrade *u)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    int err = start_process(u, pair[1]);
    close(pair[1]);
    if (!err && (err = uv_poll_init(&u->server->loop, &u->poll, pair[0]))) {
        kill(u->pid, SIGKILL);
        waitpid(u->pid, NULL, 0);
        u->pid = 0;
    }
    if (err) {
        close(pair[0]);
        return err;
    }
    u->channel = pair[0];
    u->poll.data = u;
    u->stage = STARTING;
    log_info("%s: starting %s as process %ld", u->by, u->server->origin->path, (long)u->pid);
    send_more(u);
    return 0;
}

static void start_or_fail(struct upgrade *u)
{
    char why[256];
    int err = atomic_load(&u->sockets.err);
    if (!err)
        err = upgrade_sockets_add_guest(&u->sockets);
    if (!err)
        err = start(u);
    if (!err)
        return;
    snprintf(why, sizeof why, "cannot start the new process: %s", err_text(err));
    fail(u, why);
}

/* --- taking the sockets
 * ------------------------------------------------------------------------------------ */

void server_upgrade_taken(struct server *s)
{
    struct upgrade *u = s->upgrade;
    if (!u || atomic_load(&u->sockets.n_busy))
        return;
    if (u->stage == TAKING) {
        start_or_fail(u);
    } else if (u->stage == FAILED && !u->pid) {
        end(u);
        go_on(s);
    }
}

static void take_sockets(struct upgrade *u)
{
    struct server *s = u->server;
    u->stage = TAKING;
    uv_timer_start(&s->upgrading, on_time, s->version.config->upgrade_ms, 0);
    server_set_copied(s, true); /* every worker knows before it has given its sockets */
    if (upgrade_sockets_take(&u->sockets, s))
        fail(u, err_text(-ENOMEM));
}

/* --- from outside
 * ------------------------------------------------------------------------------------------ */

void server_upgrade_go_on(struct server *s)
{
    if (s->upgrade && s->upgrade->stage == WAITING && !s->from)
        take_sockets(s->upgrade);
}

static const char *describe(const struct upgrade *u)
{
    if (!u->reported)
        return "an upgrade is under way";
    return u->pid ? "the process of the upgrade before has not ended yet"
                  : "a worker has not answered to the upgrade before yet";
}

static bool has_drained(const struct server *s)
{
    for (size_t i = 0; i < s->listeners.n; i++)
        if (s->listeners.items[i]->drained)
            return true;
    return false;
}

static const char *refusal(const struct server *s)
{
    if (s->order != WORKER_SERVE)
        return "not while stopping";
    if (s->upgrade)
        return describe(s->upgrade);
    if (has_drained(s))
        return "a listener is drained, and would be open again: penstock ctl up, or a reload "
               "without "
               "it, comes first";
    if (getpid() == 1)
        return "this is process 1, whose end is that of its container: replace the container";
    return s->origin && s->origin->path ? NULL : "the path of the running program is not known";
}

void server_upgrade(struct server *s, const char *by, struct server_waiter *waiter)
{
    const char *no = refusal(s);
    struct upgrade *u = no ? NULL : calloc(1, sizeof *u);
    if (!u) {
        no = no ? no : err_text(-ENOMEM);
        log_warn("%s: no upgrade: %s", by, no);
        if (waiter)
            waiter->done(waiter, s->order == WORKER_SERVE ? -EBUSY : -ESHUTDOWN, 0, no);
        return;
    }
    *u = (struct upgrade){.server = s, .by = by, .waiter = waiter, .channel = -1};
    s->upgrade = u;
    server_upgrade_go_on(s);
}

void server_upgrade_stop(struct server *s)
{
    struct upgrade *u = s->upgrade;
    if (!u)
        return;
    if (u->pid && u->stage != FAILED)
        kill(u->pid, u->stage == GOING ? SIGTERM : SIGKILL);
    u->stage = FAILED;
    u->reported = true;
    tell(u, -ESHUTDOWN, "not while stopping");
}

void server_upgrade_free(struct server *s)
{
    struct upgrade *u = s->upgrade;
    if (u)
        end(u);
}
