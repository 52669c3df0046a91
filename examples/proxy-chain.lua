-- 5. a chain of proxies with fail-over that keeps the client's address
local ps = require "penstock"
local exits = ps.pool { name = "exits", algo = "least_conn", check = { every = 5, fall = 2, rise = 1 },
  servers = { "socks5://u:p@10.0.0.1:1080", "socks5://10.0.0.2:1080", "http://10.0.0.3:3128" } }
ps.listen { name = "chain", bind = ":2525", policy = {
  connect = function(conn)
    local dests = {}
    for exit in exits:each(conn.client.key) do dests[#dests + 1] = { "mail.example:25", via = { exit }, timeout = 4 } end
    dests[#dests + 1] = { "relay.internal:25", proxy = "v2" }
    return dests
  end,
  failed = function(conn, dest, err) conn.log.warn("%s: %s", dest, err) end } }
