-- Spreads connections over servers in turn; one that cannot be reached is left out for ten seconds.
--
--   penstock -p examples/round-robin.lua :5432 -
--
-- The "-" stands for no target: the policy names one for each connection. Every worker keeps its own list of servers
-- that were down.
local ps = require "penstock"

local servers = { "10.0.0.5:5432", "10.0.0.6:5432", "10.0.0.7:5432" }
local REST = 10

local down_until = {}

-- All servers, beginning with the one whose turn it is; those that rest come last.
local function order(turn)
  local now, up, resting = os.time(), {}, {}
  for i = 0, #servers - 1 do
    local server = servers[(turn + i - 1) % #servers + 1]
    local list = (down_until[server] or 0) > now and resting or up
    list[#list + 1] = server
  end
  for _, server in ipairs(resting) do up[#up + 1] = server end
  return up
end

return {
  connect = function(conn)
    conn.ctx.order = order(conn.seq)
    conn.ctx.tried = 1
    return conn.ctx.order[1]
  end,

  failed = function(conn, dest, err)
    down_until[dest] = os.time() + REST
    conn.log.warn("%s: %s; not tried for %d s", dest, err, REST)
    conn.ctx.tried = conn.ctx.tried + 1
    return conn.ctx.order[conn.ctx.tried] or ps.deny { reason = "all_down", reset = true }
  end,
}
