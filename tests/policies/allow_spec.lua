local t = require "penstock.test"
local inline = require "support.inline"

local function outcome(p, ip)
  local c = p:client { ip = ip }
  return c:ended() or "open", select(2, c:closed())
end

describe("allow", function()
  it("lets in who is listed, and nobody else", function()
    local p = inline.load("allow", '{ "10/8", "203.0.113.7", "2001:db8::/32" }')
    local u = p:upstream "127.0.0.1:7001"
    for _, ip in ipairs { "10.1.2.3", "203.0.113.7", "2001:db8::1" } do assert.equal("open", (outcome(p, ip))) end
    for _, ip in ipairs { "11.1.2.3", "203.0.113.8", "2001:db9::1" } do
      assert.same({ "fin", "not_allowed" }, { outcome(p, ip) })
    end
    assert.equal(3, #u.connections)
  end)

  it("has exceptions, and exceptions of those", function()
    local p = inline.load("allow", '{ "10/8", "10.1.1.1", deny = "10.1/16", reset = true, reason = "no" }')
    p:upstream "127.0.0.1:7001"
    assert.equal("open", (outcome(p, "10.0.0.1")))
    assert.same({ "rst", "no" }, { outcome(p, "10.1.0.1") })
    assert.equal("open", (outcome(p, "10.1.1.1")))
  end)

  it("keeps those who are not listed waiting when it is told to", function()
    local p = inline.load("allow", '{ "10/8", hang = "20s" }')
    local u = p:upstream "127.0.0.1:7001"
    local c = p:client { ip = "11.0.0.1" }
    t.advance(19)
    assert.is_nil(c:ended())
    t.advance(1)
    assert.same({ "fin", "not_allowed" }, { c:ended(), select(2, c:closed()) })
    assert.equal(0, #u.connections)
  end)

  it("refuses what makes no sense", function()
    inline.refuses("allow", "{}", "no network is given")
    inline.refuses("allow", '{ "10/8", denny = "10.1/16" }', 'did you mean "deny"?')
    inline.refuses("allow", '{ "10.1.2.3/8" }', 'the network is "10.0.0.0/8"')
    inline.refuses("allow", '{ "10/8", deny = { "10/8" } }', '"10/8" is in both lists')
    inline.refuses("allow", '{ 10 }', "list of texts")
    inline.refuses("allow", '"10/8"', "expects a table, got a string")
  end)
end)

describe("deny", function()
  it("turns away who is listed, but for exceptions", function()
    local p = inline.load("deny", '{ "10/8", "::/0", allow = { "10.1/16", "2001:db8::/32" } }')
    p:upstream "127.0.0.1:7001"
    assert.same({ "fin", "denied_address" }, { outcome(p, "10.0.0.1") })
    assert.equal("open", (outcome(p, "10.1.0.1")))
    assert.equal("open", (outcome(p, "192.0.2.1")))
    assert.equal("open", (outcome(p, "2001:db8::1")))
    assert.same({ "fin", "denied_address" }, { outcome(p, "2001:db9::1") })
  end)
end)
