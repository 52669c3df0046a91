local t = require "penstock.test"
local inline = require "support.inline"

describe("mirror", function()
  local p, u, c

  local function start(options, servers)
    p = inline.load("mirror", options)
    u = p:upstream "127.0.0.1:7001"
    local list = {}
    for i, address in ipairs(servers or {}) do list[i] = p:upstream(address, { window = 1000 }) end
    c = p:client()
    t.advance(0.001) -- a task of its own connects
    return unpack(list)
  end

  it("copies what the client sends, to its end, and keeps the answers away from the client", function()
    local m = start('{ up = "10.0.0.9:1" }', { "10.0.0.9:1" })
    c:send "one"
    assert.same({ "one", "one" }, { u:received(), m:received() })
    t.advance(60)
    m:send(("nobody wants that"):rep(100000))
    assert.equal(0, m:unsent())
    u:send "answer"
    assert.equal("answer", c:received())
    c:send(" two"):finish()
    u:finish()
    assert.same({ "one two", "one two", "fin", "fin" }, { u:received(), m:received(), u:ended(), m:ended() })
    assert.equal("eof", c:closed())
  end)

  it("copies both directions to a destination each", function()
    local m, n = start('{ up = "10.0.0.9:1", down = "10.0.0.9:2" }', { "10.0.0.9:1", "10.0.0.9:2" })
    c:send "request"
    u:send "response"
    assert.same({ "request", "response" }, { m:received(), n:received() })
    assert.same({ "request", "response" }, { u:received(), c:received() })
  end)

  it("delivers what is left after the connection has ended", function()
    local m = start('{ up = "10.0.0.9:1" }', { "10.0.0.9:1" })
    m:stop_reading()
    c:send(("x"):rep(100000)):finish()
    u:finish()
    assert.equal("eof", c:closed())
    m:start_reading()
    assert.equal(100000, #m:received())
    assert.equal("fin", m:ended())
  end)

  it("ends a copy that falls behind, and never holds the original", function()
    local m = start('{ up = "10.0.0.9:1", queue = "64K" }', { "10.0.0.9:1" })
    m:stop_reading()
    local bytes = ("x"):rep(2 ^ 20)
    c:send(bytes)
    assert.equal(0, c:unsent())
    assert.equal(2 ^ 20, #u:received())
    c:send "more"
    assert.equal("more", u:received():sub(-4))
    m:start_reading()
    t.advance(60)
    assert.is_true(#m:received() < 2 ^ 20)
    assert.is_string(m:ended())
  end)

  it("goes on without a copy when the destination is down, or dies", function()
    start('{ up = "10.0.0.9:1" }')
    for _ = 1, 3 do c:send "x" end
    assert.equal("xxx", u:received())
    local m = start('{ up = "10.0.0.9:1" }', { "10.0.0.9:1" })
    c:send "x"
    m:reset()
    for _ = 1, 3 do c:send "x" end
    assert.equal("xxxx", u:received())
    start('{ up = "10.0.0.9:1", timeout = 2 }')
    p:fail("10.0.0.9:1", "timeout")
    c:send "x"
    t.advance(3)
    c:send "x"
    assert.equal("xx", u:received())
  end)

  it("counts how copies ended", function()
    local options = [[{ up = "10.0.0.9:1", queue = "64K", timeout = 2 }
      policy.accept = function(conn)
        for how, n in ps.metrics():gmatch '\npolicy_mirror_total{end="(%a+)"} (%d+)' do conn:tag(how, n) end
      end]]
    local function ends(prepare)
      local m = start(options, { "10.0.0.9:1" })
      prepare(m)
      t.advance(60)
      return p:client():reset():access().tags
    end
    assert.equal("1", ends(function() c:send("x"):finish() u:finish() end).whole)
    assert.equal("1", ends(function(m) c:send "x" m:reset() c:send "y" c:reset() end).broken)
    assert.equal("1", ends(function(m) m:stop_reading() c:send(("x"):rep(2 ^ 20)) end).behind)
    start(options)
    c:send "x"
    assert.equal("1", p:client():reset():access().tags.refused)
  end)

  it("copies a sample of the connections", function()
    local m = start('{ up = "10.0.0.9:1", sample = 0.5 }', { "10.0.0.9:1" })
    for _ = 1, 100 do p:client():send "x" end
    t.advance(0.001)
    assert.is_true(#m.connections > 20 and #m.connections < 80)
  end)

  it("refuses what makes no sense", function()
    inline.refuses("mirror", "{}", "there is nothing to copy")
    inline.refuses("mirror", '{ up = 7 }', "up is a destination")
    inline.refuses("mirror", '{ up = "a:1", queue = "1K" }', "queue is a size of 65536 or more")
    inline.refuses("mirror", '{ up = "a:1", sample = 2 }', "sample is the part")
    inline.refuses("mirror", '{ up = "a:1", queu = 2 }', 'did you mean "queue"?')
  end)
end)
