-- What a hook takes from the client before there is an upstream, and answers that come with a denial.
local t = require "penstock.test"
local inline = require "support.inline"

local ADDRESS = "127.0.0.1:7001"

local function start(lua, options)
  local p = inline.text(lua, options)
  return p, p:upstream(ADDRESS)
end

describe("conn:take", function()
  it("takes bytes and lines away from what the upstream gets, wherever they are split", function()
    t.splits("\3abcline\r\n\nrest", function(parts)
      local p, u = start [[
        return { connect = function(conn)
          local n = conn:take(1):byte()
          conn:tag("bytes", conn:take(n))
          local line, eol = conn:take_line(4)
          conn:tag("line", line .. #eol)
          local empty, lf = conn:take_line(0)
          conn:tag("empty", empty .. #lf)
          conn:tag("peeked", conn:peek(4))
        end }]]
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      c:finish()
      assert.equal("rest", u:received())
      u:finish()
      assert.same({ bytes = "abc", line = "line2", empty = "1", peeked = "rest" }, c:access().tags)
      assert.equal(15, c:access().bytes_up)
    end)
  end)

  it("consumes nothing when it fails", function()
    local p, u = start [[
      return { connect = function(conn)
        local _, why = conn:take_line(3)
        conn:tag("line", why)
        _, why = conn:take(100)
        conn:tag("bytes", why)
      end }]]
    local c = p:client():send("abcdefgh\n"):finish()
    assert.equal("abcdefgh\n", u:received())
    u:finish()
    assert.same({ line = "too_long", bytes = "eof" }, c:access().tags)
  end)

  it("is refused once the bytes are relayed, and for sizes that make no sense", function()
    local p = start [[
      return {
        connect = function(conn)
          for _, n in ipairs { 0, -1, 2 ^ 30, "x" } do assert(not pcall(conn.take, conn, n)) end
          assert(not pcall(conn.take_line, conn, -1))
        end,
        data = function(conn) conn:take(1) end,
      }]]
    p:expect_error "conn:take%(n%): the client's bytes are relayed already"
    p:client():send "x"
  end)
end)

describe("looks before there is an upstream", function()
  local trickle = [[
    return { connect = function(conn)
      for i = 1, 100 do
        local bytes, why = conn:%s(%s)
        if not bytes then return ps.deny { reason = why } end
      end
    end }]]

  for name, n in pairs { take = "1", peek = "i" } do
    it("share one handshake timeout, however often a byte comes: " .. name, function()
      local p = start(trickle:format(name, n), { to = ADDRESS, timeouts = { handshake = 5 } })
      local c = p:client()
      for _ = 1, 4 do
        c:send "x"
        t.advance(1.2)
      end
      assert.is_nil(c:closed())
      t.advance(0.2)
      assert.same({ "denied", "timeout" }, { c:closed() })
    end)
  end

  it("answer at once after that time when the bytes are there", function()
    local p, u = start([[
      return { accept = function(conn) conn:peek(2) ps.sleep(60) conn:tag("first", conn:take(1)) end,
        connect = function(conn) conn:tag("second", conn:take(1)) end }]],
      { to = ADDRESS, timeouts = { handshake = 5 } })
    local c = p:client():send "abc"
    t.advance(60)
    assert.equal("c", u:received())
    c:reset()
    assert.same({ first = "a", second = "b" }, c:access().tags)
  end)

  it("wait for ever without a handshake timeout", function()
    local p, u = start("return { connect = function(conn) conn:take(1) end }",
      { to = ADDRESS, timeouts = { handshake = 0 } })
    local c = p:client()
    t.advance "10m"
    c:send "ab"
    assert.equal("b", u:received())
  end)
end)

describe("ps.deny{ reply = }", function()
  for _, hook in ipairs { "accept", "connect" } do
    it("is delivered from " .. hook .. ", and told as a denial", function()
      local p, u = start(('return { %s = function() return ps.deny { reason = "why", reply = "go away\\n" } end }')
        :format(hook))
      local c = p:client():send "early"
      assert.equal("go away\n", c:received())
      assert.equal("fin", c:ended())
      c:finish()
      assert.same({ "denied", "why" }, { c:closed() })
      assert.equal(0, #u.connections)
    end)
  end

  it("stays a denial when the client aborts instead of taking it", function()
    local p = start 'return { connect = function() return ps.deny { reason = "why", reply = ("x"):rep(100000) } end }'
    local c = p:client { window = 10 }
    c:stop_reading()
    c:reset()
    assert.same({ "denied", "why" }, { c:closed() })
  end)

  it("is delivered from failed, behind what was injected before", function()
    local p = start [[
      return { connect = function(conn) conn:inject("down", "wait, ") end,
        failed = function(_, _, err) return ps.deny { reason = err, reply = "no\n" } end }]]
    p:fail(ADDRESS, "refused")
    local c = p:client()
    assert.equal("wait, no\n", c:received())
    c:finish()
    assert.same({ "denied", "refused" }, { c:closed() })
  end)

  it("is an error in hooks that have an upstream, and beside reset and hang", function()
    local p = start 'return { connected = function() return ps.deny { reply = "x" } end }'
    p:expect_error "the connected hook returned ps.deny{ reply = … }, which is for accept, connect and failed"
    assert.equal("rst", p:client():ended())
    for _, more in ipairs { "reset = true", "hang = 1" } do
      local ok, why = pcall(inline.text, ('ps.deny { reply = "x", %s }'):format(more))
      assert.is_false(ok)
      assert.matches("a reply goes out at once", why)
    end
    p = start 'return { accept = function(conn) conn:deny { reply = "x" } end }'
    p:expect_error "to answer first return ps.deny{ reply = … }"
    p:client()
  end)
end)
