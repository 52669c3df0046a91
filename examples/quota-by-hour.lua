-- Limits how many connections a client may have at once: five during working hours, twenty at other times.
--
--   penstock -p examples/quota-by-hour.lua :8080 app.internal:80
--
-- The count is in a store, one for all workers. Twelve hours after a client's first connection it begins anew, so that
-- the store forgets who does not come any more.
local ps = require "penstock"

local open = ps.store("quota-open", { items = 100000 })

local function most()
  local now = os.date "*t"
  local weekday, working = now.wday >= 2 and now.wday <= 6, now.hour >= 8 and now.hour < 18
  return weekday and working and 5 or 20
end

return {
  accept = function(conn)
    conn.ctx.counted = open:incr(conn.client.key, 1, 0, "12h")
    if conn.ctx.counted > most() then return ps.deny { reason = "quota" } end
  end,

  close = function(conn)
    if conn.ctx.counted then open:incr(conn.client.key, -1) end
  end,
}
