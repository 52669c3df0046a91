-- Lets in clients from a list of addresses and turns all others away.
--
--   penstock -p examples/allow-list.lua :6379 redis.internal:6379
--
-- The access log says  reason=denied detail=not_listed  for those turned away.
local ps = require "penstock"

local patterns = {
  "^127%.", -- this machine
  "^10%.", -- 10.0.0.0/8
  "^192%.168%.", -- 192.168.0.0/16
  "^2001:db8:",
}
local addresses = { ["203.0.113.7"] = true, ["::1"] = true }

local function listed(ip)
  if addresses[ip] then return true end
  for _, pattern in ipairs(patterns) do
    if ip:find(pattern) then return true end
  end
  return false
end

return {
  accept = function(conn)
    if not listed(conn.client.ip) then return ps.deny { reason = "not_listed", reset = true } end
  end,
}
