local t = require "penstock.test"

describe("first-bytes.lua", function()
  local p, u, c

  before_each(function()
    p = t.load "first-bytes.lua"
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end)

  it("shows the first 32 bytes of each direction, once there are so many", function()
    c:send(("0123456789abcdef"):rep(1))
    assert.same({}, p:log())
    c:send(("0123456789abcdef"):rep(3))
    assert.equal(("0123456789abcdef"):rep(4), u:received())
    assert.same({ "info: up: " .. (("30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 "):rep(2)) ..
      "|0123456789abcdef0123456789abcdef|" }, p:log())
  end)

  it("shows what there was when a direction ends before, with dots for what cannot be read", function()
    u:send("\0ok\n"):finish()
    assert.same({ "info: down: 00 6f 6b 0a |.ok.|" }, p:log())
    assert.equal("\0ok\n", c:received())
    assert.equal("fin", c:ended())
  end)
end)
