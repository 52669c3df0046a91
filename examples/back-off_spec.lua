local t = require "penstock.test"

describe("back-off.lua", function()
  local p, u

  before_each(function()
    p = t.load("back-off.lua", { to = "db.internal:5432" })
    u = p:upstream "db.internal:5432"
  end)

  it("tries again after 1 and 2 seconds, and what the client sent meanwhile arrives", function()
    p:fail("db.internal:5432", "refused", 2)
    p:client():send "hello"
    t.advance "2999ms"
    assert.same({}, u.connections)
    t.advance "1ms"
    assert.equal("hello", u:received())
  end)

  it("gives up after 15 seconds", function()
    p:fail("db.internal:5432", "refused")
    local c = p:client()
    t.advance "14999ms"
    assert.is_nil(c:closed())
    t.advance "1ms"
    assert.same({ "denied", "refused" }, { c:closed() })
  end)
end)
