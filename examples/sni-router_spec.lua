local t = require "penstock.test"

-- A number of so many bytes, and a text behind its length.
local function number(width, n)
  local bytes = {}
  for i = width, 1, -1 do bytes[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(bytes)
end
local function vector(width, text) return number(width, #text) .. text end

-- The ClientHello of a TLS 1.2 client, with this name (nil: without any).
local function client_hello(name)
  local sni = name and number(2, 0) .. vector(2, vector(2, "\0" .. vector(2, name))) or ""
  local body = "\3\3" .. ("r"):rep(32) .. vector(1, "") .. vector(2, "\19\1") .. vector(1, "\0") .. vector(2, sni)
  return "\22\3\1" .. vector(2, "\1" .. vector(3, body))
end

describe("sni-router.lua", function()
  local p, db, www, spare

  local function start()
    p = t.load "sni-router.lua"
    db, www, spare = p:upstream "10.0.0.5:5432", p:upstream "10.0.0.6:443", p:upstream "10.0.0.7:443"
  end
  before_each(start)

  it("routes a TLS client by the name it asks for, and forwards its hello untouched", function()
    local hello = client_hello "db.lab"
    local c = p:client():send(hello .. "more")
    assert.equal(hello .. "more", db:received())
    db:send "answer"
    assert.equal("answer", c:received())
    assert.same({}, www.connections)
  end)

  it("does so wherever the hello is split", function()
    local hello = client_hello "www.lab"
    t.splits(hello, function(parts)
      start()
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(hello, www:received())
    end)
  end)

  it("routes an HTTP client by its Host, in any case and with any port", function()
    local request = "GET / HTTP/1.1\r\nHost: WWW.Lab:8443\r\n\r\n"
    p:client():send(request)
    assert.equal(request, www:received())
  end)

  it("takes the second server when the first is down", function()
    p:fail("10.0.0.6:443", "refused")
    local hello = client_hello "WWW.lab"
    p:client():send(hello)
    assert.equal(hello, spare:received())
  end)

  it("resets who asks for a name without a route, and tags the name", function()
    local c = p:client():send(client_hello "other.lab")
    assert.equal("rst", c:ended())
    assert.same({ "denied", "no_route" }, { c:closed() })
    assert.equal("other.lab", c:access().tags.name)
  end)

  it("resets who names nothing", function()
    local c = p:client():send(client_hello())
    assert.equal("rst", c:ended())
    assert.equal("denied", (c:closed()))
    c = p:client():send "SSH-2.0-client\r\n"
    assert.equal("rst", c:ended())
    assert.equal("denied", (c:closed()))
  end)

  it("waits five seconds for a name", function()
    local c = p:client():send(client_hello("db.lab"):sub(1, 20))
    t.advance "4999ms"
    assert.is_nil(c:closed())
    t.advance "1ms"
    assert.is_truthy(c:closed())
    assert.equal("rst", c:ended())
    assert.same({}, db.connections)
  end)
end)
