-- One listener for each way of using streams: the client's address says which.
local ps = require "penstock"

local function headers(conn, rd, wr)
  for line, eol in rd:lines(8192) do
    if line == "" then
      wr:write("X-Client: ", conn.client.ip, eol, eol)
      return
    end
    if line:lower():find "^host:" then line = "Host: backend" end
    wr:write(line, eol)
  end
end

return {
  filter = { up = headers },
  connect = function(conn)
    if conn.client.ip == "10.0.0.2" then
      local other = assert(ps.tcp.connect "helper.test:99")
      other:write "who?\n"
      local line = other:line(100)
      other:close()
      conn:tag("helper", line)
    elseif conn.client.ip == "10.0.0.3" then
      local addresses, why = ps.dns.resolve("db.test", "A")
      conn:tag("dns", addresses and addresses[1] or why)
    elseif conn.client.ip == "10.0.0.4" then
      return { "far.test:80", via = { "socks5://exit.test:1080" } }
    elseif conn.client.ip == "10.0.0.5" then
      return { "127.0.0.1:7001", proxy = "v1" }
    end
  end,
}
