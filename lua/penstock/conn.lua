-- Methods of conn that need a Lua half: those that wait, and those whose options are a table.
local check = require "penstock.check"
local error, pairs, type = error, pairs, type

local timeout_call = "conn:timeout{ idle = 60, half_closed = 10 }"
local timeout_keys = { "connect", "handshake", "first_byte", "idle", "half_closed", "life" }

-- install(ps, core, time_ms, starttls, hello)
return function(ps, core, time_ms, starttls, hello)
  local conn, task = core.conn, core.task
  -- conn:starttls(side, options): TLS with the client or the upstream from here on.
  local methods = { starttls = starttls }

  local function waiting(f)
    return function(self, a)
      local ok, x, y = f(self, a)
      if ok and x and not y then return x end
      if ok then return x, y end
      return error(x, 2)
    end
  end

  -- conn:peek(n), conn:peek_line([max]): what the client has sent, which stays for the upstream.
  methods.peek = waiting(conn.peek)
  methods.peek_line = waiting(conn.peek_line)

  -- conn:take(n), conn:take_line([max]): the same, and it is gone: the upstream does not get it.
  methods.take = waiting(conn.take)
  methods.take_line = waiting(conn.take_line)

  -- conn:http_host(): the host that an HTTP/1.x request is for, in lower case and without port.
  methods.http_host = waiting(conn.http_host)

  -- conn:hello([{ starttls =, name = }]): what a TLS client says first: { sni =, alpn =, versions =, … }.
  methods.hello = hello

  -- conn:timeout{ idle =, … }: deadlines of this connection from now on; 0 switches one off.
  function methods.timeout(self, options)
    check.keys(options, timeout_call, timeout_keys, 2)
    local ms = {}
    for key, value in pairs(options) do ms[key] = time_ms(value, timeout_call .. ": " .. key, 2) end
    return conn.timeouts(self, ms)
  end

  -- conn:deny{ reason =, reset = }: ends it as ps.deny does, at any time.
  function methods.deny(self, options)
    local deny = ps.deny(options)
    if deny.hang_ms > 0 then
      error("conn:deny ends at once; to keep the client waiting return ps.deny{ hang = … }", 2)
    end
    if deny.reply then error("conn:deny ends at once; to answer first return ps.deny{ reply = … }", 2) end
    return conn.deny(self, deny)
  end

  -- conn:after(seconds, f) -> task: runs f once, unless the connection ends before.
  function methods.after(self, seconds, f)
    local call = "conn:after(seconds, f)"
    local ms = time_ms(seconds, call, 2)
    if type(f) ~= "function" then error(call .. ": a function is expected, got " .. type(f), 2) end
    return task.spawn_for(self, function()
      local ok, why = core.sleep(ms)
      if not ok then error(why, 0) end
      f()
    end, task.AFTER)
  end

  conn.add_methods(methods)
end
