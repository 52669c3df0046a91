-- TLS with upstreams: whom penstock trusts, what it shows, and what a failure says.
local support = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"

local case = support.case

-- penstock that dials TLS to a listener, with these options; TARGET is localhost.
local function start(t, args, target)
  local server = t:listen()
  local line = {}
  for _, word in ipairs(args) do line[#line + 1] = word end
  line[#line + 1], line[#line + 2] = "127.0.0.1:0", (target or "localhost:%d"):format(server.port)
  return t:penstock(line), server
end

-- A client, and the TLS server that it reaches.
local function pair(t, p, server, options)
  local client = t:connect(p)
  return client, tls.server(t:accept(server), options):handshake()
end

-- How it ends when the server shows this certificate.
local function expect_refusal(t, p, server, options, text, n)
  local client, upstream = t:connect(p), tls.server(t:accept(server), options)
  upstream:try_handshake()
  upstream:receive()
  client:expect_reset()
  p:expect_end({ reason = "tls", side = "upstream" }, n)
  p:log("cannot connect to [^\n]*TLS failed: " .. text)
end

describe("TLS with upstreams", function()
  case("checks chain and name, asks for the name, and carries bytes", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert = tls.certificate(t:folder(), "db.lab", { ca = ca })
    local p, server = start(t, { "--tls", "--tls-ca", ca.cert })
    local client, upstream = pair(t, p, server, cert)
    assert.equal("localhost", upstream:sni())
    assert.is_nil(upstream.offered)
    client:send("ping"):finish()
    upstream:expect("ping"):expect_end "close_notify"
    upstream:send("pong"):goodbye(true)
    client:expect("pong"):expect_eof()
    p:expect_end { reason = "eof", up = 4, down = 4 }
  end)

  case("asks for no name when there is none, and compares addresses", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert = tls.certificate(t:folder(), "db.lab", { ca = ca })
    local p, server = start(t, { "--tls", "--tls-ca", ca.cert }, "127.0.0.1:%d")
    local _, upstream = pair(t, p, server, cert)
    assert.is_nil(upstream:sni())
    local other = tls.certificate(t:folder(), "other", { ca = ca, alt = "DNS:localhost,IP:127.0.0.2" })
    expect_refusal(t, p, server, other, "certificate for another name", 1)
  end)

  case("refuses certificates of others, for other names, and old ones", function(t)
    local ca, other = tls.ca(t:folder(), "ca"), tls.ca(t:folder(), "other")
    local p, server = start(t, { "--tls", "--tls-ca", ca.cert })
    local bad = {
      { tls.certificate(t:folder(), "mallory", { ca = other }), "untrusted certificate %(no trusted authority" },
      { tls.certificate(t:folder(), "self"), "untrusted certificate %(no trusted authority" },
      { tls.certificate(t:folder(), "name", { ca = ca, alt = "DNS:evil.lab" }), "certificate for another name" },
      { tls.certificate(t:folder(), "cn", { ca = ca, alt = "DNS:x", suffix = "-cn" }), "certificate for another name" },
      { tls.expired(t:folder(), "gone"), "untrusted certificate %(no trusted authority" },
    }
    for i, one in ipairs(bad) do expect_refusal(t, p, server, one[1], one[2], i) end
    p, server = start(t, { "--tls" }) -- the system's authorities know none of them
    expect_refusal(t, p, server, tls.certificate(t:folder(), "db.lab", { ca = ca }), "untrusted certificate", 1)
  end)

  case("takes the name it is told", function(t)
    local cert = tls.certificate(t:folder(), "db.lab", { alt = "DNS:db.lab" })
    local p, server = start(t, { "--tls", "--tls-ca", cert.cert, "--tls-name", "db.lab" })
    local _, upstream = pair(t, p, server, cert)
    assert.equal("db.lab", upstream:sni())
  end)

  case("takes what is pinned, and nothing else", function(t)
    local cert, other = tls.certificate(t:folder(), "a"), tls.certificate(t:folder(), "b")
    local pipe = io.popen("openssl x509 -fingerprint -sha256 -noout -in " .. cert.cert)
    local pin = pipe:read "*l":match "=(.+)$"
    pipe:close()
    local p, server = start(t, { "--tls", "--tls-pin", ("00"):rep(32) .. "," .. pin })
    local client, upstream = pair(t, p, server, cert)
    client:send "x"
    upstream:expect "x"
    expect_refusal(t, p, server, other, "certificate is not pinned", 1)
  end)

  case("takes any certificate when it is told to, and says so loudly", function(t)
    local p, server = start(t, { "--tls", "--tls-insecure" })
    p:log "warn  the certificate of localhost:%d+ is NOT checked"
    local client, upstream = pair(t, p, server, tls.certificate(t:folder(), "any", { alt = "DNS:x" }))
    client:send "x"
    upstream:expect "x"
  end)

  case("shows a certificate to upstreams that ask for one", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert, ours = tls.certificate(t:folder(), "db", { ca = ca }), tls.certificate(t:folder(), "us", { ca = ca })
    local p, server = start(t, { "--tls", "--tls-ca", ca.cert, "--tls-dial-cert", ours.cert, "--tls-dial-key",
      ours.key })
    local _, upstream = pair(t, p, server, { cert = cert.cert, key = cert.key, ca = ca.cert, require = true })
    assert.equal("/CN=us", upstream:subject())
  end)

  case("offers protocols in their order, takes the one that the upstream chooses, and goes on without one", function(t)
    local cert = tls.certificate(t:folder(), "db")
    local script = t:file("p.lua", [[return { connected = function(conn)
      conn:tag("alpn", tostring(conn.upstream.tls.alpn)) end }]])
    local p, server = start(t, { "-p", script, "--tls", "--tls-ca", cert.cert, "--tls-dial-alpn", "one,two,three" })
    for i, chosen in ipairs { "two", "one", "nil" } do
      local options = { cert = cert.cert, key = cert.key, alpn = chosen ~= "nil" and { "none", chosen } or nil }
      local client, upstream = pair(t, p, server, options)
      assert.same({ "one", "two", "three" }, upstream.offered)
      assert.equal(chosen, tostring(upstream:alpn()))
      client:close()
      upstream.socket:close()
      p:expect_end({ alpn = chosen }, i)
    end
    expect_refusal(t, p, server, { cert = cert.cert, key = cert.key, alpn = { "none" } },
      "[^\n]*no application protocol", 4)
  end)

  case("resumes sessions", function(t)
    local cert = tls.certificate(t:folder(), "db")
    local far_server = t:listen()
    local far = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", far_server.address }
    local script = t:file("p.lua", [[return { connected = function(conn)
      conn:tag("resumed", conn.upstream.tls.resumed)
      conn:tag("verified", conn.upstream.tls.verified) end }]])
    local p = t:penstock { "-p", script, "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", far.address }
    for i, resumed in ipairs { "false", "true", "true" } do
      local client, upstream = t:pair(p, far_server)
      upstream:send "x"
      client:expect("x"):finish()
      upstream:finish()
      client:expect_eof()
      p:expect_end({ reason = "eof", resumed = resumed, verified = "true" }, i)
    end
  end)

  case("takes an end of the upstream without close_notify for an abort", function(t)
    local cert = tls.certificate(t:folder(), "db")
    local p, server = start(t, { "--tls", "--tls-ca", cert.cert })
    local client, upstream = pair(t, p, server, cert)
    upstream:send "half"
    client:expect "half"
    upstream.socket:finish()
    client:expect_reset()
    p:expect_end { reason = "truncated", side = "upstream", down = 4 }
  end)

  case("goes on to the next target when a handshake fails, and tells why when none is left", function(t)
    local cert, other = tls.certificate(t:folder(), "db"), tls.certificate(t:folder(), "other")
    local one, two = t:listen(), t:listen()
    local p = t:penstock { "--tls-ca", cert.cert, "127.0.0.1:0",
      ("tls://%s,tls://%s"):format(one.address, two.address) }
    local client, first = t:connect(p), tls.server(t:accept(one), other)
    first:try_handshake()
    local second = tls.server(t:accept(two), cert):handshake()
    client:send "x"
    second:expect "x"
    client:close()
    second.socket:close()
    client, first = t:connect(p), t:accept(one)
    first:send "SSH-2.0\r\n"
    first:close()
    second = t:accept(two)
    second:reset()
    client:expect_reset()
    p:log("cannot connect to " .. two.address)
  end)

  case("gives a silent upstream no longer than the time to connect", function(t)
    local p, server = start(t, { "--tls", "--connect-timeout", "200ms" })
    local client = t:connect(p)
    t:accept(server)
    client:expect_reset()
    p:expect_end { reason = "timeout", detail = "connect" }
  end)

  case("mixes plain targets and those of tls://", function(t)
    local cert, plain = tls.certificate(t:folder(), "db"), t:listen()
    local dead = t:refusing()
    local p = t:penstock { "--tls-ca", cert.cert, "127.0.0.1:0",
      ("tls://%s,%s"):format(dead.address, plain.address) }
    local client, upstream = t:pair(p, plain)
    client:send "GET"
    upstream:expect "GET"
  end)

  case("sends the PROXY header before TLS", function(t)
    local cert = tls.certificate(t:folder(), "db")
    local p, server = start(t, { "--tls", "--tls-ca", cert.cert, "--send-proxy", "v1" })
    local client, socket = t:connect(p), t:accept(server)
    local header = ("PROXY TCP4 127.0.0.1 127.0.0.1 %s %d\r\n"):format(client.own:match ":(%d+)$", p.port)
    socket:expect(header)
    local upstream = tls.server(socket, cert):handshake()
    client:send "x"
    upstream:expect "x"
  end)

  case("speaks TLS with proxies on the way, and through them with the upstream", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local cert = tls.certificate(t:folder(), "any", { ca = ca })
    local server, hop = t:listen(), t:listen()
    local p = t:penstock { "--tls", "--tls-ca", ca.cert, "--via", ("https://u:secret@localhost:%d"):format(hop.port),
      "127.0.0.1:0", ("localhost:%d"):format(server.port) }
    local client, proxy = t:connect(p), tls.server(t:accept(hop), cert):handshake()
    local request = ""
    while not request:find("\r\n\r\n", 1, true) do request = request .. assert(proxy:receive()) end
    assert.matches("^CONNECT localhost:" .. server.port .. " HTTP/1.1\r\n", request)
    assert.matches("Proxy%-Authorization: Basic", request)
    proxy:send "HTTP/1.1 200 OK\r\n\r\n"
    -- TLS in TLS: what the inner server says goes through the outer one.
    local inner = tls.server({
      send = function(_, bytes) proxy:send(bytes) end,
      offer = function(_, bytes) proxy:send(bytes) end,
      receive = function() return proxy:receive() end,
      finish = function() end,
    }, cert):handshake()
    assert.equal("localhost", inner:sni())
    client:send(support.bulk.text(0, 100000))
    inner:expect(support.bulk.text(0, 100000))
    inner:send(support.bulk.text(1000, 100000)):goodbye()
    client:expect(support.bulk.text(1000, 100000)):expect_eof()
  end)

  case("names the proxy whose TLS failed", function(t)
    local hop = t:listen()
    local p = t:penstock { "--via", ("https://localhost:%d"):format(hop.port), "127.0.0.1:0", "db.lab:5432" }
    local client, proxy = t:connect(p), tls.server(t:accept(hop), tls.certificate(t:folder(), "self"))
    proxy:try_handshake()
    client:expect_reset()
    p:expect_end { reason = "tls", detail = "hop" }
    p:log "https localhost:%d+: TLS failed: untrusted certificate"
  end)
end)
