-- The configurations of examples/ over real sockets: their text, with addresses of this test in place of theirs.
local e2e = require "tests.e2e.support.case"
local examples = require "tests.e2e.support.examples"
local peers = require "tests.e2e.support.peers"
local case, sys = e2e.case, e2e.sys
local serve = examples.run

describe("sni-router.lua:", function()
  local function start(t)
    local db, www, dead = t:listen(), t:listen(), t:refusing()
    return serve(t, "sni-router", { [":8443"] = "127.0.0.1:0", ["10.0.0.5:5432"] = db.address,
      ["10.0.0.6:443"] = dead.address, ["10.0.0.7:443"] = www.address }), db, www
  end

  -- A ClientHello for db.lab: record, message, version, random, no session, one cipher, no compression, server_name.
  local hello = "\22\3\1\0\62" .. "\1\0\0\58" .. "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\2\19\1" .. "\1\0"
    .. "\0\15" .. "\0\0\0\11" .. "\0\9" .. "\0\0\6db.lab"

  case("a TLS client reaches the server of its name, with its hello untouched", function(t)
    local p, db = start(t)
    local client = t:connect(p):send(hello)
    local upstream = t:accept(db)
    upstream:expect(hello)
    upstream:send "answer"
    client:expect "answer"
    client:finish()
    upstream:finish()
    p:expect_end { name = "db.lab", listener = "edge", reason = "eof" }
  end)

  case("an HTTP client reaches the second server of its Host when the first is down", function(t)
    local p, _, www = start(t)
    local request = "GET / HTTP/1.1\r\nHost: www.lab\r\n\r\n"
    local client = t:connect(p):send(request)
    local upstream = t:accept(www)
    upstream:expect(request)
    client:finish()
    upstream:finish()
    p:expect_end { name = "www.lab" }
  end)

  case("who asks for another name is reset", function(t)
    local p = start(t)
    t:connect(p):send("GET / HTTP/1.1\r\nHost: x.lab\r\n\r\n"):expect_reset()
    p:expect_end { name = "x.lab", reason = "denied" }
  end)
end)

describe("client-buckets.lua:", function()
  case("twenty connections at once are let through, and of more only what the rate gives", function(t)
    local server = t:listen()
    -- So slow a rate that the test's own speed does not matter.
    local p = serve(t, "client-buckets", { [":8080"] = "127.0.0.1:0", ["app.internal:80"] = server.address,
      ["rate = 5"] = "rate = 0.001" })
    for _ = 1, 20 do t:expect_echo(p, server) end
    t:connect(p)
    p:expect_end { listener = "web", reason = "denied", detail = "rate" }
  end)

  case("what the server sends is held to 1 MiB and the rate after it", function(t)
    local server = t:listen()
    local p = serve(t, "client-buckets", { [":8080"] = "127.0.0.1:0", ["app.internal:80"] = server.address })
    local client, upstream = t:pair(p, server)
    local start, bytes = sys.now(), ("x"):rep(2 ^ 17)
    for _ = 1, 12 do -- 1.5 MiB
      upstream:send(bytes)
      client:expect(bytes)
    end
    assert.is_true(sys.now() - start >= 1.8, "took " .. sys.now() - start)
  end)
end)

describe("header-rewrite.lua:", function()
  case("the header is rewritten, and the rest goes by the relay", function(t)
    local server = t:listen()
    local p = serve(t, "header-rewrite", { [":7000"] = "127.0.0.1:0", ["127.0.0.1:7001"] = server.address })
    local client, upstream = t:pair(p, server)
    client:send "GET / HTTP/1.0\r\nHo"
    upstream:expect "GET / HTTP/1.0\r\n"
    client:send "st: a\r\n\r\nHost: body"
    upstream:expect "Host: backend\r\nX-Client: 127.0.0.1\r\n\r\nHost: body"
    upstream:send "answer"
    client:expect "answer"
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    p:expect_end { listener = "legacy", reason = "eof" }
  end)
end)

describe("flaky-db.lua:", function()
  local function start(t, replacements)
    local server = t:listen()
    replacements["127.0.0.1:15432"], replacements["127.0.0.1:5432"] = "127.0.0.1:0", server.address
    return serve(t, "flaky-db", replacements), server
  end

  case("an error of the server comes a second late, what is before it at once", function(t)
    local p, server = start(t, { ["< 0.05"] = "< 0" })
    local client, upstream = t:pair(p, server)
    local began = sys.now()
    upstream:send "D\0\0\0\7rowE\0\0\0\6xxZ\0\0\0\5I"
    client:expect "D\0\0\0\7row"
    client:expect "E\0\0\0\6xxZ\0\0\0\5I"
    assert.is_true(sys.now() - began >= 1)
  end)

  case("a connection that is to die is reset on both sides after two seconds", function(t)
    local p, server = start(t, { ["< 0.05"] = "< 1" })
    local began = sys.now()
    local client, upstream = t:pair(p, server)
    client:expect_reset()
    upstream:expect_reset()
    assert.is_true(sys.now() - began >= 2)
  end)

  case("the tenth connection is three seconds late", function(t)
    local p, server = start(t, { ["< 0.05"] = "< 0" })
    for _ = 1, 9 do t:pair(p, server) end
    local began = sys.now()
    t:pair(p, server)
    assert.is_true(sys.now() - began >= 3)
  end)
end)

describe("proxy-chain.lua:", function()
  local function start(t, proxies, mail, relay)
    return serve(t, "proxy-chain", { [":2525"] = "127.0.0.1:0", ["u:p@10.0.0.1:1080"] = "u:p@" .. proxies[1],
      ["10.0.0.2:1080"] = proxies[2], ["10.0.0.3:3128"] = proxies[3], ["mail.example:25"] = mail,
      ["relay.internal:25"] = relay })
  end

  peers.case_with("microsocks", "the mail server is reached through the proxy that works", function(t)
    local port = peers.free_port(t)
    local good, dead, mail = "127.0.0.1:" .. port, t:refusing(), t:listen()
    local child = t:spawn { "microsocks", "-i", "127.0.0.1", "-p", tostring(port), "-u", "u", "-P", "p" }
    peers.wait_for_listener(t, good, child)
    local p = start(t, { good, dead.address, t:refusing().address }, mail.address, dead.address)
    local client, upstream = t:expect_echo(p, mail)
    client:finish()
    upstream:finish()
    p:expect_end { listener = "chain", via = "socks5://" .. good, reason = "eof" }
  end)

  case("without a proxy the relay is reached, and learns the client's address", function(t)
    local dead, relay = t:refusing().address, t:listen()
    local p = start(t, { dead, t:refusing().address, t:refusing().address }, dead, relay.address)
    local client, upstream = t:pair(p, relay)
    client:send "EHLO a\r\n"
    assert.equal("\r\n\r\n\0\r\nQUIT\n", upstream:read(28):sub(1, 12))
    upstream:expect "EHLO a\r\n"
  end)
end)

describe("socks-server.lua:", function()
  peers.case_with("curl", "curl goes through it by either protocol, with its login only", function(t)
    local server = t:listen()
    local p = serve(t, "socks-server", {
      [":1080"] = "127.0.0.1:0", ["10.20.0.0/16:22"] = "127.0.0.0/8:" .. server.port,
    })
    for _, scheme in ipairs { "socks5h", "http" } do
      local curl = t:spawn { "curl", "-sS", "-p", "--max-time", "20", "--noproxy", "", "-x",
        scheme .. "://alice:wonderland@" .. p.address, ("http://localhost:%d/"):format(server.port) }
      local upstream = t:accept(server)
      upstream:expect "GET / HTTP/1.1\r\n"
      upstream:send("HTTP/1.0 200 OK\r\n\r\nhello"):finish()
      assert.equal(0, curl:wait(20), curl.err)
      assert.equal("hello", curl.out)
      curl = t:spawn { "curl", "-sS", "-p", "--max-time", "20", "--noproxy", "", "-x",
        scheme .. "://alice:wrong@" .. p.address, ("http://localhost:%d/"):format(server.port) }
      assert.is_true(curl:wait(20) ~= 0)
    end
    assert.is_nil(server:try_accept(0))
  end)
end)
