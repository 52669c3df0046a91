/* Every metric of penstock's own: docs/metrics.md has the same list, which scripts/check-metrics
 * proves. */
#ifndef PENSTOCK_PROXY_STATS_LIST_H
#define PENSTOCK_PROXY_STATS_LIST_H

/* X(NAME, TYPE, name, labels, help) */
#define OWN_METRICS(X)                                                                             \
    X(CONNECTIONS_TOTAL, COUNTER, "penstock_connections_total", LABELS("listener", "reason"),      \
      "Connections that have ended, by the reason of the access log")                              \
    X(CONNECTIONS, GAUGE, "penstock_connections", LABELS("listener"), "Connections open now")      \
    X(BYTES, COUNTER, "penstock_bytes_total", LABELS("listener", "direction"),                     \
      "Bytes received from clients (up) and from upstreams (down)")                                \
    X(CONNECT, HISTOGRAM, "penstock_connect_seconds", LABELS("listener"),                          \
      "Time to reach an upstream, names and further addresses included")                           \
    X(FIRST_BYTE, HISTOGRAM, "penstock_first_byte_seconds", LABELS("listener"),                    \
      "Time from accepting a client to the first byte of its upstream")                            \
    X(LIFE, HISTOGRAM, "penstock_connection_seconds", LABELS("listener"),                          \
      "Time from accepting a client to the end of its connection")                                 \
    X(LIMITED, COUNTER, "penstock_limited_total", LABELS("listener"),                              \
      "Times a limit on connections was reached: a series of pauses, or one client refused")       \
    X(HANDSHAKES, COUNTER, "penstock_tls_handshakes_total",                                        \
      LABELS("listener", "result", "resumed"), "TLS handshakes with clients that have ended")      \
    X(HANDSHAKE, HISTOGRAM, "penstock_tls_handshake_seconds", LABELS("listener"),                  \
      "Time of those that succeeded")                                                              \
    X(CERTIFICATE, GAUGE, "penstock_tls_certificate_expiry_timestamp_seconds",                     \
      LABELS("listener", "side", "file"),                                                          \
      "When a certificate of the configuration expires, in seconds since 1970")                    \
    X(DIALS, COUNTER, "penstock_dials_total", LABELS("listener", "result"),                        \
      "Attempts to reach an upstream that have ended, each with all its addresses")                \
    X(DNS, COUNTER, "penstock_dns_queries_total", LABELS("result"),                                \
      "Questions for the addresses of a name that the cache could not answer")                     \
    X(SERVER_UP, GAUGE, "penstock_pool_server_up", LABELS("pool", "server"),                       \
      "1 while the server takes new connections, 0 while it is drained, down or ejected")          \
    X(POOL_CONNECTIONS, GAUGE, "penstock_pool_connections", LABELS("pool", "server"),              \
      "Connections that use the server now")                                                       \
    X(HOOK_CALLS, COUNTER, "penstock_hook_calls_total", LABELS("hook"),                            \
      "Calls of policies' hooks, filters and tasks")                                               \
    X(HOOK_ERRORS, COUNTER, "penstock_hook_errors_total", LABELS("hook"),                          \
      "Calls that ended with an error")                                                            \
    X(HOOK_SECONDS, COUNTER, "penstock_hook_seconds_total", LABELS("hook"),                        \
      "Time in Lua, without what was waited")                                                      \
    X(LUA_HEAP, GAUGE, "penstock_lua_heap_bytes", LABELS("worker"),                                \
      "Memory that Lua uses, in all versions of the policies that live still")                     \
    X(LUA_COROUTINES, GAUGE, "penstock_lua_coroutines", LABELS("worker"),                          \
      "Coroutines of hooks and tasks: those that run or wait, and some kept for the next call")    \
    X(LOOP_LAG, GAUGE, "penstock_loop_lag_seconds", LABELS("worker"),                              \
      "Longest round of the event loop in the last 10 to 20 seconds, the present one included")    \
    X(DESCRIPTORS, GAUGE, "penstock_open_descriptors", NO_LABELS, "Descriptors open now")          \
    X(MAX_DESCRIPTORS, GAUGE, "penstock_max_descriptors", NO_LABELS,                               \
      "Descriptors that may be open (ulimit -n)")                                                  \
    X(RELOADS, COUNTER, "penstock_reloads_total", LABELS("result"), "Reloads that have ended")     \
    X(BUILD, GAUGE, "penstock_build_info", LABELS("version"), "Always 1")                          \
    X(START_TIME, GAUGE, "process_start_time_seconds", NO_LABELS,                                  \
      "When the process started, in seconds since 1970")                                           \
    X(PROXY_REFUSED, COUNTER, "penstock_proxy_refused_total", LABELS("listener", "why"),           \
      "Connections ended for their PROXY header")

enum own_metric {
#define X(name, type, text, labels, help) OWN_##name,
    OWN_METRICS(X)
#undef X
};

#endif
