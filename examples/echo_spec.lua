local t = require "penstock.test"

describe("echo.lua", function()
  it("gives back what comes, as it comes, and ends when the client does", function()
    local c = t.load("echo.lua"):client():send "one"
    assert.equal("one", c:read())
    c:send("two"):finish()
    assert.equal("two", c:read())
    assert.equal("fin", c:ended())
    assert.same({ "closed", "served" }, { c:closed() })
  end)

  it("reads no more than the client takes back", function()
    local c = t.load("echo.lua"):client()
    c:stop_reading()
    c:send(("x"):rep(2 ^ 20))
    assert.is_true(c:unsent() > 0)
    c:start_reading()
    assert.equal(2 ^ 20, #c:received())
  end)
end)
