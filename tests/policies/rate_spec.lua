local t = require "penstock.test"
local inline = require "support.inline"

describe("rate", function()
  local function load(options)
    local p = inline.load("rate", options)
    return p, p:upstream "127.0.0.1:7001"
  end

  it("lets a burst of connections in, and then so many a second, of each client", function()
    local p, u = load "{ connections = 2, burst = 3 }"
    for _ = 1, 3 do assert.is_nil(p:client({ ip = "10.0.0.1" }):ended()) end
    local c = p:client { ip = "10.0.0.1" }
    assert.same({ "fin", "denied", "rate" }, { c:ended(), c:closed() })
    assert.is_nil(p:client({ ip = "10.0.0.2" }):ended())
    t.advance(0.5)
    assert.is_nil(p:client({ ip = "10.0.0.1" }):ended())
    assert.equal("fin", p:client({ ip = "10.0.0.1" }):ended())
    assert.equal(5, #u.connections)
  end)

  it("counts open connections, and forgets those that have ended", function()
    local p = load '{ concurrent = 2, over = "reset" }'
    local a, b = p:client { ip = "10.0.0.1" }, p:client { ip = "10.0.0.1" }
    for _ = 1, 3 do
      local c = p:client { ip = "10.0.0.1" }
      assert.same({ "rst", "denied", "concurrent" }, { c:ended(), c:closed() })
    end
    assert.is_nil(p:client({ ip = "10.0.0.2" }):ended())
    a:reset()
    local d = p:client { ip = "10.0.0.1" }
    assert.is_nil(d:ended())
    assert.equal("rst", p:client({ ip = "10.0.0.1" }):ended())
    b:reset()
    d:reset()
    for _ = 1, 2 do assert.is_nil(p:client({ ip = "10.0.0.1" }):ended()) end
    assert.equal("rst", p:client({ ip = "10.0.0.1" }):ended())
  end)

  it("keeps those over the limit waiting when it hangs", function()
    local p = load '{ connections = 0.001, over = "hang", hang = "20s" }'
    p:client()
    local c = p:client()
    t.advance(19)
    assert.is_nil(c:ended())
    t.advance(1)
    assert.same({ "fin", "denied", "rate" }, { c:ended(), c:closed() })
  end)

  it("shares the bandwidth of a client among its connections", function()
    local p, u = load '{ down = "64K" }'
    local one, two = p:client { ip = "10.0.0.1" }, p:client { ip = "10.0.0.1" }
    local other = p:client { ip = "10.0.0.2" }
    local bytes = ("x"):rep(2 ^ 18)
    for _, c in ipairs(u.connections) do c:send(bytes) end
    t.advance(2)
    local both, alone = #one:received() + #two:received(), #other:received()
    for _, n in ipairs { both, alone } do assert.is_true(n >= 2 ^ 17 and n <= 2 ^ 16 * 3.2, n) end
    assert.is_true(#one:received() > 2 ^ 15 and #two:received() > 2 ^ 15)
    t.advance(10)
    assert.equal(2 ^ 19, #one:received() + #two:received())
  end)

  it("counts by address, listener or what a function says", function()
    local p = load '{ connections = 0.001, by = "listener" }'
    p:client { ip = "10.0.0.1" }
    assert.equal("fin", p:client({ ip = "10.0.0.2" }):ended())
    p = load '{ connections = 0.001, by = function(conn) return conn.client.ip:match "^10" end }'
    p:client { ip = "10.0.0.1" }
    assert.equal("fin", p:client({ ip = "10.0.0.2" }):ended())
    for _ = 1, 2 do assert.is_nil(p:client({ ip = "11.0.0.1" }):ended()) end -- nil: not counted
  end)

  it("turns away who cannot be counted", function()
    local long = 'by = function() return ("k"):rep(5000) end'
    local p = load("{ concurrent = 1, " .. long .. "}")
    assert.same({ "denied", "concurrent" }, { p:client():closed() })
    p = load('{ down = "64K", ' .. long .. "}")
    assert.same({ "denied", "rate" }, { p:client():closed() })
  end)

  it("refuses what makes no sense", function()
    inline.refuses("rate", "{}", "there is no limit")
    inline.refuses("rate", "{ connections = 0 }", "how many a second, above 0")
    inline.refuses("rate", "{ burst = 5, concurrent = 1 }", "burst goes with connections")
    inline.refuses("rate", '{ concurrent = 1, over = "close" }', 'over is "deny" or "reset" or "hang"')
    inline.refuses("rate", '{ concurrent = 1.5 }', "whole number")
    inline.refuses("rate", '{ down = "fast" }', "down is a size")
    inline.refuses("rate", '{ concurent = 1 }', 'did you mean "concurrent"?')
    inline.refuses("rate", '{ concurrent = 1 }, require "penstock.policy.rate" { concurrent = 2 }',
      "two policies are named")
  end)
end)
