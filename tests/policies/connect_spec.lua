-- penstock as an HTTP proxy for CONNECT.
local t = require "penstock.test"
local inline = require "support.inline"

local WEB = "192.0.2.80:443"
local OK = "HTTP/1.1 200 Connection established\r\n\r\n"
local rules = 'allow = { "www.test:443", "192.0.2.0/24:443", "[2001:db8::/32]:443" }'
local users = rules .. ', users = { alice = "sec:ret" }'
local ALICE = "Proxy-Authorization: Basic YWxpY2U6c2VjOnJldA==\r\n"

local function request(target, more)
  return ("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n"):format(target, target, more or "")
end

local function start(options, load_options)
  local p = inline.load("connect", ("{ %s }"):format(options or rules), load_options or {})
  p:dns { ["www.test"] = { "192.0.2.80" }, ["evil.test"] = { "127.0.0.1" }, ["no.test"] = "nxdomain" }
  return p, p:upstream(WEB)
end

-- The status of the answer to these bytes, the detail of the denial, and all of the answer.
local function answer(bytes, options)
  local p, u = start(options)
  local c = p:client():send(bytes)
  assert.equal(0, #u.connections)
  local text = c:received()
  local ended = c:ended()
  c:finish()
  local reason, detail = c:closed()
  assert.same({ "fin", "denied" }, { ended, reason })
  local head, body = text:match "^(.-\r\n)\r\n(.*)$"
  if head then
    assert.matches("\r\nConnection: close\r\n", head)
    assert.equal(#body, tonumber(head:match "\r\nContent%-Length: (%d+)\r\n"))
  end
  return tonumber(text:match "^HTTP/1%.1 (%d%d%d) "), detail, text
end

describe("connect", function()
  it("leads to a name, wherever the request and what follows are split", function()
    t.splits(request "WWW.test:443" .. "early", function(parts)
      local p, u = start()
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(OK, c:read())
      assert.equal("early", u:received())
      u:send("late"):finish()
      assert.same({ "late", "fin" }, { c:read(), c:ended() })
      c:send("more"):finish()
      assert.same({ "earlymore", "fin" }, { u:received(), u:ended() })
      assert.equal("eof", (c:closed()))
    end)
  end)

  it("takes addresses, and HTTP/1.0 without a host", function()
    local p, u = start()
    p:client():send(request(WEB) .. "a")
    assert.equal("a", u:received())
    p:client():send("CONNECT " .. WEB .. " HTTP/1.0\r\n\r\nb")
    assert.equal("b", u:received())
    local six = p:upstream "[2001:db8::1]:443"
    p:client():send(request "[2001:db8::1]:443" .. "c")
    assert.equal("c", six:received())
  end)

  it("asks for a login when there are users, wherever it is split", function()
    t.splits(request("www.test:443", ALICE) .. "early", function(parts)
      local p, u = start(users)
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(OK, c:received())
      assert.equal("early", u:received())
      c:finish()
      u:finish()
      assert.same({ to = "www.test:443", user = "alice" }, c:access().tags)
    end)
  end)

  it("takes the name of the scheme in any case", function()
    local p, u = start(users)
    p:client():send(request("www.test:443", ALICE:gsub("Basic", "bAsIC")) .. "x")
    assert.equal("x", u:received())
  end)

  it("lets through what the upstream says first, behind its own answer", function()
    local p, u = start()
    local c = p:client():send(request "www.test:443")
    u:send "220 hello\r\n"
    assert.equal(OK .. "220 hello\r\n", c:received())
  end)

  it("keeps fields to itself", function()
    local p, u = start()
    p:client():send(request("www.test:443", "X-Secret: 1\r\nContent-Length: 0\r\n"))
    assert.equal("", u:received())
  end)
end)

describe("connect refuses", function()
  it("other methods with 405, and says what it is", function()
    for _, line in ipairs {
      "GET http://www.test/ HTTP/1.1", "GET / HTTP/1.0", "POST / HTTP/1.1", "connect a:1 HTTP/1.1",
    } do
      local status, detail, text = answer(line .. "\r\nHost: a\r\n\r\n")
      assert.same({ 405, "method" }, { status, detail })
      assert.matches("\r\nAllow: CONNECT\r\n", text)
      assert.matches("This is a proxy for tunnels: it takes CONNECT host:port, and nothing else.\n$", text)
    end
    local p = start()
    local text = p:client():send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"):received()
    assert.matches("^HTTP/1.1 405 .*\r\nAllow: CONNECT\r\n\r\n$", text)
  end)

  it("destinations that no rule names with 403, also those that a name leads to", function()
    for _, target in ipairs { "www.test:80", "8.8.8.8:443", "other.test:444" } do
      local status, detail = answer(request(target))
      assert.same({ 403, "not_allowed" }, { status, detail })
    end
    local status, detail = answer(request "evil.test:443", 'allow = "any"')
    assert.same({ 403, "private" }, { status, detail })
  end)

  it("who does not log in, or wrongly, with 407 and what to do about it", function()
    local wrong = { "", "Proxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n", "Proxy-Authorization: Basic YWxpY2U=\r\n",
      "Proxy-Authorization: Bearer YWxpY2U6c2VjOnJldA==\r\n", "Proxy-Authorization: Basic\r\n",
      "Proxy-Authorization: Basic YWxpY2U6c2VjOnJldA\r\n", "Authorization: Basic YWxpY2U6c2VjOnJldA==\r\n" }
    for _, field in ipairs(wrong) do
      local status, detail, text = answer(request("www.test:443", field), users)
      assert.same({ 407, "login" }, { status, detail }, field)
      assert.matches('\r\nProxy%-Authenticate: Basic realm="penstock", charset="UTF%-8"\r\n', text)
    end
  end)

  it("whatever could be read in two ways with 400", function()
    local bad = {
      "\22\3\1\2\0\1\0\1\252\3\3\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT www.test:443\r\n\r\n",
      "CONNECT www.test:443 HTTP/1.1\r\n\r\n", "CONNECT  www.test:443 HTTP/1.1\r\nHost: a\r\n\r\n",
      request("www.test:443", "Host: b\r\n"), request("www.test:443", "Content-Length: 5\r\n"),
      request("www.test:443", "Transfer-Encoding: chunked\r\n"), request("www.test:443", "X : y\r\n"),
      request("www.test:443", " folded\r\n"), request("www.test:443", "X: a\rb\r\n"),
      request("www.test:443", "X: \0\r\n"),
      request("www.test:443", ALICE .. ALICE),
    }
    for _, target in ipairs {
      "www.test", "www.test:", "www.test:0", "www.test:65536", "www.test:044443", ":443", "a@b:443",
      "http://www.test:443", "2001:db8::1:443", "[2001:db8::1]", "[www.test]:443", "[1.2.3.4]:443", "www.test:443/",
    } do
      bad[#bad + 1] = request(target)
    end
    for _, bytes in ipairs(bad) do
      local status, detail = answer(bytes)
      assert.same({ 400, "bad_request" }, { status, detail }, bytes)
    end
    local status, detail = answer(request "a..b:443")
    assert.same({ 400, "bad_name" }, { status, detail })
  end)

  it("other protocols at their first byte", function()
    for _, bytes in ipairs { "\5", "\4", "\22", "\0", "\255" } do
      local status, detail = answer(bytes)
      assert.same({ 400, "bad_request" }, { status, detail })
    end
  end)

  it("heads over 16 KiB with 431, in one field or in many", function()
    local status, detail = answer(request("www.test:443", "X: " .. ("x"):rep(17000) .. "\r\n"))
    assert.same({ 431, "too_long" }, { status, detail })
    status = answer(request("www.test:443", ("X: y\r\n"):rep(3000)))
    assert.equal(431, status)
  end)

  it("a head that does not come within the handshake timeout with 408", function()
    local p = start(rules, { timeouts = { handshake = 5 } })
    local c = p:client()
    for byte in request("www.test:443"):sub(1, 40):gmatch "." do
      c:send(byte)
      t.advance(0.12)
    end
    t.advance(0.3)
    assert.matches("^HTTP/1.1 408 ", c:received())
    c:finish()
    assert.same({ "denied", "timeout" }, { c:closed() })
  end)

  it("a client that ends or aborts in the midst of its request", function()
    local whole = request("www.test:443", ALICE)
    for n = 0, #whole - 1, 7 do
      local p, u = start(users)
      local c = p:client():send(whole:sub(1, n)):finish()
      assert.same({ "denied", "eof" }, { c:closed() })
      c = p:client():send(whole:sub(1, n)):reset()
      assert.equal("reset", (c:closed()))
      assert.equal(0, #u.connections)
    end
  end)
end)

describe("connect tells why an upstream cannot be reached:", function()
  for word, status in pairs { refused = 502, unreachable = 502, timeout = 504 } do
    it(word, function()
      local p = start(rules, { timeouts = { connect = 3 } })
      p:fail(WEB, word)
      local c = p:client():send(request "www.test:443" .. ("x"):rep(100000))
      t.advance(3)
      assert.matches("^HTTP/1.1 " .. status .. " .*\r\n\r\n.+%.\n$", c:received())
      assert.equal("fin", c:ended())
      c:finish()
      t.advance(5)
      assert.same({ "denied", word }, { c:closed() })
    end)
  end

  it("a name that does not resolve", function()
    local status, detail = answer(request "no.test:443", 'allow = "any"')
    assert.same({ 502, "dns" }, { status, detail })
  end)
end)

describe("connect in a list of policies", function()
  it("never falls back to the listener's own destination", function()
    local p, u = start(users, { to = WEB })
    for _, bytes in ipairs { "GET / HTTP/1.0\r\n\r\n", request "www.test:443", "x\r\n\r\n" } do
      p:client():send(bytes):finish()
    end
    assert.equal(0, #u.connections)
  end)
end)

describe("connect does not load", function()
  it("without saying what is allowed", function()
    inline.refuses("connect", '{ users = { a = "b" } }', "allow is missing")
    inline.refuses("connect", '{ allow = "any", user = {} }', 'did you mean "users"?')
  end)
end)
