-- Waits pass through the script's own coroutines. The scheduler here is a few lines of Lua.
local raw = {}
for k, v in pairs(coroutine) do raw[k] = v end

local WAIT = {}
local aborted, tasks, library

local function sleep() -- as ps.sleep: yields, then raises what it is told
  if not raw.isyieldable() then error "boundary" end
  local ok, err = raw.yield(WAIT)
  if not ok then error(err, 0) end
end

-- Runs a hook; every wait is answered by `answer(n)` -> ok, err. Returns its results and the number of waits.
local function run(hook, answer)
  local co = raw.create(hook)
  tasks[co] = true
  local waits, result = 0, { raw.resume(co) }
  while raw.status(co) == "suspended" do
    assert.equal(WAIT, result[2])
    waits = waits + 1
    result = { raw.resume(co, (answer or function() return true end)(waits)) }
    if waits == 2 then result[3] = result[3] or "CANCELLED" end
  end
  return waits, unpack(result)
end

before_each(function()
  aborted, tasks = 0, setmetatable({}, { __mode = "k" })
  library = require "penstock.coroutines"(raw, {
    WAIT = WAIT, BOUNDARY = "boundary", tasks = tasks, abort_wait = function() aborted = aborted + 1 end,
    check_stack = function() end,
  })
end)

describe("coroutines", function()
  it("behave as ever without waits", function()
    local gen = library.wrap(function(a, b)
      local c = library.yield(a + b)
      local d, e = library.yield(c * 2)
      return d, e, nil
    end)
    assert.equal(3, gen(1, 2))
    assert.equal(20, gen(10))
    assert.same({ n = 3, "x", "y" }, { n = select("#", gen("x", "y")), "x", "y" })
    assert.has_error(gen, "cannot resume dead coroutine")
    local co = library.create(function() error({ code = 7 }) end)
    assert.equal("suspended", library.status(co))
    local ok, err = library.resume(co)
    assert.is_false(ok)
    assert.equal(7, err.code)
    assert.equal("dead", library.status(co))
  end)

  it("let waits through a generator", function()
    local waits, ok, sum = run(function()
      local sum = 0
      for n in library.wrap(function() for i = 1, 5 do sleep() library.yield(i) end end) do sum = sum + n end
      return sum
    end)
    assert.equal(5, waits)
    assert.is_true(ok)
    assert.equal(15, sum)
  end)

  it("let waits through several levels and pcall", function()
    local waits, ok, result = run(function()
      local inner = library.wrap(function() pcall(sleep) library.yield("a") sleep() return "b" end)
      local outer = library.wrap(function() library.yield(inner()) return inner() end)
      return outer() .. outer()
    end)
    assert.equal(2, waits)
    assert.is_true(ok)
    assert.equal("ab", result)
  end)

  it("raise a cancellation where the wait was", function()
    local waits, ok, where = run(function()
      local co = library.create(function() local fine, err = pcall(sleep) return tostring(fine) .. " " .. err end)
      return select(2, library.resume(co))
    end, function() return false, "CANCELLED" end)
    assert.equal(1, waits)
    assert.is_true(ok)
    assert.equal("false CANCELLED", where)
  end)

  it("fail a wait below a C function with its cause", function()
    local _, ok, result = run(function()
      local gen = library.wrap(function() sleep() end)
      return select(2, pcall(string.gsub, "x", "x", function() gen() end))
    end)
    assert.is_true(ok)
    assert.equal("boundary", result)
    assert.equal(1, aborted)
  end)

  it("are not resumable by others while they wait", function()
    local co
    local first = raw.create(function() return library.resume(co) end)
    co = library.create(function() sleep() return "done" end)
    tasks[first] = true
    assert.equal(WAIT, select(2, raw.resume(first)))
    assert.equal("normal", library.status(co))
    assert.same({ false, "cannot resume a coroutine that waits" }, { library.resume(co) })
    assert.same({ true, true, "done" }, { raw.resume(first, true) })
    assert.equal("dead", library.status(co))
  end)

  it("keep hands off the hooks' own coroutines", function()
    local _, ok, err = run(function() return pcall(library.yield, 1) end)
    assert.is_true(ok)
    assert.is_false(err)
    local hook = raw.create(function() end)
    tasks[hook] = true
    assert.same({ false, "cannot resume the coroutine of a hook" }, { library.resume(hook) })
  end)
end)
