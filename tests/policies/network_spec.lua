-- The harness itself: what clients, upstreams and the network between them do.
local t = require "penstock.test"

local function load(options)
  return t.load("support/plain.lua", options)
end

-- A policy, its upstream, and a client that is connected.
local function join(options, client)
  local p = load(options)
  local u = p:upstream "127.0.0.1:7001"
  return p, u, p:client(client)
end

describe("a connection", function()
  it("carries bytes both ways at once", function()
    local _, u, c = join()
    c:send "question"
    u:send "answer"
    assert.equal("question", u:received())
    assert.equal("answer", c:received())
  end)

  it("tells new bytes apart from all bytes", function()
    local _, u, c = join()
    c:send "one"
    assert.equal("one", u:read())
    c:send "two"
    assert.equal("two", u:read())
    assert.equal("", u:read())
    assert.equal("onetwo", u:received())
  end)

  it("ends on each side for itself", function()
    local p, u, c = join()
    c:finish()
    assert.equal("fin", u:ended())
    assert.is_nil(c:ended())
    u:send("still here"):finish()
    assert.equal("still here", c:received())
    assert.equal("fin", c:ended())
    assert.equal("eof", c:closed())
    assert.same({ "info: closed: eof" }, p:log())
  end)

  it("is reset for both when one side resets it", function()
    local _, u, c = join()
    c:reset()
    assert.equal("rst", u:ended())
    assert.equal("reset", c:closed())
    assert.equal("client", c:access().side)
  end)

  it("is open, and has no reason, until it ends", function()
    local _, _, c = join()
    assert.is_nil(c:closed())
    assert.is_nil(c:access())
    assert.equal(1, c.conn)
  end)

  it("has an access line with its bytes", function()
    local _, u, c = join()
    c:send("12345"):finish()
    u:send("123"):finish()
    local line = c:access()
    assert.same({ 5, 3, "127.0.0.1:7001" }, { line.bytes_up, line.bytes_down, line.upstream })
  end)

  it("takes a megabyte whole", function()
    local _, u, c = join()
    local bytes = ("0123456789abcdef"):rep(65536)
    c:send(bytes)
    assert.is_true(u:received() == bytes)
    assert.equal(0, c:unsent())
  end)
end)

describe("back-pressure", function()
  it("reaches the client when the upstream does not read", function()
    local _, u, c = join()
    u:stop_reading()
    c:send(("x"):rep(2 ^ 20))
    assert.equal(0, #u:received())
    assert.is_true(c:unsent() > 2 ^ 19)
    u:start_reading()
    assert.equal(2 ^ 20, #u:received())
    assert.equal(0, c:unsent())
  end)

  it("is bounded by the window of a client", function()
    local _, u, c = join(nil, { window = 100 })
    c:stop_reading()
    u:send(("x"):rep(2 ^ 20))
    c:finish()
    t.advance "1s"
    assert.is_true(u:unsent() > 0)
    c:start_reading()
    assert.equal(2 ^ 20, #c:received())
  end)
end)

describe("an upstream", function()
  it("gives out its connections in turn", function()
    local p, u, first = join()
    local second = p:client()
    first:send "1"
    second:send "2"
    assert.equal("1", u:accept():received())
    assert.equal("2", u:accept():received())
    assert.is_nil(u:accept())
    assert.equal(2, #u.connections)
  end)

  it("speaks of its latest connection", function()
    local p, u, first = join()
    local second = p:client()
    first:send "1"
    second:send "2"
    assert.equal("2", u:received())
  end)

  it("may have a name", function()
    local p = load()
    local u = p:upstream "db.internal:5432"
    p:client():send "hello"
    assert.equal("hello", u:received())
  end)

  it("may be a UNIX socket", function()
    local p = load()
    local u = p:upstream "unix:/run/db.sock"
    p:client():send "hello"
    assert.equal("hello", u:received())
  end)

  it("cannot be there twice", function()
    local p = load()
    p:upstream "127.0.0.1:7001"
    local ok, why = pcall(p.upstream, p, "127.0.0.1:7001")
    assert.is_false(ok)
    assert.matches("there is an upstream of that address already", why, 1, true)
  end)
end)

describe("a dial", function()
  it("is refused where nobody listens", function()
    local c = load({ to = "127.0.0.1:7001" }):client()
    assert.equal("refused", c:closed())
    assert.equal("rst", c:ended())
  end)

  it("fails as it is told", function()
    for _, word in ipairs { "refused", "unreachable" } do
      local p = load { to = "127.0.0.1:7001" }
      p:fail("127.0.0.1:7001", word)
      assert.equal(word, (p:client():closed()))
    end
  end)

  it("waits for a silent upstream until the deadline", function()
    local p = load { to = "127.0.0.1:7001", timeouts = { connect = "3s" } }
    p:fail("127.0.0.1:7001", "timeout")
    local c = p:client()
    t.advance(2.9)
    assert.is_nil(c:closed())
    t.advance(0.1)
    assert.same({ "timeout", "connect" }, { c:closed() })
  end)

  it("fails as often as it is told", function()
    local p, u = join()
    p:fail("127.0.0.1:7001", "refused", 2)
    assert.equal("refused", p:client():closed())
    assert.equal("refused", p:client():closed())
    assert.is_nil(p:client():closed())
    assert.equal(2, #u.connections)
  end)

  it("can be reset right after it was accepted", function()
    local p = load { to = "127.0.0.1:7001" }
    p:fail("127.0.0.1:7001", "reset")
    local c = p:client()
    assert.equal("reset", c:closed())
    assert.equal("upstream", c:access().side)
  end)

  it("goes on to the next target", function()
    local p = load { to = "one.test:80,two.test:80" }
    local two = p:upstream "two.test:80"
    p:fail("one.test:80", "refused")
    p:client():send "hello"
    assert.equal("hello", two:received())
  end)
end)

describe("a name", function()
  it("resolves as it is told, IPv6 first", function()
    local p = load { to = "db.test:80" }
    p:dns { ["db.test"] = { "10.0.0.1", "2001:db8::1" } }
    local v4, v6 = p:upstream "10.0.0.1:80", p:upstream "[2001:db8::1]:80"
    p:client()
    assert.same({ 0, 1 }, { #v4.connections, #v6.connections })
  end)

  it("has its other addresses tried a quarter of a second later", function()
    local p = load { to = "db.test:80" }
    p:dns { ["db.test"] = { "10.0.0.1", "2001:db8::1" } }
    p:fail("[2001:db8::1]:80", "timeout")
    local v4 = p:upstream "10.0.0.1:80"
    p:client()
    t.advance "249ms"
    assert.equal(0, #v4.connections)
    t.advance "1ms"
    assert.equal(1, #v4.connections)
  end)

  it("fails when nobody knows it, or as it is told", function()
    local p = load { to = "db.test:80" }
    assert.same({ "dns", "Domain name not found" }, { p:client():closed() })
    p:dns { ["db.test"] = "servfail" }
    assert.equal("dns", (p:client():closed()))
    p:dns { ["db.test"] = "timeout" }
    local c = p:client()
    t.advance(5)
    assert.same({ "timeout", "connect" }, { c:closed() })
  end)

  it("stands for an upstream of that name at every address it has", function()
    local p = load()
    local u = p:upstream "db.test:80"
    p:dns { ["db.test"] = "10.9.9.9" }
    local c = p:client()
    assert.equal(1, #u.connections)
    c:reset()
    assert.equal("10.9.9.9:80", c:access().upstream)
  end)
end)

describe("limits and timeouts", function()
  it("hold for clients of one address", function()
    local p, _, first = join { limits = { per_ip = 1 } }
    local second = p:client()
    assert.equal("rst", second:ended())
    assert.is_nil(second.conn)
    assert.is_nil(p:client { ip = "192.0.2.2" }:ended())
    first:reset()
    assert.is_nil(p:client():ended())
  end)

  it("let a client wait while there are too many", function()
    local p, u, first = join { limits = { conns = 1 } }
    local second = p:client():send "later"
    t.advance(1)
    assert.equal(1, #u.connections)
    first:reset()
    assert.equal("later", u:received())
    assert.is_nil(second:ended())
  end)

  it("let clients in at a rate", function()
    local p, u = join { limits = { rate = 2 } }
    for _ = 1, 5 do p:client() end
    assert.equal(2, #u.connections)
    t.advance(1.1)
    assert.equal(4, #u.connections)
    t.advance(1.1)
    assert.equal(6, #u.connections)
  end)

  it("bound the bytes a second", function()
    local _, u, c = join { limits = { up = "1K" } }
    c:send(("x"):rep(10240))
    t.advance(5)
    assert.is_true(#u:received() > 4096 and #u:received() < 7168)
    t.advance(5)
    assert.equal(10240, #u:received())
  end)

  it("end an idle connection at its time", function()
    local _, u, c = join { timeouts = { idle = 10 } }
    t.advance(9)
    c:send "x"
    t.advance(9.999)
    assert.is_nil(c:closed())
    t.advance(0.001)
    assert.same({ "timeout", "idle" }, { c:closed() })
    assert.equal("rst", u:ended())
  end)

  it("end a connection of which one side has ended", function()
    local _, _, c = join { timeouts = { half_closed = 30 } }
    c:finish()
    t.advance(30)
    assert.same({ "timeout", "half_closed" }, { c:closed() })
  end)
end)
