-- Chooses a destination by the client's address, for each connection.
local routes = { ["127.0.0.1"] = os.getenv "PENSTOCK_BENCH_BACKEND" }

return {
    connect = function(conn)
        return routes[conn.client.ip]
    end,
}
