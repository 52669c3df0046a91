-- 2. token buckets per client, for connections and for bytes
local ps = require "penstock"
local conns = ps.bucket("conns", { rate = 5, burst = 20 })
local bytes = ps.bucket("bytes", { rate = "256K", burst = "1M" })
ps.listen { name = "web", bind = ":8080", to = "app.internal:80", limits = { per_ip = 50 }, policy = {
  accept = function(conn)
    if not conns:take(conn.client.key) then return ps.deny { reason = "rate" } end
    conn:limit { down = bytes:key(conn.client.key) }      -- enforced in C, no Lua on the byte path
  end } }
