local t = require "penstock.test"
local inline = require "support.inline"

describe("quota", function()
  local p, u

  local function start(options)
    p = inline.load("quota", options)
    u = p:upstream "127.0.0.1:7001"
    return p:client()
  end

  it("lets exactly so many bytes of a connection through, wherever they are split", function()
    t.splits(("x"):rep(20) .. "y", function(parts)
      local c = start '{ connection = 20, count = "up" }'
      for _, part in ipairs(parts) do if not c:closed() then c:send(part) end end
      assert.equal(("x"):rep(20), u:received())
      assert.same({ "fin", "denied", "quota" }, { u:ended(), c:closed() })
    end)
    local c = start '{ connection = "1M", over = "reset", count = "up" }'
    c:send(("x"):rep(2 ^ 20))
    assert.same({ 2 ^ 20, nil }, { #u:received(), c:ended() })
    c:send "y"
    assert.same({ 2 ^ 20, "rst", "denied", "quota" }, { #u:received(), c:ended(), c:closed() })
    assert.equal("over", c:access().tags.quota)
  end)

  it("counts both directions together, never more than the quota, and little less", function()
    local c = start '{ connection = "64K" }'
    c:send "request"
    u:send(("x"):rep(2 ^ 17))
    assert.equal("denied", c:closed())
    assert.is_true(#c:received() <= 2 ^ 16 - 7 and #c:received() >= 2 ^ 16 - 2 ^ 10, #c:received())
  end)

  it("counts what the upstream sends alone when it is told to", function()
    local c = start '{ connection = 1000, count = "down" }'
    c:send(("x"):rep(5000))
    assert.equal(5000, #u:received())
    u:send(("y"):rep(1001))
    assert.same({ 1000, "denied", "quota" }, { #c:received(), c:closed() })
  end)

  it("changes nothing for who stays below", function()
    local c = start '{ connection = 100, client = 100 }'
    c:send("ping"):finish()
    assert.equal("ping", u:received())
    u:send("pong"):finish()
    assert.same({ "pong", "fin", "eof" }, { c:received(), c:ended(), c:closed() })
  end)

  it("counts a client's connections together, in a span of time, and what was not used not at all", function()
    local c = start '{ client = 1000, window = 60, count = "up" }'
    for _ = 1, 9 do
      c:send(("x"):rep(100)):finish()
      u:finish()
      assert.same({ ("x"):rep(100), "eof" }, { u:received(), c:closed() })
      c = p:client()
    end
    c:send(("x"):rep(150))
    assert.same({ ("x"):rep(100), "denied", "quota" }, { u:received(), c:closed() })
    c = p:client()
    assert.same({ "denied", "quota" }, { c:closed() })
    assert.is_nil(p:client({ ip = "10.0.0.1" }):ended())
    t.advance(60)
    p:client():send(("x"):rep(1000))
    assert.equal(1000, #u:received())
  end)

  it("can go on slowly", function()
    local c = start '{ connection = 1000, over = "throttle", rate = "1K", count = "up" }'
    c:send(("x"):rep(2 ^ 20))
    local before = #u:received()
    assert.is_true(before >= 1000 and before <= 2 ^ 18 + 2000, before) -- with what had been read already
    t.advance(20)
    local later = #u:received()
    assert.is_true(later >= before + 19000 and later <= before + 22000, later - before)
    assert.is_nil(c:ended())
  end)

  it("counts by what a function says", function()
    local c = start '{ client = 1000, count = "up", by = function() return "all" end }'
    c:send(("x"):rep(1000))
    c = p:client { ip = "10.0.0.1" }
    assert.same({ "denied", "quota" }, { c:closed() })
    c = start '{ client = 1000, count = "up", by = function() end }'
    c:send(("x"):rep(2000))
    assert.same({ 2000, nil }, { #u:received(), c:closed() })
  end)

  it("refuses what makes no sense", function()
    inline.refuses("quota", "{}", "there is no quota")
    inline.refuses("quota", '{ client = 1, over = "throttle" }', "go together")
    inline.refuses("quota", '{ client = 1, rate = 1 }', "go together")
    inline.refuses("quota", '{ client = "many" }', "client is a size")
    inline.refuses("quota", '{ client = 1, window = 0 }', "window is a time")
    inline.refuses("quota", '{ cliont = 1 }', 'did you mean "client"?')
  end)
end)
