local t = require "penstock.test"
local inline = require "support.inline"

describe("headers", function()
  local p, u, c

  local function start(options)
    p = inline.load("headers", options)
    u, c = p:upstream "127.0.0.1:7001", p:client { ip = "203.0.113.7" }
  end

  local function send(peer, parts)
    for _, part in ipairs(parts) do peer:send(part) end
  end

  it("changes the first request, wherever it is split, and nothing behind its head", function()
    local input = "\r\nGET /a HTTP/1.1\r\nhost: a\nX-Old: 1\r\nCookie:\tc \r\n\r\nX-Old: body\r\n\r\n"
    t.splits(input, function(parts)
      start '{ set = { Host = "b", ["X-Id"] = function(conn) return conn.id end and "7" }, remove = { "cookie" } }'
      send(c, parts)
      assert.equal("GET /a HTTP/1.1\r\nX-Old: 1\r\nHost: b\r\nX-Id: 7\r\n\r\nX-Old: body\r\n\r\n", u:received())
      c:finish()
      assert.equal("fin", u:ended())
    end)
  end)

  it("changes every request when it is told to, whatever their bodies, wherever they are split", function()
    local input = "POST /1 HTTP/1.1\r\nContent-Length: 5\r\nX: 1\r\n\r\nGET /" ..
      "PUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nab\r\r\n" ..
      "B\r\n0\r\n\r\nX: 1\r\n\r\n0\r\nX: t\r\nY: t\r\n\r\n" ..
      "\r\nGET /3 HTTP/1.1\r\nX: 1\r\n\r\nHEAD /4 HTTP/1.1\r\n\r\n"
    t.splits(input, function(parts)
      start '{ set = { X = "2" }, every = true }'
      send(c, parts)
      assert.equal("POST /1 HTTP/1.1\r\nContent-Length: 5\r\nX: 2\r\n\r\nGET /" ..
        "PUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: 2\r\n\r\n3;x=y\r\nab\r\r\n" ..
        "B\r\n0\r\n\r\nX: 1\r\n\r\n0\r\nY: t\r\n\r\n" ..
        "GET /3 HTTP/1.1\r\nX: 2\r\n\r\nHEAD /4 HTTP/1.1\r\nX: 2\r\n\r\n", u:received())
    end)
  end)

  it("changes every response, whatever their bodies, wherever they are split", function()
    local requests = "GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n" .. ("GET / HTTP/1.1\r\n\r\n"):rep(4)
    local input = "HTTP/1.1 100 Continue\r\nS: 1\r\n\r\nHTTP/1.1 200 OK\r\nS: 1\r\nContent-Length: 3\r\n\r\nS: " ..
      "HTTP/1.1 200\r\nContent-Length: 300\r\n\r\nHTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n" ..
      "HTTP/1.1 204 No\r\nS: 1\r\n\r\n" ..
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" ..
      "HTTP/1.1 200 OK\r\nS: 1\r\n\r\nHTTP/1.1 200 OK\r\nS: 1\r\n\r\n"
    t.splits(input, function(parts)
      start '{ response = { remove = "S", add = { A = "b" } }, every = true }'
      c:send(requests)
      send(u, parts)
      assert.equal("HTTP/1.1 100 Continue\r\nS: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\nS: " ..
        "HTTP/1.1 200\r\nContent-Length: 300\r\nA: b\r\n\r\nHTTP/1.1 304 Not\r\nContent-Length: 9\r\nA: b\r\n\r\n" ..

        "HTTP/1.1 204 No\r\nA: b\r\n\r\n" ..
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n1\r\na\r\n0\r\n\r\n" ..
        "HTTP/1.1 200 OK\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nS: 1\r\n\r\n", c:received()) -- the last one is a body
      assert.equal(requests, u:received())
      u:finish()
      assert.equal("fin", c:ended())
    end)
  end)

  it("changes the first response alone unless told otherwise", function()
    start '{ response = { set = { Server = "x" } } }'
    c:send "GET / HTTP/1.1\r\n\r\n"
    u:send "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nServer: y\r\nContent-Length: 0\r\n\r\n"
    u:send "HTTP/1.1 200 OK\r\nServer: y\r\n\r\n"
    assert.equal("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: x\r\n\r\n" ..
      "HTTP/1.1 200 OK\r\nServer: y\r\n\r\n", c:received())
  end)

  it("tells the client's address behind those that are told already, or in their place", function()
    start "{ forwarded = true }"
    c:send "GET / HTTP/1.1\r\nx-forwarded-for: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n"
    assert.equal("GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 203.0.113.7\r\n\r\n", u:received())
    start '{ forwarded = "replace" }'
    c:send "GET / HTTP/1.1\r\nx-forwarded-for: 1.1.1.1\r\n\r\n"
    assert.equal("GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n", u:received())
  end)

  it("takes functions for values, which may wait, or say nothing", function()
    start [[{ set = { A = function(conn) ps.sleep(1) return conn.client.ip end, B = function() end } }]]
    c:send "GET / HTTP/1.1\r\nB: 1\r\n\r\n"
    assert.equal("", u:received())
    t.advance(1)
    assert.equal("GET / HTTP/1.1\r\nA: 203.0.113.7\r\n\r\n", u:received())
    start [[{ set = { A = function() return "x\r\ny" end } }]]
    p:expect_error "the function for the field A"
    c:send "GET / HTTP/1.1\r\n\r\n"
    assert.equal("rst", c:ended())
  end)

  it("lets another protocol pass once the server has taken it, and not before", function()
    local request = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"
    start '{ set = { X = "2" }, every = true }'
    c:send(request .. "GET / HTTP/1.1\r\n\r\n")
    local first = "GET / HTTP/1.1\r\nUpgrade: x\r\nX: 2\r\n\r\n"
    assert.equal(first, u:received())
    u:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert.equal(first .. "GET / HTTP/1.1\r\nX: 2\r\n\r\n", u:received())
    u:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    u:read()
    c:send(request)
    u:send "HTTP/1.1 101 Switch\r\n\r\n\0\1"
    c:send "\0\2"
    assert.equal(first .. "\0\2", u:read())
    assert.matches("\r\n\r\n%z\1$", c:received())
    start '{ set = { X = "2" }, every = true }'
    c:send "CONNECT a:1 HTTP/1.1\r\n\r\n\0\1"
    assert.equal("CONNECT a:1 HTTP/1.1\r\nX: 2\r\n\r\n", u:read())
    u:send "HTTP/1.1 200 OK\r\n\r\n\0\2"
    assert.equal("\0\1", u:read())
    assert.equal("HTTP/1.1 200 OK\r\n\r\n\0\2", c:read())
  end)

  it("goes on changing requests behind one that asked to switch, and was answered up to the end", function()
    start '{ set = { X = "2" }, every = true }'
    c:send "GET /1 HTTP/1.1\r\nUpgrade: x\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"
    assert.equal("GET /1 HTTP/1.1\r\nUpgrade: x\r\nX: 2\r\n\r\n", u:read())
    u:send "HTTP/1.1 200 OK\r\n\r\nbody"
    assert.equal("GET /2 HTTP/1.1\r\nX: 2\r\n\r\n", u:read())
  end)

  local bad = {
    "SSH-2.0-x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nA : b\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: x chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked,\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: gzip,,chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "\nGET / HTTP/1.1\nContent-Length: x\n\n",
    "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n",
    "\n\n\n\n\nGET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nA: " .. ("x"):rep(300) .. "\r\n\r\n",
  }

  it("resets what two readers could understand differently", function()
    for _, text in ipairs(bad) do
      start '{ set = { X = "2" }, max = 256 }'
      c:send(text)
      assert.same({ text, "rst", "bad_http", "" }, { text, c:ended(), select(2, c:closed()), u:received() })
    end
    for _, chunks in ipairs { "x\r\n", "1\r\nab\r\n", "0x1\r\na\r\n", " 1\r\na\r\n", "1 1\r\na\r\n",
    "0\r\nbad\r\n\r\n" } do
      start '{ set = { X = "2" }, every = true }'
      c:send("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" .. chunks)
      assert.same({ chunks, "rst", "bad_http" }, { chunks, c:ended(), select(2, c:closed()) })
    end
  end)

  it("lets that pass as it came when it is told to", function()
    for _, text in ipairs(bad) do
      start '{ set = { X = "2" }, max = 256, invalid = "pass" }'
      c:send(text):send "more\n"
      assert.equal(text .. "more\n", u:received())
    end
  end)

  it("takes lists of transfer codings that end in chunked", function()
    for _, list in ipairs { "gzip, chunked", "gzip ,\tchunked", "Chunked" } do
      start '{ set = { X = "2" }, every = true }'
      c:send(("PUT / HTTP/1.1\r\nTransfer-Encoding: %s\r\n\r\n1\r\na\r\n0\r\n\r\n"):format(list))
      assert.matches("X: 2\r\n\r\n1\r\na\r\n0\r\n\r\n$", u:received())
    end
  end)

  it("sends no half of a head", function()
    start '{ set = { X = "2" } }'
    c:send("GET / HTTP/1.1\r\nX: 1\r\n"):finish()
    assert.same({ "", "fin" }, { u:received(), u:ended() })
  end)

  it("passes large bodies", function()
    local big = ("b"):rep(3 * 2 ^ 20)
    start '{ set = { X = "2" }, every = true }'
    c:send(("PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%sGET / HTTP/1.1\r\n\r\n"):format(#big, big))

    local head = "PUT / HTTP/1.1\r\nContent-Length: %d\r\nX: 2\r\n\r\n%s"
    assert.equal(head:format(#big, big) .. "GET / HTTP/1.1\r\nX: 2\r\n\r\n", u:received())
    c:send(("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(#big, big))
    assert.matches("b\r\n0\r\n\r\n$", u:received():sub(-10))
  end)

  it("refuses what makes no sense", function()
    inline.refuses("headers", "{}", "there is nothing to do")
    inline.refuses("headers", '{ set = { ["A b"] = "c" } }', '"A b" is no name')
    inline.refuses("headers", '{ set = { A = "c\\n" } }', "one line of text")
    inline.refuses("headers", '{ remove = "Content-Length" }', "tells where the message ends")
    inline.refuses("headers", '{ response = { sett = {} } }', 'did you mean "set"?')
    inline.refuses("headers", '{ forwarded = "yes" }', "forwarded is true")
  end)
end)
