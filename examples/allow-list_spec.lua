local t = require "penstock.test"

describe("allow-list.lua", function()
  local p, u

  before_each(function()
    p = t.load("allow-list.lua", { to = "127.0.0.1:7001" })
    u = p:upstream "127.0.0.1:7001"
  end)

  local function connect(ip)
    return p:client { ip = ip }
  end

  it("lets listed clients through, both ways", function()
    for _, ip in ipairs { "127.0.0.1", "10.1.2.3", "192.168.7.7", "203.0.113.7", "2001:db8::5", "::1" } do
      local c = connect(ip):send "ping"
      assert.equal("ping", u:received())
      u:send "pong"
      assert.equal("pong", c:received())
      c:finish()
      u:finish()
      assert.equal("eof", c:closed())
    end
  end)

  it("resets all others, and dials nobody for them", function()
    for _, ip in ipairs { "203.0.113.8", "110.1.2.3", "2001:db9::1" } do
      local c = connect(ip)
      assert.equal("rst", c:ended())
      assert.same({ "denied", "not_listed" }, { c:closed() })
    end
    assert.same({}, u.connections)
  end)
end)
