/* A server that takes over from the process before. */
#include "penstock/proxy/handover.h"
#include "server_priv.h"

void server_set_origin(struct server *s, const struct server_origin *origin)
{
    s->origin = origin;
}

bool server_is_replaced(const struct server *s)
{
    return s->replaced;
}

void server_set_handover(struct server *s, struct handover *h)
{
    s->handover = h;
    s->quiet = h != NULL;
}

static void own_all(struct server *s)
{
    for (size_t i = 0; i < s->listeners.n; i++)
        listener_own(s->listeners.items[i]);
    if (s->guest)
        listener_own(s->guest->listener);
}

/* The service manager looks at this process now; or the one before has ended, and so it should. */
static void on_main(uv_poll_t *poll, int status, int events)
{
    struct server *s = poll->data;
    (void)status;
    (void)events;
    uv_close((uv_handle_t *)poll, NULL);
    own_all(s); /* not earlier: the one before may have given this one up meanwhile */
    handover_end(s->handover);
    s->handover = NULL;
    s->quiet = false;
    if (s->order == WORKER_SERVE && s->origin && s->origin->on_main)
        s->origin->on_main(s->origin->arg);
    server_notify(s, s->order == WORKER_SERVE ? "READY=1" : "STOPPING=1");
    server_tell_status(s);
}

void server_is_up(struct server *s)
{
    if (!s->handover)
        return;
    handover_tell_ready(s->handover);
    if (uv_poll_init(&s->loop, &s->before, handover_channel(s->handover)))
        return;
    s->before.data = s;
    uv_poll_start(&s->before, UV_READABLE, on_main);
}
