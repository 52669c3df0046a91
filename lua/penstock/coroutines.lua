-- The coroutine library of policies. Waits of penstock (ps.sleep and its kin) inside a script's own coroutines pass
-- through every resume up to the scheduler, which resumes the hook's coroutine; that passes the answer back down.

-- make(raw, core) -> table. `raw` is LuaJIT's library; core.WAIT is the value a wait yields, core.tasks the set of
-- the hooks' own coroutines, core.abort_wait() undoes a wait just begun,
-- core.check_stack() raises before the C stack is used up.
return function(raw, core)
  local resume, yield, create = raw.resume, raw.yield, raw.create
  local running, yieldable, status = raw.running, raw.isyieldable, raw.status
  local WAIT, tasks, abort_wait, boundary = core.WAIT, core.tasks, core.abort_wait, core.BOUNDARY
  local type, error, check_stack = type, error, core.check_stack
  local waiting = setmetatable({}, { __mode = "k" }) -- coroutines of the script with a wait inside

  local pass

  local function go_on(co, ...)
    waiting[co] = nil
    return pass(co, resume(co, ...))
  end

  function pass(co, ok, first, ...)
    if not (ok and first == WAIT) then return ok, first, ... end
    if not yieldable() then -- a C function lies between this resume and the hook
      abort_wait()
      return pass(co, resume(co, false, boundary))
    end
    waiting[co] = true
    return go_on(co, yield(WAIT))
  end

  local library = {}

  function library.resume(co, ...)
    check_stack() -- each nested resume is deeper in C
    if tasks[co] then return false, "cannot resume the coroutine of a hook" end
    if waiting[co] then return false, "cannot resume a coroutine that waits" end
    return pass(co, resume(co, ...))
  end

  local function unwrap(ok, ...)
    if ok then return ... end
    return error((...), 0)
  end

  function library.wrap(f)
    if type(f) ~= "function" then
      error("bad argument #1 to 'wrap' (function expected, got " .. type(f) .. ")", 2)
    end
    local co, library_resume = create(f), library.resume
    return function(...) return unwrap(library_resume(co, ...)) end
  end

  function library.yield(...)
    if tasks[running()] then
      error("coroutine.yield outside of a coroutine of your own (a hook waits with ps.sleep)", 2)
    end
    return yield(...)
  end

  function library.status(co)
    if waiting[co] then return "normal" end
    return status(co)
  end

  library.create, library.running, library.isyieldable = create, running, yieldable
  return library
end
