-- 1. routing by SNI, else by Host
local ps = require "penstock"
local routes = { ["db.lab"] = "10.0.0.5:5432", ["www.lab"] = { "10.0.0.6:443", "10.0.0.7:443" } }
ps.listen { name = "edge", bind = ":8443", timeouts = { handshake = 5 }, policy = {
  connect = function(conn)
    local hello, err = conn:hello()
    local name = hello and hello.sni or conn:http_host()
    conn:tag("name", name)
    return name and routes[name:lower()] or ps.deny { reset = true, reason = err or "no_route" }
  end } }
