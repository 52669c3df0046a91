-- What runs beside a hook: ps.spawn, race, all, timeout, signals, timers. core.task (core/script/lib_task.c) makes
-- tasks and gates; a task starts once the running one waits or ends.
local error, pcall, select, type, unpack = error, pcall, select, type, unpack

local function check_function(f, call, level)
  if type(f) ~= "function" then error(call .. ": a function is expected, got " .. type(f), level or 3) end
end

local function pack(...) return { n = select("#", ...), ... } end

-- install(ps, core, time_ms): time_ms(value, call, level) raises for what is no time.
return function(ps, core, time_ms)
  local task = core.task
  local spawn, cancel, wait, gate, open, shut = task.spawn, task.cancel, task.wait, task.gate, task.open, task.shut

  -- A limit of 0 seconds is one, too; for C it would be none.
  local function limit_ms(seconds, call)
    if seconds == nil then return 0 end
    local ms = time_ms(seconds, call, 3)
    return ms > 0 and ms or 1
  end

  -- What a wait answers: true and results, or false and what to raise.
  local function settle(ok, a, b)
    if ok then return a, b end
    return error(a, 3)
  end

  -- ---- tasks ----

  local results = setmetatable({}, { __mode = "k" }) -- handle -> what its function returned
  local handle_methods = {}
  task.set_methods(handle_methods)

  -- task:wait([seconds]) -> what its function returned; nil, "timeout"; nil, "closed" when it failed or was cancelled.
  function handle_methods.wait(self, seconds)
    local done, why = settle(wait(self, limit_ms(seconds, "task:wait([seconds])")))
    if not done then return nil, why end
    local r = results[self]
    if not r then return nil, "closed" end
    return unpack(r, 1, r.n)
  end

  -- task:cancel(): its next wait raises ps.CANCELLED. true when it was still there.
  function handle_methods.cancel(self) return cancel(self) end

  local function start(f, kind, scope, ...)
    local args, handle = pack(...), nil
    handle = spawn(function() results[handle] = pack(f(unpack(args, 1, args.n))) end, kind, scope)
    return handle
  end

  -- ps.spawn(f, …) -> task. It ends with the connection of the hook that has made it.
  function ps.spawn(f, ...)
    check_function(f, "ps.spawn(f, …)")
    return start(f, task.SPAWN, "conn", ...)
  end

  -- ---- several at once ----

  -- Runs the functions as children of this task; `done(i, ok, results)` is told each end and returns true when that
  -- was enough.
  local function together(call, functions, ms, done)
    local ready, children, enough = gate(), {}, false
    for i = 1, functions.n do check_function(functions[i], call, 4) end
    for i = 1, functions.n do
      children[i] = spawn(function()
        local r = pack(pcall(functions[i]))
        if not enough and done(i, r) then
          enough = true
          open(ready)
        end
      end, task.SPAWN, "child")
    end
    local ok, a, b = wait(ready, ms)
    enough = true
    for i = 1, functions.n do cancel(children[i]) end
    return ok, a, b
  end

  -- ps.race(f, …) -> what the first function to end returned; its error is raised. The others are cancelled.
  function ps.race(...)
    local first
    if select("#", ...) == 0 then error("ps.race(f, g, …): at least one function is expected", 2) end
    local ok, why = together("ps.race(f, g, …)", pack(...), 0, function(_, r)
      first = r
      return true
    end)
    if not ok then return error(why, 2) end
    if not first[1] then return error(first[2], 0) end
    return unpack(first, 2, first.n)
  end

  -- ps.all(f, …) -> the first result of each function, in order. The first error is raised and cancels the others.
  function ps.all(...)
    local functions, values, left, failed = pack(...), {}, select("#", ...), nil
    if left == 0 then return end
    local ok, why = together("ps.all(f, g, …)", functions, 0, function(i, r)
      if not r[1] then
        failed = r
        return true
      end
      values[i], left = r[2], left - 1
      return left == 0
    end)
    if not ok then return error(why, 2) end
    if failed then return error(failed[2], 0) end
    return unpack(values, 1, functions.n)
  end

  -- ps.timeout(seconds, f, …) -> what f returned, or nil, "timeout".
  function ps.timeout(seconds, f, ...)
    local call = "ps.timeout(seconds, f, …)"
    local ms, args, result = time_ms(seconds, call, 2), pack(...), nil
    check_function(f, call)
    local ok, a, b = together(call, { n = 1, function() return f(unpack(args, 1, args.n)) end }, ms > 0 and ms or 1,
      function(_, r)
        result = r
        return true
      end)
    if not ok then return error(a, 2) end
    if not result then return a, b end -- nil, "timeout"
    if not result[1] then return error(result[2], 0) end
    return unpack(result, 2, result.n)
  end

  -- ---- signals ----

  local Signal = {}
  Signal.__index = Signal
  Signal.__metatable = "signal"

  -- ps.signal() -> signal
  function ps.signal() return setmetatable({ gate = gate() }, Signal) end

  -- signal:set([value]): wakes all who wait; who comes later does not wait.
  function Signal:set(value)
    self.value = value
    open(self.gate)
  end

  -- signal:clear(): from now on it has to be set again.
  function Signal:clear()
    self.value = nil
    shut(self.gate)
  end

  -- signal:wait([seconds]) -> value, or nil, "timeout".
  function Signal:wait(seconds)
    local done, why = settle(wait(self.gate, limit_ms(seconds, "signal:wait([seconds])")))
    if not done then return nil, why end
    return self.value
  end

  -- ---- timers ----

  -- ps.after(seconds, f, …) -> task: runs f once, whatever becomes of the connection it was called for.
  function ps.after(seconds, f, ...)
    local call = "ps.after(seconds, f, …)"
    local ms, args = time_ms(seconds, call, 2), pack(...)
    check_function(f, call)
    return start(function()
      settle(core.sleep(ms))
      return f(unpack(args, 1, args.n))
    end, task.TIMER, "vm")
  end

  local every_call = 'ps.every(seconds, f, { once_per = "host" })'

  -- ps.every(seconds, f, [{ once_per = "worker" | "host" }]) -> task: runs f again and again, the next time `seconds`
  -- after it has ended. An error is logged and ends that run only. once_per "host": in one worker of the process.
  function ps.every(seconds, f, options)
    local ms = time_ms(seconds, every_call, 2)
    if ms < 1 then error(every_call .. ": the time must be longer than 0", 2) end
    check_function(f, every_call)
    options = options or {}
    require("penstock.check").keys(options, every_call, { "once_per" }, 2)
    local once_per = options.once_per or "worker"
    if once_per ~= "worker" and once_per ~= "host" then
      error(every_call .. ': once_per is "worker" (the default) or "host"', 2)
    end
    return start(function()
      if once_per == "host" and core.worker ~= 0 then return end
      while true do
        settle(core.sleep(ms))
        settle(wait(spawn(f, task.TIMER, "child"), 0))
      end
    end, task.TIMER, "vm")
  end

  -- ps.on_start(f): runs f once this worker serves; it may wait.
  function ps.on_start(f)
    check_function(f, "ps.on_start(f)")
    return start(f, task.START, "vm")
  end

  -- ps.on_reload(f): the same, when this version of the script has replaced an earlier one.
  function ps.on_reload(f)
    check_function(f, "ps.on_reload(f)")
    return start(function() if task.again() then return f() end end, task.RELOAD, "vm")
  end

  local stops = {}

  local function run_stops()
    for i = 1, #stops do settle(wait(spawn(stops[i], task.STOP, "child"), 0)) end
  end

  -- ps.on_stop(f): runs f when this version gets no more connections: another has replaced it, or the process stops.
  -- All together may take 5 s.
  function ps.on_stop(f)
    check_function(f, "ps.on_stop(f)")
    if #stops == 0 then task.set_stop(run_stops) end
    stops[#stops + 1] = f
  end
end
