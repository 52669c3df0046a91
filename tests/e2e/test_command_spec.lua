-- `penstock test`: exit status, the line of a failure, what it says when something is missing, and that a run repeats.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

local policy = [[
local ps = require "penstock"
return {
  connect = function(conn)
    if conn.client.ip == "10.0.0.1" then error "boom" end
    ps.sleep(ps.random(1, 5000) / 1000)
  end,
}
]]

-- A spec whose one test has `body`; `p` is the policy, `u` its upstream.
local function spec(t, body)
  t:file("guard.lua", policy)
  return t:file("guard_spec.lua", ([[
local t = require "penstock.test"
describe("guard", function()
  it("does what is written", function()
    local p = t.load "guard.lua"
    local u = p:upstream "127.0.0.1:7001"
    %s
  end)
  it("is there twice", function() print "second test" end)
end)
]]):format(body))
end

local function test(t, ...)
  return t:run { "test", ... }
end

describe("penstock test", function()
  case("is content with specs that pass (status 0)", function(t)
    local path = spec(t, "local c = p:client() t.advance(5) c:send 'x' assert.equal('x', u:received())")
    local status, err, out = test(t, path)
    assert.equal(0, status, out)
    assert.equal("", err)
    assert.matches("2 successes / 0 failures", out)
  end)

  case("tells file and line of what failed (status 1)", function(t)
    local path = spec(t, "assert.equal('x', u:received())")
    local status, _, out = test(t, path)
    assert.equal(1, status)
    assert.is_truthy(out:find(path .. ":6: Expected objects to be equal", 1, true), out)
  end)

  case("tells where a hook failed, and which line of the spec led to it (status 1)", function(t)
    local path = spec(t, "p:client { ip = '10.0.0.1' }")
    local status, _, out = test(t, path)
    assert.equal(1, status)
    assert.is_truthy(out:find(path .. ":6: script error in the connect hook: ", 1, true), out)
    assert.is_truthy(out:find("guard.lua:4: boom", 1, true), out)
  end)

  case("tells where a policy is wrong that cannot be loaded (status 1)", function(t)
    local path = spec(t, "t.load 'broken.lua'")
    t:file("broken.lua", "return {\n  conect = print\n}\n")
    local status, _, out = test(t, path)
    assert.equal(1, status)
    assert.matches('guard_spec.lua:6: .*broken.lua: unknown hook "conect", did you mean "connect"', out)
  end)

  case("tells of a spec that is no Lua (status 1)", function(t)
    local status, _, out = test(t, t:file("odd_spec.lua", "describe(\n"))
    assert.equal(1, status)
    assert.matches("odd_spec.lua", out)
  end)

  case("says what to install when busted is missing (status 1)", function(t)
    local status, err = t:run({ "test", spec(t, "") }, { env = { LUA_PATH = "/nowhere/?.lua" } })
    assert.equal(1, status)
    assert.equal("penstock test: busted, which runs specs, is not installed (Debian: apt install lua-busted)\n", err)
  end)

  case("refuses what it cannot understand (status 2)", function(t)
    for words, text in pairs {
      ["--sed 1"] = "unknown option --sed",
      ["--seed many"] = "--seed needs a whole number",
      ["--filter"] = "--filter needs a Lua pattern",
      ["/nowhere/x_spec.lua"] = "/nowhere/x_spec.lua: No such file or directory",
    } do
      local args = { "test" }
      for word in words:gmatch "%S+" do args[#args + 1] = word end
      local status, err = t:run(args)
      assert.equal(2, status, err)
      assert.is_truthy(err:find(text, 1, true), err)
    end
  end)

  case("runs only the tests that the filter names", function(t)
    local status, _, out = test(t, "--filter", "there twice", spec(t, "error 'not me'"))
    assert.equal(0, status, out)
    assert.matches("second test", out)
    assert.matches("1 success ", out)
  end)

  case("finds specs in a folder, and modules beside them", function(t)
    spec(t, "assert.equal(7, require('seven'))")
    t:file("seven.lua", "return 7")
    local status, _, out = test(t, t:folder())
    assert.equal(0, status, out)
    assert.matches("2 successes", out)
  end)

  case("runs the same again with the same seed, and differently with another", function(t)
    local path = spec(t, "p:client() t.advance(5) for _, line in ipairs(t.trace()) do print(line) end")
    local function trace(seed)
      local status, _, out = test(t, "--seed", seed, path)
      assert.equal(0, status, out)
      return out:match "client 192.-connected"
    end
    assert.is_truthy(trace "1")
    assert.equal(trace "1", trace "1")
    assert.not_equal(trace "1", trace "2")
  end)

  case("explains itself (status 0)", function(t)
    local status, err, out = test(t, "--help")
    assert.same({ 0, "" }, { status, err })
    assert.matches("^usage: penstock test", out)
  end)
end)
