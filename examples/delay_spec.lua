local t = require "penstock.test"

describe("delay.lua", function()
  local p, u, c

  before_each(function()
    p = t.load("delay.lua", { seed = 7 })
    u = p:upstream "127.0.0.1:7001"
    c = p:client { ip = "203.0.113.7" }
  end)

  it("connects after 100 to 300 ms", function()
    t.advance(0.099)
    assert.same({}, u.connections)
    t.advance(0.201)
    assert.equal(1, #u.connections)
  end)

  it("passes on at once what the client sends", function()
    t.advance(0.3)
    c:send "question"
    assert.equal("question", u:received())
  end)

  it("gives the client each chunk of the server 50 ms later", function()
    t.advance(0.3)
    u:send "one"
    t.advance "49ms"
    assert.equal("", c:received())
    t.advance "1ms"
    assert.equal("one", c:received())
  end)

  it("tags the connection with its delay", function()
    t.advance(0.3)
    c:finish()
    u:finish()
    t.advance(0.1)
    local delay = tonumber(c:access().tags.delay)
    assert.is_true(delay >= 0.1 and delay <= 0.3)
  end)
end)
