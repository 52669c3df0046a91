-- Replaces a token in what clients send, and leaves what the server answers to the C relay.
--
--   penstock -p examples/hello-rewrite.lua 8080 app.internal:80
--
-- A chunk is what one read gave: a token that happens to lie across the border of two chunks is not found. For a line
-- typed by a person or a request that fits one packet that does not happen; do not rely on it for security.
local ps = require "penstock"

return {
  data = function(conn, dir, chunk)
    if dir == "down" then return ps.PASS end
    local changed, n = chunk:gsub("hello", "howdy")
    if n > 0 then conn.ctx.replaced = (conn.ctx.replaced or 0) + n end
    return changed
  end,

  close = function(conn)
    if conn.ctx.replaced then conn.log.info("%d tokens replaced", conn.ctx.replaced) end
  end,
}
