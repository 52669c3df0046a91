-- Delays the greeting of a mail server by five seconds. Mail programs wait for it; who speaks before has no patience
-- for the protocol, most often because it sends spam: it is kept hanging for a minute, and never reaches the server.
--
--   penstock -p examples/early-talkers.lua :25 mail.internal:25
local ps = require "penstock"

local PATIENCE, HANG = 5, 60

return {
  connect = function(conn)
    local first = ps.timeout(PATIENCE, function() return (conn:peek(1)) end)
    if first then return ps.deny { reason = "early_talker", hang = HANG } end
  end,
}
