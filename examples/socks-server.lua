-- A proxy for programs of the house: SOCKS5 and HTTP's CONNECT on one port, told apart by the first byte.
--
--   penstock run examples/socks-server.lua
--   curl -x socks5h://alice:wonderland@127.0.0.1:1080 https://www.example.com/
--   curl -x http://alice:wonderland@127.0.0.1:1080 https://www.example.com/
--
-- Clients come from the house's networks, and not too fast, so that passwords are not guessed. They may go to the
-- web, and to one network of the house by SSH; nowhere else, whatever name they say.
local ps = require "penstock"

local options = {
  allow = { "*:80", "*:443", "10.20.0.0/16:22" },
  users = { alice = "wonderland", bob = "builder" }, -- or a file that others may not read: "/etc/penstock/users"
}
local socks = require "penstock.policy.socks"(options)
local http = require "penstock.policy.connect"(options)

-- Ready policies are tables of hooks, so a policy of one's own may choose among them.
local either = {
  connect = function(conn)
    local first, why = conn:peek(1)
    if not first then return ps.deny { reason = why } end
    conn.ctx.proxy = first == "\5" and socks or http
    return conn.ctx.proxy.connect(conn)
  end,
  connected = function(conn) return conn.ctx.proxy.connected(conn) end,
  failed = function(conn, ...) return conn.ctx.proxy.failed(conn, ...) end,
}

ps.listen {
  name = "proxy", bind = ":1080", limits = { per_ip = 200 }, timeouts = { handshake = 5 },
  policy = {
    require "penstock.policy.allow" { "127.0.0.0/8", "10.0.0.0/8" },
    require "penstock.policy.rate" { connections = 10, burst = 100 },
    either,
  },
}
