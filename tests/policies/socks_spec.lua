-- penstock as a SOCKS5 server.
local t = require "penstock.test"
local inline = require "support.inline"

local WEB, INNER = "192.0.2.80:443", "10.0.0.5:22"
local OPEN, LOGIN = "\5\1\0", "\5\2\0\2"
local BOUND = "\0\1\0\0\0\0\0\0"
local TO_WEB, TO_NAME = "\5\1\0\1\192\0\2\80\1\187", "\5\1\0\3\8www.test\1\187"
local ALICE = "\1\5alice\6secret"
local rules = 'allow = { "www.test:443", "192.0.2.0/24:443", "10.0.0.0/8:22" }'

local function start(options, load_options)
  local p = inline.load("socks", ("{ %s }"):format(options or rules), load_options or {})
  p:dns {
    ["www.test"] = { "192.0.2.80" }, ["evil.test"] = { "127.0.0.1" }, ["two.test"] = { "192.0.2.80", "192.0.2.81" },
  }
  return p, p:upstream(WEB), p:upstream(INNER)
end

-- What is answered to these bytes, and how the connection ends then.
local function answer(bytes, options)
  local p, u = start(options)
  local c = p:client():send(bytes):finish()
  assert.equal(0, #u.connections)
  local reason, detail = c:closed()
  return c:received(), c:ended(), reason, detail
end

describe("socks", function()
  local requests = { address = TO_WEB, name = TO_NAME, ["name that is one"] = "\5\1\0\3\010192.0.2.80\1\187" }
  for name, request in pairs(requests) do
    it("leads to a destination by " .. name .. ", wherever greeting, request and what follows are split", function()
      t.splits(OPEN .. request .. "early", function(parts)
        local p, u = start()
        local c = p:client()
        for _, part in ipairs(parts) do c:send(part) end
        assert.equal("\5\0\5\0" .. BOUND, c:read())
        assert.equal("early", u:received())
        u:send "late"
        assert.equal("late", c:read())
        c:finish()
        assert.equal("fin", u:ended())
        u:send("after"):finish()
        assert.equal("after", c:read())
        assert.equal("eof", (c:closed()))
      end)
    end)
  end

  it("asks for a login when there are users, wherever it is split", function()
    t.splits(LOGIN .. ALICE .. TO_NAME .. "early", function(parts)
      local p, u = start(rules .. ', users = { alice = "secret" }')
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal("\5\2\1\0\5\0" .. BOUND, c:received())
      assert.equal("early", u:received())
      c:finish()
      u:finish()
      assert.same({ to = "www.test:443", user = "alice" }, c:access().tags)
    end)
  end)

  it("takes IPv6 destinations", function()
    local p = start 'allow = { "[2001:db8::/32]:443" }'
    local u = p:upstream "[2001:db8::1]:443"
    p:client():send(OPEN .. "\5\1\0\4\32\1\13\184" .. ("\0"):rep(11) .. "\1\1\187" .. "x")
    assert.equal("x", u:received())
  end)

  it("lets through what the upstream says first, behind its own answer", function()
    local p, u = start()
    local c = p:client():send(OPEN .. TO_WEB)
    u:send "220 hello\r\n"
    assert.equal("\5\0\5\0" .. BOUND .. "220 hello\r\n", c:received())
  end)

  it("lets the reply through when the client ends right behind its request", function()
    local p, u = start()
    local c = p:client():send(OPEN .. TO_WEB .. "all"):finish()
    assert.same({ "all", "fin" }, { u:received(), u:ended() })
    u:send("reply"):finish()
    assert.equal("\5\0\5\0" .. BOUND .. "reply", c:received())
  end)

  it("tries the next address of a name when one is down", function()
    local p = start 'allow = "any"'
    p:fail(WEB, "refused")
    local second = p:upstream "192.0.2.81:443"
    p:client():send(OPEN .. "\5\1\0\3\8two.test\1\187x")
    assert.equal("x", second:received())
  end)
end)

describe("socks refuses", function()
  local users = rules .. ', users = { alice = "secret" }'

  it("a destination that no rule names, with code 2", function()
    for _, request in ipairs { "\5\1\0\1\192\0\2\80\0\80", "\5\1\0\1\8\8\8\8\1\187" } do
      assert.same({ "\5\0\5\2" .. BOUND, "fin", "denied", "not_allowed" }, { answer(OPEN .. request) })
    end
  end)

  it("a name that leads into a network that no rule names, and says which rule would do", function()
    local p = start 'allow = { "evil.test:443" }'
    local inner = p:upstream "127.0.0.1:443"
    local c = p:client():send(OPEN .. "\5\1\0\3\9evil.test\1\187"):finish()
    assert.equal("\5\0\5\2" .. BOUND, c:received())
    assert.same({ "denied", "private" }, { c:closed() })
    assert.equal(0, #inner.connections)
    assert.matches("evil.test leads to 127.0.0.1 %(loopback%), and no rule names that network",
      table.concat(p:log(), "\n"))
  end)

  it("a name that is pointed elsewhere once it was looked at: what was looked at is what is connected to", function()
    local p, u = start 'allow = "any"'
    local inner = p:upstream "127.0.0.1:443"
    p:client():send(OPEN .. TO_NAME .. "a")
    p:dns { ["www.test"] = { "127.0.0.1" } }
    local c = p:client():send(OPEN .. TO_NAME .. "b"):finish()
    assert.equal("a", u:received())
    assert.same({ "denied", "private" }, { c:closed() })
    assert.equal(0, #inner.connections)
  end)

  it("BIND and UDP ASSOCIATE with code 7", function()
    for _, command in ipairs { "\2", "\3", "\0", "\9" } do
      assert.same({ "\5\0\5\7" .. BOUND, "fin", "denied", "command" },
        { answer(OPEN .. "\5" .. command .. TO_WEB:sub(3)) })
    end
  end)

  it("other kinds of addresses with code 8", function()
    assert.same({ "\5\0\5\8" .. BOUND, "fin", "denied", "address_kind" }, { answer(OPEN .. "\5\1\0\2aaaa\1\187") })
  end)

  it("names that are none, and names that do not resolve, with code 4", function()
    assert.same({ "\5\0\5\4" .. BOUND, "fin", "denied", "bad_name" }, { answer(OPEN .. "\5\1\0\3\4a\0.b\1\187") })
    assert.same({ "\5\0\5\4" .. BOUND, "fin", "denied", "bad_name" }, { answer(OPEN .. "\5\1\0\3\0\1\187") })
    local p = start 'allow = "any"'
    p:dns { ["no.test"] = "nxdomain" }
    assert.equal("\5\0\5\4" .. BOUND, p:client():send(OPEN .. "\5\1\0\3\7no.test\1\187"):received())
  end)

  it("requests that are none with code 1", function()
    for _, head in ipairs { "\4\1\0\1", "\5\1\1\1" } do
      assert.same({ "\5\0\5\1" .. BOUND, "fin", "denied", "bad_request" },
        { answer(OPEN .. head .. "\192\0\2\80\1\187") })
    end
  end)

  it("SOCKS4 and SOCKS4a in their own form, and other protocols without a word", function()
    local rejected = "\0\91\0\0\0\0\0\0"
    assert.same({ rejected, "fin", "denied", "socks4" }, { answer "\4\1\1\187\192\0\2\80user\0" })
    assert.same({ rejected, "fin", "denied", "socks4" }, { answer "\4\1\1\187\0\0\0\1user\0www.test\0" })
    assert.same({ "", "fin", "denied", "bad_request" }, { answer "GET / HTTP/1.1\r\n\r\n" })
  end)

  it("clients that offer no way to log in that it knows, with 255", function()
    assert.same({ "\5\255", "fin", "denied", "no_method" }, { answer("\5\1\2" .. TO_WEB) })
    assert.same({ "\5\255", "fin", "denied", "no_method" }, { answer("\5\0" .. TO_WEB) })
    assert.same({ "\5\255", "fin", "denied", "no_method" }, { answer(OPEN .. TO_WEB, users) })
  end)

  it("wrong logins, whatever follows them", function()
    for _, login in ipairs { "\1\5alice\5wrong", "\1\3bob\6secret", "\1\5alice\0", "\1\0\6secret", "\1\0\0",
      "\1\5alice\7secret\0" } do
      assert.same({ "\5\2\1\1", "fin", "denied", "login" }, { answer(LOGIN .. login .. TO_WEB, users) })
    end
    assert.same({ "\5\2\1\1", "fin", "denied", "bad_request" }, { answer(LOGIN .. "\5" .. ALICE:sub(2), users) })
  end)

  it("a request that ends too early, in each step of it", function()
    local whole = LOGIN .. ALICE .. TO_NAME
    for n = 0, #whole - 1 do
      local _, ended, reason, detail = answer(whole:sub(1, n), users)
      assert.same({ "fin", "denied", "eof" }, { ended, reason, detail }, n)
    end
  end)

  it("a client that aborts, in each step of it, and leaves nothing behind", function()
    local whole = LOGIN .. ALICE .. TO_NAME
    for n = 0, #whole - 1 do
      local p, u = start(users)
      local c = p:client():send(whole:sub(1, n))
      c:reset()
      assert.equal("reset", (c:closed()))
      assert.equal(0, #u.connections)
    end
  end)

  it("a request that does not come whole within the handshake timeout", function()
    local whole = OPEN .. TO_NAME
    for n = 0, #whole - 1 do
      local p = start(rules, { timeouts = { handshake = 5 } })
      local c = p:client()
      for i = 1, n do
        c:send(whole:sub(i, i))
        t.advance(5 / #whole)
      end
      t.advance(5)
      assert.same({ "denied", "timeout" }, { c:closed() })
    end
  end)
end)

describe("socks tells why an upstream cannot be reached:", function()
  for word, code in pairs { refused = "\5", unreachable = "\4", timeout = "\6" } do
    it(word, function()
      local p = start(rules, { timeouts = { connect = 3 } })
      p:fail(WEB, word)
      local c = p:client():send(OPEN .. TO_WEB)
      t.advance(3)
      assert.equal("\5\0\5" .. code .. BOUND, c:received())
      assert.equal("fin", c:ended())
      c:finish()
      assert.same({ "denied", word }, { c:closed() })
    end)
  end

  it("and the answer arrives although the client has sent more already", function()
    local p = start()
    p:fail(WEB, "refused")
    local c = p:client():send(OPEN .. TO_WEB .. ("x"):rep(100000))
    assert.equal("\5\0\5\5" .. BOUND, c:received())
    assert.equal("fin", c:ended())
  end)
end)

describe("socks in a list of policies", function()
  local list = [[
    return { require "penstock.policy.allow" { "203.0.113/24" },
      { connect = function(conn) if conn.client.port == 1 then return "192.0.2.80:443" end end },
      require "penstock.policy.socks" { allow = "any" } }]]

  it("lets the one before it decide on clients", function()
    local p = inline.text(list, {})
    local c = p:client { ip = "198.51.100.1" }
    assert.same({ "denied", "not_allowed" }, { c:closed() })
  end)

  it("says nothing to clients that another policy has led somewhere", function()
    local p = inline.text(list, {})
    local u = p:upstream(WEB)
    local c = p:client { ip = "203.0.113.1", port = 1 }
    u:send "220\n"
    assert.equal("220\n", c:received())
    p:fail(WEB, "refused")
    c = p:client { ip = "203.0.113.1", port = 1 }
    assert.same({ "", "rst" }, { c:received(), c:ended() })
  end)

  it("never falls back to the listener's own destination", function()
    local p, u = start(rules .. ', users = { alice = "secret" }', { to = WEB })
    p:client():send(OPEN .. "x"):finish()
    p:client():send(LOGIN .. "\1\1a\1b" .. TO_WEB):finish()
    assert.equal(0, #u.connections)
  end)
end)

describe("socks does not load", function()
  it("without saying what is allowed, or with what makes no sense", function()
    inline.refuses("socks", "{}", 'allow is missing: the destinations that clients may reach, allow = { "www.exam')
    inline.refuses("socks", "{ allow = {} }", "allow names nothing")
    inline.refuses("socks", '{ allow = { "www.test" } }', 'allow: "www.test" has no port: write "www.test:443"')
    inline.refuses("socks", '{ allow = 5 }', "allow is a list of texts")
    inline.refuses("socks", '{ alow = "any" }', 'did you mean "allow"?')
    inline.refuses("socks", '{ allow = "any", users = {} }', "there is no user")
    inline.refuses("socks", '{ allow = "any", users = "/nowhere/users" }', "cannot read /nowhere/users: No such file")
  end)
end)
