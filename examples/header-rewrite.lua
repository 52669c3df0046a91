-- 3. header rewrite for a line protocol, then out of the way
local ps = require "penstock"
ps.listen { name = "legacy", bind = ":7000", to = "127.0.0.1:7001", policy = { filter = {
  up = function(conn, rd, wr)
    for line, eol in rd:lines(8192) do
      if line == "" then wr:write("X-Client: ", conn.client.ip, eol, eol) return end
      if line:lower():find("^host:") then line = "Host: backend" end
      wr:write(line, eol)
    end
  end } } }
