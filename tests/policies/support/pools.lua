-- Two servers with checks; and a pool of proxies.
local ps = require "penstock"
local web = ps.pool { name = "web", servers = { "10.0.0.1:80", { "10.0.0.2:80", name = "two" } },
  check = { every = 5, fall = 2, rise = 1 }, eject = { fails = 1, time = 60 } }
local exits = ps.pool { name = "exits", algo = "hash", servers = { "socks5://u:p@10.0.1.1", "http://10.0.1.2" } }

return {
  connect = function(conn)
    conn.ctx.state = web:server "two".state
    if conn.client.port ~= 1 then return web end
    local list = {}
    for exit in exits:each(conn.client.key) do list[#list + 1] = { "mail.example:25", via = { exit } } end
    return list
  end,
  close = function(conn) conn.log.info("two: %s", conn.ctx.state) end,
}
