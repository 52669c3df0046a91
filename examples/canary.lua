-- Sends one connection in ten to the new version, and back to the old one when that cannot be reached.
--
--   penstock -p examples/canary.lua :8080 app.internal:80
local ps = require "penstock"

local canary, share = "app-next.internal:80", 0.1

return {
  connect = function(conn)
    if ps.random() >= share then return end
    conn:tag("canary", true)
    return { canary, "app.internal:80" }
  end,
}
