-- ps.tcp and ps.dns: connections of a script's own. A socket is a stream (penstock.stream) that also answers to the
-- names of OpenResty's cosockets, so that libraries written for those run.
local check = require "penstock.check"
local error, tonumber, type = error, tonumber, type

local connect_call = 'ps.tcp.connect("host:port", { timeout = 5 })'
local POOL_SIZE, IDLE_MS = 30, 60000

-- install(ps, core, methods, time_ms); `methods` are those of streams.
return function(ps, core, methods, time_ms)
  local socket = core.socket
  local pools = {} -- name -> list of streams that keep an idle connection, the newest last
  local state = setmetatable({}, { __mode = "k" }) -- stream -> { name =, connect_ms =, reused = }

  local function state_of(self)
    local s = state[self]
    if not s then
      s = { reused = 0 }
      state[self] = s
    end
    return s
  end

  local function settle(ok, a, b, c)
    if ok then return a, b, c end
    return error(a, 3)
  end

  -- ---- connecting ----

  ps.tcp = {}

  -- ps.tcp.new() -> a socket that is not connected.
  function ps.tcp.new() return socket.new() end

  -- ps.tcp.connect(destination, [{ timeout = seconds }]) -> socket; nil, word, detail. The timeout holds for
  -- connecting and for each later wait.
  function ps.tcp.connect(destination, options)
    options = options or {}
    check.keys(options, connect_call, { "timeout" }, 2)
    if type(destination) ~= "string" and type(destination) ~= "table" and type(destination) ~= "userdata" then
      error(connect_call .. ": a destination is expected, got " .. type(destination), 2)
    end
    local ms = options.timeout ~= nil and time_ms(options.timeout, connect_call, 2) or 0
    local s = socket.new()
    local ok, why, detail = settle(socket.connect(s, destination, ms))
    if not ok then return nil, why, detail end
    socket.set_timeout(s, ms)
    return s
  end

  -- ---- the cosocket names ----

  local function take_idle(self, name)
    local pool = pools[name]
    while pool and #pool > 0 do
      local keeper = table.remove(pool)
      if socket.take(self, keeper) then
        local s = state_of(self)
        s.reused, s.tls = state_of(keeper).reused + 1, state_of(keeper).tls
        return true
      end
    end
  end

  local function reach(self)
    local s = state_of(self)
    s.reused, s.tls = 0, nil
    local ok, why, detail = settle(socket.connect(self, s.text, s.connect_ms or 0))
    if not ok then return nil, why, detail end
    socket.set_timeout(self, s.io_ms or 0)
    return 1
  end

  -- socket:connect(host, port, [{ pool = name }]) or ("unix:/path"): 1; nil, word. An idle connection of the pool
  -- is used first.
  function methods.connect(self, host, port, options)
    if type(host) ~= "string" then error('socket:connect("host", port)', 2) end
    if type(port) == "table" then port, options = nil, port end
    local text = host
    if host:sub(1, 5) ~= "unix:" then
      if not tonumber(port) then error('socket:connect("host", port): the port is a number', 2) end
      text = (host:find(":", 1, true) and host:sub(1, 1) ~= "[" and "[%s]:%d" or "%s:%d"):format(host, port)
    end
    local s = state_of(self)
    if socket.is_open(self) then socket.close(self) end
    s.name, s.text = options and options.pool or text, text
    if not take_idle(self, s.name) then return reach(self) end
    socket.set_timeout(self, s.io_ms or 0)
    return 1
  end

  local tls_options = { "ca", "name", "pin", "cert", "key", "alpn", "min", "insecure" }

  -- What makes one TLS connection differ from another.
  local function tls_key(options)
    local parts = {}
    for i, key in ipairs(tls_options) do
      local value = options[key]
      parts[i] = type(value) == "table" and table.concat(value, ",") or tostring(value)
    end
    return table.concat(parts, "|")
  end

  -- socket:sslhandshake([session], [name], [verify]) -> true; nil, word, detail. As OpenResty's, but that the
  -- certificate is checked unless `verify` is false. `name` may be a table of TLS options instead. An idle connection
  -- of the pool that has the same TLS is used first.
  function methods.sslhandshake(self, _, name, verify)
    local options = name
    if type(name) ~= "table" then options = { name = name, insecure = verify == false or nil } end
    local s, key = state_of(self), tls_key(options)
    if s.tls == key and socket.is_open(self) then return true end
    local kept = not s.tls and s.name and pools[s.name .. "|" .. key]
    if kept and #kept > 0 then
      socket.close(self)
      if take_idle(self, s.name .. "|" .. key) then
        socket.set_timeout(self, s.io_ms or 0)
        return true
      end
      local ok, why, detail = reach(self)
      if not ok then return nil, why, detail end
    end
    local ok, why, detail = settle(core.tls.start_socket(self, options))
    if not ok then return nil, why, detail end
    s.tls = key
    return true
  end

  -- socket:settimeout(ms), settimeouts(connect, send, read): milliseconds, as cosockets have it.
  function methods.settimeout(self, ms)
    methods.settimeouts(self, ms, ms, ms)
  end

  function methods.settimeouts(self, connect_ms, send_ms, read_ms)
    local s = state_of(self)
    s.connect_ms, s.io_ms = tonumber(connect_ms), tonumber(read_ms) or tonumber(send_ms)
    socket.set_timeout(self, s.io_ms or 0)
  end

  local function flatten(value, list)
    if type(value) ~= "table" then
      list[#list + 1] = value
      return list
    end
    for i = 1, #value do flatten(value[i], list) end
    return list
  end

  -- socket:send(string | list) -> bytes; nil, word.
  function methods.send(self, data)
    local text = type(data) == "table" and table.concat(flatten(data, {})) or tostring(data)
    local ok, why = methods.write(self, text)
    if ok then ok, why = methods.flush(self) end
    if not ok then return nil, why end
    return #text
  end

  -- cosockets say "closed" where streams say "eof" or "reset".
  local function closed(why) return (why == "eof" or why == "reset") and "closed" or why end

  local function rest(self)
    local parts = {}
    while true do
      local part, why = methods.read(self)
      if not part then
        if why then return nil, closed(why), table.concat(parts) end
        return table.concat(parts)
      end
      parts[#parts + 1] = part
    end
  end

  -- What a failed read has left: cosockets hand it out as the third result.
  local function with_partial(self, why)
    if why ~= "eof" and why ~= "reset" then return nil, why, "" end
    local left = rest(self) or ""
    return nil, "closed", left
  end

  -- socket:receive([n | "*l" | "*a"]) -> string; nil, word, partial.
  function methods.receive(self, pattern)
    if pattern == nil or pattern == "*l" or pattern == "l" then
      local line, eol = methods.line(self, 2 ^ 26)
      if line and eol ~= "" then return line end
      if line then return nil, "closed", line end
      return with_partial(self, eol)
    end
    if pattern == "*a" or pattern == "a" then return rest(self) end
    local n = tonumber(pattern)
    if not n or n < 0 then error('socket:receive(n), receive("*l") or receive("*a")', 2) end
    if n == 0 then return "" end
    local bytes, why = methods.exactly(self, n)
    if bytes then return bytes end
    return with_partial(self, why)
  end

  -- socket:receiveany(max) -> string; nil, word.
  function methods.receiveany(self, max)
    local bytes, why = methods.read(self, max)
    if bytes then return bytes end
    return nil, closed(why or "eof")
  end

  -- socket:receiveuntil(delimiter, [{ inclusive = bool }]) -> a function that reads up to there.
  function methods.receiveuntil(self, delimiter, options)
    local inclusive = options and options.inclusive
    return function()
      local text, why = methods.upto(self, delimiter, 2 ^ 26)
      if not text then return with_partial(self, why) end
      return inclusive and text .. delimiter or text
    end
  end

  -- socket:setkeepalive([ms], [size]) -> 1; nil, word: the connection waits for the next connect() to its pool.
  function methods.setkeepalive(self, ms, size)
    local s = state_of(self)
    local name = s.name
    if not name or not socket.is_open(self) then return nil, "closed" end
    if s.tls then name = name .. "|" .. s.tls end -- who connects in plain must not get it
    local keeper = socket.park(self, tonumber(ms) or IDLE_MS)
    if not keeper then
      socket.close(self)
      return nil, "closed"
    end
    state_of(keeper).reused, state_of(keeper).tls = s.reused, s.tls
    local pool = pools[name] or {}
    pools[name] = pool
    pool[#pool + 1] = keeper
    if #pool > (tonumber(size) or POOL_SIZE) then socket.close(table.remove(pool, 1)) end
    return 1
  end

  -- socket:getreusedtimes() -> how often this connection came from a pool.
  function methods.getreusedtimes(self) return state_of(self).reused end

  -- socket:close() -> 1. What was written is delivered.
  function methods.close(self)
    if not socket.is_open(self) then return nil, "closed" end
    socket.close(self)
    return 1
  end

  -- ---- names ----

  local resolve_call = 'ps.dns.resolve(name, "A" | "AAAA")'
  ps.dns = {}

  -- ps.dns.resolve(name, [type], [{ timeout = seconds }]) -> list of addresses; nil, "dns" or "timeout", detail.
  -- Without a type: the IPv4 addresses, or else the IPv6 ones.
  function ps.dns.resolve(name, kind, options)
    if type(name) ~= "string" or name == "" then error(resolve_call .. ": a name is expected", 2) end
    if kind ~= nil and kind ~= "A" and kind ~= "AAAA" then error(resolve_call .. ': the type is "A" or "AAAA"', 2) end
    check.keys(options or {}, resolve_call, { "timeout" }, 2)
    local ms = options and options.timeout and time_ms(options.timeout, resolve_call, 2) or 0
    local list, why, detail = settle(socket.resolve(name, kind == "AAAA", ms))
    if list or kind or why ~= "dns" then return list, why, detail end
    return settle(socket.resolve(name, true, ms))
  end
end
