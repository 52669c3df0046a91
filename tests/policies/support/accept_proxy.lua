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
-- Ready policies that turn away by the client's address do so once that is known.
local ready = {
  { "allow", { "203.0.113.0/24" } }, { "deny", { "203.0.113.7" } }, { "rate", { concurrent = 1 } },
  { "tarpit", { clients = { "203.0.113.7" }, hold = 5 } },
}
for i, one in ipairs(ready) do
  ps.listen {
    name = one[1], bind = "127.0.0.1:" .. 9000 + i, to = "127.0.0.1:7001", accept_proxy = { from = "192.0.2.1" },
    policy = require("penstock.policy." .. one[1])(one[2]),
  }
end

ps.listen {
  name = "strict", bind = "127.0.0.1:8000", accept_proxy = { from = "198.51.100.9", others = "deny" },
  policy = { connect = function(conn)
    return { "127.0.0.1:7001", proxy = "v2", tlv = conn.proxy.tlv }
  end },
}
