local t = require "penstock.test"
local inline = require "support.inline"

describe("tarpit", function()
  it("sends a few bytes now and then, round and round, and dials nobody", function()
    local p = inline.load("tarpit", '{ send = "abc", bytes = 2, every = 10, hold = 45 }')
    local u = p:upstream "127.0.0.1:7001"
    local c = p:client()
    assert.equal("", c:received())
    t.advance(10)
    assert.equal("ab", c:received())
    t.advance(10)
    assert.equal("abca", c:received())
    t.advance(24)
    assert.equal("abcabcab", c:received())
    assert.is_nil(c:ended())
    t.advance(1)
    assert.same({ "fin", "denied", "tarpit" }, { c:ended(), c:closed() })
    assert.equal("abcabcab", c:received())
    assert.equal(0, #u.connections)
  end)

  it("sends nothing when there is nothing to send, and ends in time", function()
    local p = inline.load("tarpit", '{ hold = "1m" }')
    local c = p:client()
    t.advance(59.9)
    assert.is_nil(c:ended())
    t.advance(0.1)
    assert.same({ "", "fin", "denied", "tarpit" }, { c:received(), c:ended(), c:closed() })
  end)

  it("holds only whom it is told to", function()
    local p = inline.load("tarpit", '{ clients = { "10/8", "2001:db8::/32" } }')
    local u = p:upstream "127.0.0.1:7001"
    p:client { ip = "10.0.0.1" }
    p:client { ip = "2001:db8::1" }
    assert.equal(0, #u.connections)
    p:client { ip = "11.0.0.1" }
    assert.equal(1, #u.connections)
  end)

  it("holds no more than so many, and has room again when one goes", function()
    local p = inline.load("tarpit",
      '{ most = 2, over = "reset", send = "x", clients = function(c) return c.seq > 1 end }')
    p:upstream "127.0.0.1:7001"
    p:client()
    local a = p:client()
    p:client()
    local c = p:client()
    assert.same({ "rst", "denied", "tarpit_full" }, { c:ended(), c:closed() })
    a:reset()
    t.advance(10)
    assert.is_string(a:closed())
    assert.is_nil(p:client():ended())
    assert.equal("rst", p:client():ended())
  end)

  it("refuses what makes no sense", function()
    inline.refuses("tarpit", '{ clients = "10.1/8" }', 'clients: "10.1/8" has bits behind its prefix')
    inline.refuses("tarpit", "{ every = 0 }", "every is a time")
    inline.refuses("tarpit", "{ send = 7 }", "send is a text, not a number")
    inline.refuses("tarpit", "{ evry = 7 }", 'did you mean "every"?')
  end)
end)
