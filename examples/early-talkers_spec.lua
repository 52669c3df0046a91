local t = require "penstock.test"

describe("early-talkers.lua", function()
  local p, u, c

  before_each(function()
    p = t.load "early-talkers.lua"
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end)

  it("lets through who waits for the greeting", function()
    t.advance(4.9)
    assert.same({}, u.connections)
    t.advance(0.1)
    u:send "220 mail.example ESMTP\r\n"
    assert.equal("220 mail.example ESMTP\r\n", c:received())
    c:send "EHLO a\r\n"
    assert.equal("EHLO a\r\n", u:received())
  end)

  it("keeps who speaks first hanging for a minute", function()
    t.advance(3)
    c:send "EHLO a\r\n"
    t.advance(59)
    assert.is_nil(c:ended())
    t.advance(1)
    assert.same({ "denied", "early_talker" }, { c:closed() })
    assert.same({}, u.connections)
  end)
end)
