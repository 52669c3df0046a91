-- Methods of conn that need a Lua half: those that wait, and those whose options are a table.
local check = require "penstock.check"
local error, pairs, type = error, pairs, type

local timeout_call = "conn:timeout{ idle = 60, half_closed = 10 }"
local capture_call = 'conn:capture("path.pcapng", { side = "both", max = "100M", first = "64K" })'
local capture_keys = { "side", "max", "first" }
local sides = { client = true, upstream = true, both = true }
local CAPTURE_MAX, CAPTURE_LEAST = 100 * 1024 * 1024, 128 * 1024

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

  -- A size as a number of bytes; `least` or more, or 0.
  local function size(key, value, least, default)
    if value == nil then return default end
    local n = core.size(value)
    if not n or n ~= 0 and n < least then
      error(("%s: %s is a size of %d or more, or 0 for no limit"):format(capture_call, key, least), 3)
    end
    return n
  end

  -- conn:capture(path [, { side =, max =, first = }]): what goes over the connection, into a file for Wireshark;
  -- conn:capture(false): no more.
  function methods.capture(self, path, options)
    if path == false then return conn.capture_end(self) end
    if type(path) ~= "string" or path == "" or path:find("\0", 1, true) then
      error("the right call is " .. capture_call .. ", or conn:capture(false)", 2)
    end
    if options == nil then return conn.capture(self, path, CAPTURE_MAX, 0, "client") end
    check.keys(options, capture_call, capture_keys, 2)
    local side = options.side == nil and "client" or options.side
    if not sides[side] then error(capture_call .. ': side is "client", "upstream" or "both"', 2) end
    local max = size("max", options.max, CAPTURE_LEAST, CAPTURE_MAX)
    return conn.capture(self, path, max, size("first", options.first, 1, 0), side)
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
