local t = require "penstock.test"

describe("port-knocking.lua", function()
  local p, server

  before_each(function()
    p = t.load "port-knocking.lua"
    server = p:upstream "127.0.0.1:22"
  end)

  local function knock(...)
    for _, number in ipairs { ... } do
      assert.equal("rst", p:client({ ip = "203.0.113.7", to = "knock-" .. number }):ended())
    end
  end

  local function is_open(ip)
    local before = #server.connections
    local c = p:client { ip = ip or "203.0.113.7", to = "ssh" }
    local opened = #server.connections > before
    assert.equal(not opened and "rst" or nil, c:ended())
    return opened
  end

  it("is closed to who has not knocked", function()
    assert.is_false(is_open())
  end)

  it("opens for 30 seconds to who has knocked in order, and to nobody else", function()
    knock(1, 2, 3)
    assert.is_true(is_open())
    assert.is_false(is_open "203.0.113.8")
    t.advance(29)
    assert.is_true(is_open())
    t.advance(1)
    assert.is_false(is_open())
  end)

  it("stays closed after knocks in another order, and when somebody tries all ports", function()
    knock(1, 3, 2)
    assert.is_false(is_open())
    knock(1, 1, 2, 3)
    assert.is_false(is_open())
  end)

  it("forgets a knock after ten seconds", function()
    knock(1, 2)
    t.advance(10)
    knock(3)
    assert.is_false(is_open())
  end)
end)
