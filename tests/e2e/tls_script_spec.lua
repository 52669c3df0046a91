-- TLS from Lua: configurations, the sni hook, conn.tls, starttls, sockets.
local support = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"

local case = support.case

-- Runs a configuration in which $NAME stands for what `values` has.
local function run(t, text, values)
  local config = t:file("c.lua", (text:gsub("%$(%w+)", values)))
  return t:penstock { "run", config }
end

-- A policy for the command line.
local function start(t, text, args, values)
  local line = { "-p", t:file("p.lua", (text:gsub("%$(%w+)", values or {}))) }
  for _, word in ipairs(args) do line[#line + 1] = word end
  return t:penstock(line)
end

describe("TLS in policies", function()
  case("is configured by ps.listen and told by conn.tls", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local a, b = tls.certificate(t:folder(), "a.lab"), tls.certificate(t:folder(), "b.lab")
    local alice = tls.certificate(t:folder(), "alice", { ca = ca, alt = "DNS:alice.lab,email:al@x.lab,IP:::1" })
    local p = run(t, [[
      local ps = require "penstock"
      ps.listen { bind = "127.0.0.1:0", tls = { cert = "$A", key = "$AK", client_ca = "$CA", client = "request",
        alpn = { "h2", "x" }, min = 1.2, sni = { ["b.lab"] = { cert = "$B", key = "$BK" } } },
        limits = { handshakes = 100 },
        policy = { serve = function(conn, client)
          local t = conn.tls
          local peer = t.peer and ("%s %s %s %s"):format(t.peer.subject, t.peer.issuer, table.concat(t.peer.names, ","),
            t.peer.fingerprint) or "-"
          client:write(("%s %s %s %s %s\n%s\n"):format(t.version, t.cipher, tostring(t.sni), tostring(t.alpn),
            tostring(t.verified), peer))
        end } }]], { A = a.cert, AK = a.key, B = b.cert, BK = b.key, CA = ca.cert })
    local client = tls.client(t:connect(p), { name = "b.lab", alpn = { "x" }, cert = alice.cert, key = alice.key })
    client:handshake()
    assert.equal("/CN=b.lab", client:subject())
    client:expect "TLSv1.3 TLS_AES_128_GCM_SHA256 b.lab x true\n"
    local line = ""
    while not line:find "\n" do line = line .. client:read(1) end
    assert.matches("^CN=alice CN=ca DNS:alice.lab,email:al@x.lab,IP:::1 %x+\n$", line)
    assert.equal(64, #line:match "(%x+)\n$")
    client = tls.client(t:connect(p)):handshake()
    client:expect "TLSv1.3 TLS_AES_128_GCM_SHA256 nil nil false\n-\n"
  end)

  case("lets the sni hook choose, wait and refuse", function(t)
    local a, b = tls.certificate(t:folder(), "a.lab"), tls.certificate(t:folder(), "b.lab")
    local server = t:listen()
    local p = start(t, [[
      local ps = require "penstock"
      local b = ps.certificate { cert = "$B", key = "$BK" }
      return { sni = function(conn, name)
        ps.sleep(0.01)
        conn:tag("asked", name)
        if name == "no.lab" then return false end
        if name == "odd.lab" then error "odd" end
        if name == "wrong.lab" then return "b.pem" end
        if name:find "^b" then return b end
      end }]], { "--tls-cert", a.cert, "--tls-key", a.key, "127.0.0.1:0", server.address },
      { B = b.cert, BK = b.key })
    for name, subject in pairs { ["a.lab"] = "/CN=a.lab", ["b.lab"] = "/CN=b.lab", ["B.LAB"] = "/CN=b.lab" } do
      assert.equal(subject, tls.client(t:connect(p), { name = name }):handshake():subject())
    end
    t:expect_error "script error in the sni hook"
    local good, why = tls.client(t:connect(p), { name = "no.lab" }):try_handshake()
    assert.is_nil(good)
    assert.matches("unrecognized name", why)
    p:expect_end { reason = "tls", detail = "refused by the sni hook", asked = "no.lab" }
    assert.is_nil((tls.client(t:connect(p), { name = "odd.lab" }):try_handshake()))
    p:expect_end({ reason = "script" }, 2)
    assert.is_nil((tls.client(t:connect(p), { name = "wrong.lab" }):try_handshake()))
    p:log 'the sni hook returned "b.pem"; it returns nothing for the configured certificate, one of ps.certificate'
    -- One that leaves while the hook waits.
    local client = tls.client(t:connect(p), { name = "a.lab" })
    client:step()
    client:flush()
    client:reset()
    p:access(4)
  end)

  case("keeps what hooks say before the handshake until it is over, and lets them look behind it only", function(t)
    local cert, server = tls.certificate(t:folder(), "a.lab"), t:listen()
    local p = start(t, [[return {
      accept = function(conn)
        conn:inject("down", "hello\n")
        conn:tag("look", select(2, pcall(conn.peek, conn, 1)):match "a TLS handshake stands before")
      end,
      sni = function(conn) conn:inject("down", "again\n") end,
      connect = function(conn) conn:tag("first", conn:peek(4)) end,
    }]], { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", server.address })
    local client = tls.client(t:connect(p)):handshake()
    client:expect "hello\nagain\n"
    client:send "ping"
    local upstream = t:accept(server)
    upstream:expect "ping"
    client:goodbye(true)
    upstream:finish()
    p:expect_end { reason = "eof", first = "ping", look = "a TLS handshake stands before" }
  end)

  case("answers and denies by TLS", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    local p = start(t, [[local ps = require "penstock"
      return { connect = function(conn)
        if conn.tls.sni == "no.lab" then return ps.deny { reason = "no" } end
        return ps.reply(("bye "):rep(50000))
      end }]], { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", "-" })
    local client = tls.client(t:connect(p)):handshake()
    client:expect(("bye "):rep(50000)):expect_end "close_notify"
    client:goodbye(true)
    p:expect_end { reason = "closed", detail = "reply" }
    client = tls.client(t:connect(p), { name = "no.lab" }):handshake()
    client:expect_end "close_notify"
    p:expect_end({ reason = "denied", detail = "no" }, 2)
  end)

  case("reaches upstreams by TLS as destinations say", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert, us = tls.certificate(t:folder(), "db", { ca = ca }), tls.certificate(t:folder(), "us", { ca = ca })
    local server = t:listen()
    local p = start(t, [[
      local ps = require "penstock"
      return { connect = function(conn)
          return { "$TO", tls = { ca = "$CA", name = "localhost", cert = "$US", key = "$USK", alpn = { "a", "b" } } }
        end,
        connected = function(conn)
          local t = conn.upstream.tls
          conn:tag("tls", t.version .. "/" .. t.peer.subject .. "/" .. t.peer.names[1] .. "/" .. t.alpn)
        end }]], { "127.0.0.1:0", "-" }, { TO = server.address, CA = ca.cert, US = us.cert, USK = us.key })
    for _ = 1, 3 do
      local client = t:connect(p)
      local upstream = tls.server(t:accept(server),
        { cert = cert.cert, key = cert.key, ca = ca.cert, require = true, alpn = { "b" } }):handshake()
      assert.same({ "localhost", "/CN=us", "b" }, { upstream:sni(), upstream:subject(), upstream:alpn() })
      assert.same({ "a", "b" }, upstream.offered)
      client:send "x"
      upstream:expect "x"
      client:close()
      upstream.socket:close()
    end
    assert.equal("TLSv1.3/CN=db/DNS:db/b", p:access().tls)
  end)

  case("speaks TLS with the proxies of a destination", function(t)
    local cert, hop = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = start(t, [[
      return { connect = function()
        return { "db.lab:5432", via = "https://localhost:$PORT", via_tls = { ca = "$C" } }
      end }]], { "127.0.0.1:0", "-" }, { C = cert.cert, PORT = tostring(hop.port) })
    local client, proxy = t:connect(p), tls.server(t:accept(hop), cert):handshake()
    local request = ""
    while not request:find("\r\n\r\n", 1, true) do request = request .. assert(proxy:receive()) end
    assert.matches("^CONNECT db.lab:5432 HTTP/1.1\r\n", request)
    proxy:send "HTTP/1.1 200 OK\r\n\r\nhello"
    client:expect "hello"
  end)

  case("speaks TLS with the proxies of a pool's server, also where the server is the proxy", function(t)
    local cert, hop = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = start(t, [[
      local ps = require "penstock"
      local db = ps.pool { name = "db", servers = {
        { "db.lab:5432", via = "https://localhost:$PORT", via_tls = { ca = "$C" } },
      } }
      local exits = ps.pool { name = "exits", servers = { { "https://localhost:$PORT", via_tls = { ca = "$C" } } } }
      return { connect = function(conn)
        if conn.id == 1 then return db end
        return { "db.lab:5432", via = exits:pick(), via_tls = { ca = "$C" } }
      end }]], { "127.0.0.1:0", "-" }, { C = cert.cert, PORT = tostring(hop.port) })
    for _ = 1, 2 do
      local client, proxy = t:connect(p), tls.server(t:accept(hop), cert):handshake()
      local request = ""
      while not request:find("\r\n\r\n", 1, true) do request = request .. assert(proxy:receive()) end
      assert.matches("^CONNECT db.lab:5432 HTTP/1.1\r\n", request)
      proxy:send "HTTP/1.1 200 OK\r\n\r\nhello"
      client:expect "hello"
    end
  end)

  case("begins TLS with either side in a handshake hook", function(t)
    local cert = tls.certificate(t:folder(), "localhost")
    local server = t:listen()
    local p = start(t, [[
      return { handshake = function(conn, client, upstream)
        client:write "220 hello\r\n"
        assert(client:line() == "STARTTLS")
        client:write "220 go\r\n"
        assert(client:flush())
        assert(conn:starttls("client", { cert = "$C", key = "$K" }))
        local first = client:line()
        upstream:write "STARTTLS\r\n"
        assert(upstream:line() == "220 go")
        assert(conn:starttls("upstream", { ca = "$C", alpn = { "x", "esmtp" } }))
        conn:tag("alpn", conn.upstream.tls.alpn)
        upstream:write(first, " over TLS\r\n")
        conn:tag("both", conn.tls.version .. "/" .. conn.upstream.tls.version)
      end }]], { "127.0.0.1:0", "localhost:" .. server.port }, { C = cert.cert, K = cert.key })
    local socket = t:connect(p)
    socket:expect("220 hello\r\n"):send "STARTTLS\r\n"
    socket:expect "220 go\r\n"
    local client = tls.client(socket):handshake()
    client:send "EHLO\r\n"
    local upstream_socket = t:accept(server)
    upstream_socket:expect("STARTTLS\r\n"):send "220 go\r\n"
    local upstream = tls.server(upstream_socket, { cert = cert.cert, key = cert.key, alpn = { "esmtp" } }):handshake()
    assert.same({ "x", "esmtp" }, upstream.offered)
    upstream:expect "EHLO over TLS\r\n"
    client:send(support.bulk.text(0, 200000))
    upstream:expect(support.bulk.text(0, 200000))
    upstream:send("bye"):goodbye(true)
    client:expect("bye"):expect_end "close_notify"
    client:goodbye(true)
    p:expect_end { reason = "eof", both = "TLSv1.3/TLSv1.3", alpn = "esmtp" }
  end)

  case("refuses bytes that were sent before TLS began", function(t)
    local cert, server = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = start(t, [[
      return { handshake = function(conn, client)
        assert(client:line() == "STARTTLS")
        local ok, why, detail = conn:starttls("client", { cert = "$C", key = "$K" })
        conn:tag("why", tostring(ok) .. " " .. why .. " " .. detail)
        conn:reset()
      end }]], { "127.0.0.1:0", server.address }, { C = cert.cert, K = cert.key })
    t:connect(p):send "STARTTLS\r\nINJECTED\r\n"
    p:expect_end { why = "nil denied the other side has sent more before TLS could begin" }
  end)

  case("tells a script why TLS in a handshake hook failed", function(t)
    local cert, server = tls.certificate(t:folder(), "other", { alt = "DNS:other" }), t:listen()
    local p = start(t, [[
      return { handshake = function(conn, client, upstream)
        local ok, why, detail = conn:starttls("upstream", { ca = "$C" })
        conn:tag("why", tostring(ok) .. " " .. why .. " " .. detail)
      end }]], { "127.0.0.1:0", "localhost:" .. server.port }, { C = cert.cert, K = cert.key })
    t:connect(p)
    tls.server(t:accept(server), cert):try_handshake()
    local line = p:expect_end { reason = "tls", side = "upstream" }
    assert.matches("^nil tls certificate for another name$", line.why)
  end)

  case("gives sockets of scripts TLS", function(t)
    local cert, server = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = start(t, [[
      local ps = require "penstock"
      return { serve = function(conn, client)
        local plain = ps.tcp.new()
        assert(plain:connect("127.0.0.1", $PORT))
        local ok, why, detail = plain:sslhandshake(nil, "localhost")
        client:write(tostring(ok), " ", why, " ", detail, "\n")
        plain:close()
        local s = assert(ps.tcp.connect({ "localhost:$PORT", tls = { ca = "$C", alpn = { "y", "z" } } }))
        s:write "direct\n"
        client:write(s:line(), "\n")
        s:close()
        s = ps.tcp.new()
        assert(s:connect("127.0.0.1", $PORT))
        assert(s:sslhandshake(nil, { ca = "$C", name = "localhost" }))
        s:send "later\n"
        client:write(s:receive(), "\n")
        s:close()
        s = ps.tcp.new()
        assert(s:connect("127.0.0.1", $PORT))
        assert(s:sslhandshake(nil, "wrong.lab", false))
        client:write "unchecked\n"
      end }]], { "127.0.0.1:0", "-" }, { C = cert.cert, PORT = tostring(server.port) })
    local client = t:connect(p)
    tls.server(t:accept(server), cert):try_handshake()
    local direct = tls.server(t:accept(server), cert):handshake()
    assert.same({ "y", "z" }, direct.offered)
    direct:expect("direct\n"):send "one\n"
    direct:expect_end "close_notify"
    local later = tls.server(t:accept(server), cert):handshake()
    later:expect("later\n"):send "two\n"
    tls.server(t:accept(server), cert):handshake()
    client:expect "nil tls untrusted certificate\n"
    client:expect "one\ntwo\nunchecked\n"
  end)

  -- What is wrong in a configuration, and what the error says.
  case("says what is wrong while the file loads", function(t)
    local a = tls.certificate(t:folder(), "a.lab")
    local function with_tls(text) return 'ps.listen { bind = "127.0.0.1:0", to = "a:1", tls = ' .. text .. " }" end
    local wrong = {
      [with_tls "true"] = "tls is a boolean, but must be a table",
      [with_tls "{}"] = "tls.cert is missing",
      [with_tls "{ cert = 5 }"] = "tls.cert is a text",
      [with_tls '{ cert = "$A", kee = 1 }'] = 'no option "kee", did you mean "key"',
      [with_tls '{ cert = "/none.pem" }'] = 'tls: cannot read "/none.pem"',
      [with_tls '{ cert = "$A", key = "$K", client = "maybe" }'] =
        '"maybe" is not known; write none, request or require',
      [with_tls '{ cert = "$A", key = "$K", sni = { ["a b"] = { cert = "$A", key = "$K" } } }'] =
        '"a b" is no server name',
      [with_tls '{ cert = "$A", key = "$K", sni = { ["a.lab"] = { key = "$K" } } }'] = "cert is missing",
      ['ps.certificate { cert = "/none.pem" }'] = 'ps.certificate: cannot read "/none.pem"',
      ['ps.certificate { certt = "x" }'] = 'did you mean "cert"',
      ['ps.listen { bind = "127.0.0.1:0", to = { "a:1", tls = { ca = "/none.pem" } } }'] =
        'option "tls" makes no sense: cannot read "/none.pem"',
    }
    for text, right in pairs(wrong) do
      text = text:gsub("%$(%w+)", { A = a.cert, K = a.key })
      local file = t:file("w.lua", 'local ps = require "penstock"\n' .. text)
      local p = t:start { "run", file }
      assert.same({ text, 2 }, { text, p:wait() })
      assert.is_truthy(p.err:find(right, 1, true), p.err)
      assert.is_truthy(p.err:find "w.lua:2", p.err)
      t:allow_error "."
      p.status = 0
    end
  end)
end)
