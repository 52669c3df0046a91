-- Tries a server that cannot be reached again after 1, 2, 4 and 8 seconds before the client is turned away.
--
--   penstock -p examples/back-off.lua :5432 db.internal:5432
local ps = require "penstock"

return {
  failed = function(conn, dest, err)
    local wait = conn.ctx.wait or 1
    if wait > 8 then return ps.deny { reason = err } end
    conn.ctx.wait = wait * 2
    ps.sleep(wait)
    return dest
  end,
}
