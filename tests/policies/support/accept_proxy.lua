-- Behind two kinds of proxies: who the client is, their PROXY header tells.
local ps = require "penstock"

local function check(conn)
  conn:tag("told", conn.proxy and tostring(conn.proxy.told) or "-")
  if conn.client.ip:find "^10%." then return ps.deny { reason = "internal" } end
end

ps.listen {
  name = "edge", bind = "127.0.0.1:7000", to = "127.0.0.1:7001", policy = { connect = check },
  accept_proxy = { from = { "192.0.2.0/24", "unix" } }, limits = { per_ip = 1 }, timeouts = { handshake = 3 },
}
ps.listen {
  name = "strict", bind = "127.0.0.1:8000", accept_proxy = { from = "198.51.100.9", others = "deny" },
  policy = { connect = function(conn)
    return { "127.0.0.1:7001", proxy = "v2", tlv = conn.proxy.tlv }
  end },
}
