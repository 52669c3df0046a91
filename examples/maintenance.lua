-- Forwards HTTP, and answers with a page of its own while the server cannot be reached.
--
--   penstock -p examples/maintenance.lua :8080 app.internal:80
local ps = require "penstock"

local page = "Back in a few minutes.\n"
local answer = table.concat({
  "HTTP/1.1 503 Service Unavailable", "Content-Type: text/plain", "Content-Length: " .. #page, "Retry-After: 60",
  "Connection: close", "", page,
}, "\r\n")

return {
  failed = function(conn, dest, err)
    conn.log.warn("%s: %s", dest, err)
    return ps.reply(answer)
  end,
}
