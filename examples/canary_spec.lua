local t = require "penstock.test"

describe("canary.lua", function()
  local p, old

  before_each(function()
    p = t.load("canary.lua", { to = "app.internal:80", seed = 1 })
    old = p:upstream "app.internal:80"
  end)

  it("sends about a tenth of the connections to the new version", function()
    local new = p:upstream "app-next.internal:80"
    for _ = 1, 500 do p:client() end
    assert.equal(500, #old.connections + #new.connections)
    assert.is_true(#new.connections >= 30 and #new.connections <= 70, #new.connections)
  end)

  it("gives them to the old one while the new one is down", function()
    p:fail("app-next.internal:80", "refused")
    for _ = 1, 100 do p:client() end
    assert.equal(100, #old.connections)
  end)
end)
