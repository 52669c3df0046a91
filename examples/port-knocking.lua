-- The SSH server opens to a client for 30 seconds, once that has knocked at three other ports in the right order.
--
--   penstock run examples/port-knocking.lua
--
-- A knock is a connection, which is reset. Stores are one for all workers, so it does not matter which of them sees
-- which knock.
local ps = require "penstock"

local knocks = { ":7010", ":7030", ":7020" }
local steps = ps.store("knock-steps", { items = 10000 })
local open = ps.store("knock-open", { items = 10000 })

for number, address in ipairs(knocks) do
  ps.listen { name = "knock-" .. number, bind = address, policy = {
    connect = function(conn)
      local client = conn.client.key
      if (steps:get(client) or 0) ~= number - 1 then
        steps:del(client) -- wrong order: from the beginning
      elseif number < #knocks then
        steps:set(client, number, "10s")
      else
        steps:del(client)
        open:set(client, true, "30s")
        conn.log.info("opens to %s", client)
      end
      return ps.deny { reason = "knock", reset = true }
    end } }
end

ps.listen { name = "ssh", bind = ":7022", to = "127.0.0.1:22", policy = {
  accept = function(conn)
    if not open:get(conn.client.key) then return ps.deny { reason = "closed", reset = true } end
  end } }
