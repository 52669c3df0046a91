local t = require "penstock.test"

local function at(hour)
  return os.time { year = 2026, month = 5, day = 4, hour = hour }
end

describe("route-by-time.lua", function()
  it("uses the day's server from 7 to 20", function()
    for _, hour in ipairs { 7, 12, 19 } do
      local p = t.load("route-by-time.lua", { time = at(hour) })
      local day, night = p:upstream "app.internal:80", p:upstream "standby.internal:80"
      p:client():send "hello"
      assert.equal("hello", day:received())
      assert.same({}, night.connections)
    end
  end)

  it("uses the standby server at night", function()
    for _, hour in ipairs { 20, 23, 0, 6 } do
      local p = t.load("route-by-time.lua", { time = at(hour) })
      local day, night = p:upstream "app.internal:80", p:upstream "standby.internal:80"
      p:client():send "hello"
      assert.equal("hello", night:received())
      assert.same({}, day.connections)
    end
  end)

  it("falls back to the day's server at night", function()
    local p = t.load("route-by-time.lua", { time = at(23) })
    local day = p:upstream "app.internal:80"
    p:fail("standby.internal:80", "refused")
    p:client():send "hello"
    assert.equal("hello", day:received())
  end)

  it("changes over while it runs", function()
    local p = t.load("route-by-time.lua", { time = at(19) })
    local day, night = p:upstream "app.internal:80", p:upstream "standby.internal:80"
    p:client()
    t.advance "1h"
    p:client()
    assert.same({ 1, 1 }, { #day.connections, #night.connections })
  end)

  it("slows the night's answers down to 512 KiB a second", function()
    local p = t.load("route-by-time.lua", { time = at(23) })
    local night = p:upstream "standby.internal:80"
    local c = p:client()
    night:send(("x"):rep(2 ^ 20))
    t.advance(1)
    assert.is_true(#c:received() < 2 ^ 20)
    t.advance(2)
    assert.equal(2 ^ 20, #c:received())
  end)
end)
