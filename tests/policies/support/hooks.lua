-- Does what the client's address asks for.
local ps = require "penstock"

local asked = {
  ["10.0.0.1"] = function() ps.sleep(3600) end,
  ["10.0.0.2"] = function() error "boom" end,
  ["10.0.0.3"] = function() return ps.deny { reason = "nope" } end,
  ["10.0.0.4"] = function(conn)
    ps.sleep(2)
    conn:tag("age", conn.age)
    conn:tag("clock", os.clock())
    conn:tag("time", os.date("!%Y-%m-%d %H:%M:%S"))
    conn:tag("seconds", os.time())
  end,
  ["10.0.0.5"] = function(conn) conn:tag("random", ps.random(1e9)) end,
  ["10.0.0.6"] = function() return { "one.test:80", "two.test:80" } end,
}

return {
  connect = function(conn)
    local hook = asked[conn.client.ip]
    if hook then return hook(conn) end
  end,
  data = function(conn, dir, chunk)
    if conn.client.ip ~= "10.0.0.7" then return ps.PASS end
    if dir == "down" then return end
    if chunk:find "slow" then ps.sleep(1) end
    if chunk:find "bad" then error "bad chunk" end
    return chunk:upper()
  end,
}
