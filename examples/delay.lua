-- A slow network: connecting takes 100 to 300 ms longer, and each chunk from the server comes 50 ms later.
--
--   penstock -p examples/delay.lua --seed 1 15432 127.0.0.1:5432
--
-- While "down" waits nothing more is read from the server (it feels the back-pressure), and "up" runs on. The same
-- seed with one worker (--workers 1) gives the same delays again.
local ps = require "penstock"

return {
  connect = function(conn)
    local seconds = ps.random(100, 300) / 1000
    conn:tag("delay", seconds)
    ps.sleep(seconds)
  end,

  data = function(_, dir)
    if dir == "up" then return ps.PASS end
    ps.sleep "50ms"
  end,
}
