-- A small `ngx` table, so that libraries written for OpenResty (lua-resty-redis, lua-resty-lrucache and their kin) run
-- in hooks. Only what means the same here; what it lacks is nil, as in an OpenResty without that module.
local assert, error, getmetatable, pcall, rawset, select = assert, error, getmetatable, pcall, rawset, select
local setmetatable, tonumber, tostring, type, unpack = setmetatable, tonumber, tostring, type, unpack
local floor, huge, concat, gsub = math.floor, math.huge, table.concat, string.gsub

local function pack(...) return { n = select("#", ...), ... } end

-- ---- ngx.log ----

local levels = { STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8 }

local function level_word(level)
  if level <= levels.ERR then return "error" end
  return level == levels.WARN and "warn" or level == levels.DEBUG and "debug" or "info"
end

local function log_with(write)
  return function(level, ...)
    if type(level) ~= "number" or level < 0 or level > levels.DEBUG then
      error("ngx.log(ngx.ERR, …): the level is one of ngx.STDERR to ngx.DEBUG", 2)
    end
    local parts = pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    write(concat(parts, "", 1, parts.n), level_word(level))
  end
end

-- ---- ngx.thread ----

-- The thread's end, told to whoever waits for it or for several.
local Thread = {}
Thread.__index = Thread
Thread.__metatable = "ngx.thread"

local function finish(thread, results)
  thread.results = results
  for i = 1, #thread.waiting do thread.waiting[i]:set() end
  thread.waiting = {}
end

local function threads_over(ps)
  local thread = {}

  function thread.spawn(f, ...)
    if type(f) ~= "function" then error("ngx.thread.spawn(f, …): a function is expected, got " .. type(f), 2) end
    local self, args = setmetatable({ waiting = {} }, Thread), pack(...)
    self.task = ps.spawn(function()
      local results = pack(pcall(f, unpack(args, 1, args.n)))
      finish(self, results)
      if results[2] == ps.CANCELLED and not results[1] then error(ps.CANCELLED, 0) end
    end)
    return self
  end

  local function first_over(threads)
    for i = 1, threads.n do
      if threads[i].results then return threads[i] end
    end
  end

  -- true and what its function returned, or false and its error, of the first that ends.
  function thread.wait(...)
    local threads, signal = pack(...), ps.signal()
    if threads.n == 0 then error("ngx.thread.wait(thread, …): a thread is expected", 2) end
    for i = 1, threads.n do
      if getmetatable(threads[i]) ~= "ngx.thread" then
        error("ngx.thread.wait(thread, …): what ngx.thread.spawn returned is expected", 2)
      end
      if threads[i].taken then return nil, "already waited or killed" end
      threads[i].waiting[#threads[i].waiting + 1] = signal
    end
    local over = first_over(threads)
    if not over then
      signal:wait()
      over = assert(first_over(threads))
    end
    over.taken = true
    return unpack(over.results, 1, over.results.n)
  end

  function thread.kill(self)
    if getmetatable(self) ~= "ngx.thread" then
      error("ngx.thread.kill(thread): what ngx.thread.spawn returned is expected", 2)
    end
    if self.results or self.taken then return nil, "already terminated" end
    self.taken = true
    self.task:cancel()
    finish(self, { n = 2, false, "killed" }) -- it may not have begun
    return 1
  end

  return thread
end

-- ---- ngx.timer ----

local function timers_over(ps)
  -- The function's first argument tells of an end before its time, which here cancels it.
  local function timer(call, start)
    return function(seconds, f, ...)
      if type(seconds) ~= "number" or seconds < 0 then return nil, "invalid delay" end
      if type(f) ~= "function" then error(call .. ": a function is expected, got " .. type(f), 2) end
      local args = pack(...)
      start(seconds, function() f(false, unpack(args, 1, args.n)) end)
      return 1
    end
  end
  return {
    at = timer("ngx.timer.at(delay, f, …)", function(seconds, f) ps.after(seconds, f) end),
    every = timer("ngx.timer.every(delay, f, …)", function(seconds, f) ps.every(seconds, f) end),
  }
end

-- ---- ngx.shared ----

local function failure(why)
  if why == "too_long" then return "key too long" end
  if why == "limit" then return "no memory" end
  return (gsub(why, "_", " ")) -- "not found", "not a number", "exists"
end

local Dict = {}
Dict.__index = Dict

local function key_of(key)
  if key == nil then return nil, "nil key" end
  key = tostring(key)
  if key == "" then return nil, "empty key" end
  return key
end

local function check_ttl(seconds, call)
  if seconds == nil then return 0 end
  if type(seconds) ~= "number" or seconds < 0 then error(call .. ": the time is a number of seconds, 0 or more", 3) end
  return seconds
end

local function check_flags(flags, call)
  if flags ~= nil and flags ~= 0 then error(call .. ": penstock's stores have no flags", 3) end
end

local function is_value(value)
  local kind = type(value)
  return kind == "string" or kind == "number" or kind == "boolean" or value == nil
end

function Dict:get(key)
  local text, wrong = key_of(key)
  if not text then return nil, wrong end
  local value, why = self.store:get(text)
  if value == nil and why and why ~= "not_found" then return nil, failure(why) end
  return value
end

local function put(self, method, key, value, seconds)
  local text, wrong = key_of(key)
  if not text then return nil, wrong end
  if not is_value(value) then return nil, "bad value type" end
  local ok, why = self.store[method](self.store, text, value, seconds)
  if ok then return true end
  return false, failure(why)
end

function Dict:set(key, value, seconds, flags)
  check_flags(flags, "dict:set(key, value, seconds)")
  return put(self, "set", key, value, check_ttl(seconds, "dict:set(key, value, seconds)"))
end

function Dict:add(key, value, seconds, flags)
  check_flags(flags, "dict:add(key, value, seconds)")
  seconds = check_ttl(seconds, "dict:add(key, value, seconds)")
  if value == nil then return nil, "attempt to add or replace nil values" end
  return put(self, "add", key, value, seconds)
end

function Dict:delete(key) return self:set(key, nil) end

function Dict:incr(key, by, init, init_ttl)
  local call = "dict:incr(key, n, init, seconds)"
  local text, wrong = key_of(key)
  if not text then return nil, wrong end
  if type(by) ~= "number" then error(call .. ": n is a number", 2) end
  if init ~= nil and type(init) ~= "number" then error(call .. ": init is a number", 2) end
  local n, why = self.store:incr(text, by, init, check_ttl(init_ttl, call))
  if n then return n end
  return nil, failure(why)
end

-- Seconds left; 0 without an end.
function Dict:ttl(key)
  local text, wrong = key_of(key)
  if not text then return nil, wrong end
  local seconds, why = self.store:ttl(text)
  if not seconds then return nil, failure(why) end
  return seconds < huge and seconds or 0
end

local function dicts_over(ps)
  return setmetatable({}, { __index = function(dicts, name)
    local dict = setmetatable({ store = ps.store(name) }, Dict)
    dicts[name] = dict
    return dict
  end })
end

-- ---- the table ----

-- make(ps, core) -> ngx
return function(ps, core)
  local now = core.now or core.wall_clock -- of specs, where time stands still
  local log = log_with(core.write)
  local ngx = {
    OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
    null = core.null,
    config = { subsystem = "stream", debug = false },
    socket = { tcp = function() return ps.tcp.new() end },
    thread = threads_over(ps),
    timer = timers_over(ps),
    shared = dicts_over(ps),
    worker = {
      id = function() return core.worker end,
      pid = function() return core.pid() end,
      exiting = function() return core.is_retired() end,
    },
    now = now,
    time = function() return floor(now()) end,
    update_time = function() end, -- every look at the clock is a new one
    log = log,
  }
  for name, level in pairs(levels) do ngx[name] = level end

  function ngx.socket.connect(...)
    local socket = ps.tcp.new()
    local ok, why = socket:connect(...)
    if ok then return socket end
    return nil, why
  end

  function ngx.sleep(seconds)
    local number = tonumber(seconds)
    if not number or number < 0 then error("ngx.sleep(seconds): a number of seconds, 0 or more, is expected", 2) end
    ps.sleep(number)
  end

  -- ngx.ctx is conn.ctx of the hook's connection.
  return setmetatable(ngx, {
    __index = function(_, key)
      if key ~= "ctx" then return nil end
      local conn = core.current_conn()
      if not conn then error("ngx.ctx: there is no connection here; it is there in hooks", 2) end
      return conn.ctx
    end,
    __newindex = function(self, key, value)
      if key ~= "ctx" then return rawset(self, key, value) end
      local conn = core.current_conn()
      if not conn then error("ngx.ctx: there is no connection here; it is there in hooks", 2) end
      conn.ctx = value
    end,
  })
end
