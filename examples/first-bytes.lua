-- Writes the first 32 bytes of each direction into the log, in hexadecimal and as text, and leaves all others to the C
-- relay: for finding out what a client speaks.
--
--   penstock -p examples/first-bytes.lua 8080 app.internal:80
--
-- The view that rd:buffer() gives is not made into a string but for the bytes that are shown.
local SHOWN = 32

local function show(bytes)
  local hex = bytes:gsub(".", function(c) return ("%02x "):format(c:byte()) end)
  return ("%s|%s|"):format(hex, (bytes:gsub("[^\32-\126]", ".")))
end

local function record(dir)
  return function(conn, rd, wr)
    local seen = ""
    while #seen < SHOWN do
      local part = rd:buffer(SHOWN - #seen)
      if not part then break end
      seen = seen .. part:sub(1, -1)
      wr:write(part)
    end
    if seen ~= "" then conn.log.info("%s: %s", dir, show(seen)) end
  end
end

return { filter = { up = record "up", down = record "down" } }
