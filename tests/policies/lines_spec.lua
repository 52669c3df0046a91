local t = require "penstock.test"
local inline = require "support.inline"

describe("lines", function()
  local p, u, c

  local function start(options)
    p = inline.load("lines", options)
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end

  it("rewrites both directions, wherever they are split, and keeps line ends and odd bytes", function()
    local input = "a secret\r\n\nsec\0ret secret secret\nsecret\rsecret\r\nsecret"
    local want = "a ***\r\n\nsec\0ret *** ***\n***\r***\r\n***"
    t.splits(input, function(parts)
      start '{ up = { { "secret", "***" } }, down = { { "s(ec)ret", "<%1>" }, { "<ec>", "***" } } }'
      for _, part in ipairs(parts) do c:send(part) end
      for _, part in ipairs(parts) do u:send(part) end
      c:finish()
      u:finish()
      assert.equal(want, u:received())
      assert.equal(want, c:received())
      assert.same({ "fin", "fin" }, { u:ended(), c:ended() })
    end)
  end)

  it("calls functions, which may wait, drop a line, or leave it", function()
    start [[{ up = function(line, conn)
      if line == "drop" then return false end
      if line == "wait" then ps.sleep(1) return conn.client.ip end
    end }]]
    c:send "a\ndrop\nwait\nb\n"
    assert.equal("a\n", u:received())
    t.advance(1)
    assert.equal("a\n192.0.2.1\nb\n", u:received())
  end)

  it("leaves a line that is too long as it is, and rewrites the next", function()
    for _, n in ipairs { 11, 100, 200000 } do
      start '{ up = { "x", "y" }, max = 10 }'
      c:send(("x"):rep(10) .. "\n" .. ("x"):rep(n) .. "\r\nx\n")
      assert.equal(("y"):rep(10) .. "\n" .. ("x"):rep(n) .. "\r\ny\n", u:received())
    end
    t.splits("xxxxx\nx\nxxxx", function(parts)
      start '{ up = { "x", "y" }, max = 3 }'
      for _, part in ipairs(parts) do c:send(part) end
      c:finish()
      assert.equal("xxxxx\ny\nxxxx", u:received())
    end)
  end)

  it("takes texts for what they are when they are plain", function()
    start '{ up = { { "a.b", "%1" }, { "%1", "100%" } }, plain = true }'
    c:send "a.b axb\n"
    assert.equal("100% axb\n", u:received())
  end)

  it("gets out of the way after the first lines", function()
    start '{ up = { "x", "y" }, first = 2 }'
    c:send "x\nx\nx\n"
    assert.equal("y\ny\nx\n", u:received())
  end)

  it("fails closed when a function returns nonsense", function()
    start "{ up = function() return 7 end }"
    p:expect_error "the function for lines returned a number"
    c:send "a\n"
    assert.equal("rst", c:ended())
  end)

  it("refuses what makes no sense", function()
    inline.refuses("lines", "{}", "there is nothing to do")
    inline.refuses("lines", '{ up = "x" }', "up is a list of rules")
    inline.refuses("lines", '{ up = { { "[a", "x" } } }', "malformed pattern")
    inline.refuses("lines", '{ up = { { "a", 7 } } }', 'what stands instead of "a" is a text')
    inline.refuses("lines", '{ upp = { { "a", "b" } } }', 'did you mean "up"?')
  end)
end)
