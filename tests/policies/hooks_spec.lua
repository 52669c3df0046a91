-- The harness itself: hooks, their clock, their errors, and what can be told of them.
local t = require "penstock.test"

local function load(options)
  return t.load("support/hooks.lua", options)
end

describe("the clock", function()
  it("lets an hour of sleep pass in no time", function()
    local before = os.clock()
    local p = load()
    local u = p:upstream "127.0.0.1:7001"
    local c = p:client { ip = "10.0.0.1" }
    t.advance(3599.999)
    assert.equal(0, #u.connections)
    t.advance(0.001)
    assert.equal(1, #u.connections)
    assert.is_nil(c:ended())
    assert.is_true(os.clock() - before < 60)
  end)

  it("is the one that hooks see", function()
    local p = load { time = os.time { year = 2026, month = 1, day = 1, hour = 12 } }
    p:upstream "127.0.0.1:7001"
    t.advance(1)
    local c = p:client { ip = "10.0.0.4" }
    t.advance(2)
    local tags = c:reset():access().tags
    assert.same({ "2", "3" }, { tags.age, tags.clock })
    assert.equal(tostring(os.time { year = 2026, month = 1, day = 1, hour = 12, sec = 3 }), tags.seconds)
  end)

  it("begins with 2026 and goes on for policies loaded later", function()
    t.advance(10)
    local p = load()
    p:upstream "127.0.0.1:7001"
    local c = p:client { ip = "10.0.0.4" }
    t.advance(2)
    assert.equal("2026-01-01 00:00:12", c:reset():access().tags.time)
  end)
end)

describe("a data hook", function()
  local u, c

  before_each(function()
    local p = load()
    u, c = p:upstream "127.0.0.1:7001", p:client { ip = "10.0.0.7" }
  end)

  it("rewrites", function()
    c:send "hello"
    assert.equal("HELLO", u:received())
  end)

  it("that waits holds back its own direction only", function()
    c:send("slow"):send " and more"
    u:send "answer"
    assert.equal("", u:received())
    assert.equal("answer", c:received())
    t.advance(1)
    assert.equal("SLOW AND MORE", u:received())
  end)
end)

describe("an error of a hook", function()
  it("fails the spec where it came up", function()
    local p = load()
    local ok, why = pcall(p.client, p, { ip = "10.0.0.2" })
    assert.is_false(ok)
    assert.matches("script error in the connect hook: tests/policies/support/hooks.lua:6: boom", why, 1, true)
  end)

  it("can be expected, again and again", function()
    local p = load()
    p:expect_error "boom"
    for _ = 1, 2 do
      local c = p:client { ip = "10.0.0.2" }
      assert.same({ "script", "hook" }, { c:closed() })
      assert.equal("rst", c:ended())
    end
  end)

  it("resets both sides when it came up in a data hook", function()
    local p = load()
    local u, c = p:upstream "127.0.0.1:7001", p:client { ip = "10.0.0.7" }
    p:expect_error "bad chunk"
    c:send "bad"
    assert.equal("rst", c:ended())
    assert.equal("rst", u:ended())
    assert.equal("script", c:closed())
  end)
end)

describe("decisions", function()
  it("show in the reason and its detail", function()
    local c = load():client { ip = "10.0.0.3" }
    assert.same({ "denied", "nope" }, { c:closed() })
    assert.equal("fin", c:ended())
  end)

  it("may be a list of destinations", function()
    local p = load()
    local one, two = p:upstream "one.test:80", p:upstream "two.test:80"
    p:client { ip = "10.0.0.6" }
    assert.same({ 1, 0 }, { #one.connections, #two.connections })
    p:fail("one.test:80", "refused")
    p:client { ip = "10.0.0.6" }
    assert.same({ 1, 1 }, { #one.connections, #two.connections })
  end)
end)

describe("a run", function()
  local function run(seed)
    local p = load { seed = seed }
    local u = p:upstream "127.0.0.1:7001"
    local c = p:client { ip = "10.0.0.5" }
    c:send "hello\r\n"
    t.advance(1)
    u:finish()
    c:finish()
    return c:access().tags.random
  end

  it("is the same again with the same seed, and another with another", function()
    assert.equal(run(1), run(1))
    assert.equal(run(1), run())
    assert.not_equal(run(1), run(2))
  end)

  it("can be told line by line", function()
    run(1)
    local first = table.concat(t.trace(), "\n")
    assert.equal([[
 0.000  client 10.0.0.5:40001 connects
 0.000  client 10.0.0.5:40001 is connection 1
 0.000  penstock dials 127.0.0.1:7001: connected
 0.000  client 10.0.0.5:40001 sends 7: "hello\r\n"
 0.000  upstream 127.0.0.1:7001 #1 receives 7: "hello\r\n"
 1.000  upstream 127.0.0.1:7001 #1 ends
 1.000  client 10.0.0.5:40001 sees the end
 1.000  client 10.0.0.5:40001 ends
 1.000  end of connection 1: reason=eof side=upstream detail=- up=7 down=0
 1.000  upstream 127.0.0.1:7001 #1 sees the end]], first)
  end)

  it("has the same trace again", function()
    run(7)
    local once = t.trace()
    run(7)
    local both = t.trace()
    for i, line in ipairs(once) do
      local again = both[#once + i]:gsub("^ *[%d.]+", "")
      assert.equal((line:gsub("^ *[%d.]+", "")), again)
    end
    assert.equal(2 * #once, #both)
  end)
end)

describe("t.splits", function()
  it("tries every split in two, and single bytes", function()
    local tried = {}
    t.splits("abcd", function(parts) tried[#tried + 1] = table.concat(parts, "|") end)
    assert.same({ "a|bcd", "ab|cd", "abc|d", "a|b|c|d" }, tried)
  end)

  it("says which split it was that failed", function()
    local ok, why = pcall(t.splits, "ab\n", function(parts)
      local p = t.load "support/lines.lua"
      local u, c = p:upstream "127.0.0.1:7001", p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal("AB\n", u:received())
    end)
    assert.is_false(ok)
    assert.matches('hooks_spec.lua:%d+: %[split: "a" | "b\\n"%] Expected objects to be equal', why.message)
  end)

  it("finds an error that was expected in one split and did not come", function()
    local ok, why = pcall(t.splits, "ab", function() load():expect_error "never" end)
    assert.is_false(ok)
    assert.matches('hooks_spec.lua:%d+: %[split: "a" | "b"%] no hook raised an error with "never"', why)
  end)
end)

describe("misuse", function()
  local function refuses(message, fn)
    local ok, why = pcall(fn)
    assert.is_false(ok)
    assert.matches(message, why, 1, true)
    assert.matches("^tests/policies/hooks_spec.lua:%d+: ", why)
  end

  it("is answered by the right call", function()
    local p = load()
    refuses("No such file", function() p = t.load "none.lua" return p end)
    refuses('did you mean "seed"?', function() p = t.load("support/plain.lua", { sed = 1 }) return p end)
    refuses("limits.per_ip cannot be many", function()
      p = t.load("support/plain.lua", { limits = { per_ip = "many" } })
      return p
    end)
    refuses('write db.test:5432', function() p:upstream "db.test" end)
    refuses('a connection fails by "refused"', function() p:fail("db.test:1", "refuse") end)
    refuses("a name resolves to numeric addresses", function() p:dns { ["db.test"] = { "x" } } end)
    refuses("ip is a numeric address", function() p:client { ip = "here" } end)
    refuses("nobody has connected to 127.0.0.1:7001", function() p:upstream("127.0.0.1:7001"):send "x" end)
    refuses("t.advance(seconds)", function() t.advance(-1) end)
    refuses("this side has ended already", function() p:client():finish():send "x" end)
  end)
end)
