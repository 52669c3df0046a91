-- What scripts do with streams, dials of their own and proxies works on the virtual network, too.
local t = require "penstock.test"

local function load()
  local p = t.load "support/streams.lua"
  return p, p:upstream "127.0.0.1:7001"
end

describe("a filter", function()
  it("rewrites wherever the input is split, and leaves the rest to the relay", function()
    t.splits("GET / HTTP/1.0\r\nHost: a\r\n\r\nbody", function(parts)
      local p, u = load()
      local c = p:client { ip = "203.0.113.7" }
      for _, part in ipairs(parts) do c:send(part) end
      c:finish()
      assert.equal("GET / HTTP/1.0\r\nHost: backend\r\nX-Client: 203.0.113.7\r\n\r\nbody", u:received())
      assert.equal("fin", u:ended())
    end)
  end)

  it("forwards untouched what ends too early", function()
    local p, u = load()
    p:client():send("GET / HTTP/1.0\r\nHos"):finish()
    assert.equal("GET / HTTP/1.0\r\nHos", u:received())
    assert.equal("fin", u:ended())
  end)
end)

describe("a script's own connection", function()
  it("reaches virtual upstreams", function()
    local p, u = load()
    local helper = p:upstream "helper.test:99"
    local c = p:client { ip = "10.0.0.2" }
    assert.equal("who?\n", helper:received())
    assert.equal(0, #u.connections)
    helper:send "me\n"
    assert.equal(1, #u.connections)
    assert.equal("me", c:reset():access().tags.helper)
  end)

  it("fails as it is told", function()
    local p = load()
    p:fail("helper.test:99", "refused")
    p:expect_error "refused"
    assert.equal("script", (p:client { ip = "10.0.0.2" }:closed()))
  end)
end)

describe("a lookup", function()
  it("is answered by what the spec says", function()
    local p = load()
    p:dns { ["db.test"] = "10.7.7.7" }
    assert.equal("10.7.7.7", p:client { ip = "10.0.0.3" }:reset():access().tags.dns)
    p:dns { ["db.test"] = "nxdomain" }
    assert.equal("dns", p:client { ip = "10.0.0.3" }:reset():access().tags.dns)
  end)
end)

describe("a proxy", function()
  it("is spoken to as live", function()
    local p = load()
    local exit = p:upstream "exit.test:1080"
    local c = p:client { ip = "10.0.0.4" }
    assert.equal("\5\1\0", exit:read())
    exit:send "\5\0"
    assert.equal("\5\1\0\3\8far.test\0\80", exit:read())
    exit:send "\5\0\0\1\0\0\0\0\0\0"
    c:send "x\n\n"
    assert.equal("x\nX-Client: 10.0.0.4\n\n", exit:read())
  end)

  it("gets the client's address in a PROXY header", function()
    local p, u = load()
    p:client { ip = "10.0.0.5", port = 5000 }
    assert.equal("PROXY TCP4 10.0.0.5 127.0.0.1 5000 1\r\n", u:received())
  end)
end)
