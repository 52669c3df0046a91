-- TLS with clients: what is agreed on, what ends how, and what hostile clients get.
local support = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"

local bulk, case = support.bulk, support.case

-- penstock that ends TLS before a plain upstream. Options: args, certificate (options), version.
local function start(t, args, options)
  local server = t:listen()
  local cert = tls.certificate(t:folder(), "a.lab", options)
  local line = { "--tls-cert", cert.cert, "--tls-key", cert.key }
  for _, word in ipairs(args or {}) do line[#line + 1] = word end
  line[#line + 1], line[#line + 2] = "127.0.0.1:0", server.address
  return t:penstock(line), server, cert
end

local function connect(t, p, options)
  return tls.client(t:connect(p), options):handshake()
end

-- A client behind its handshake, and the upstream it has reached.
local function pair(t, p, server, options)
  local client = connect(t, p, options)
  return client, t:accept(server)
end

-- The bytes of a ClientHello.
local function client_hello(t, p, options)
  local client = tls.client(t:connect(p), options)
  client:step()
  return client, client:output()
end

local function each_version(name, run)
  for _, version in ipairs { "1.2", "1.3" } do
    case(("%s (TLS %s)"):format(name, version), function(t) run(t, version) end)
  end
end

describe("TLS with clients", function()
  each_version("carries bytes both ways and ends as both sides end", function(t, version)
    local p, server = start(t)
    local client, upstream = pair(t, p, server, { version = version, name = "a.lab" })
    assert.equal("TLSv" .. version, client:version())
    client:send "ping"
    upstream:expect("ping"):send "pong"
    client:expect "pong"
    client:goodbye()
    upstream:expect_eof()
    upstream:send("late"):finish()
    client:expect("late"):expect_end "close_notify"
    client.socket:expect_eof()
    p:expect_end { reason = "eof", up = 4, down = 8 }
  end)

  each_version("lets a client send on after the upstream has ended", function(t, version)
    local p, server = start(t)
    local client, upstream = pair(t, p, server, { version = version })
    upstream:finish()
    client:expect_end "close_notify"
    client:send "still here"
    upstream:expect "still here"
    client:goodbye(true)
    upstream:expect_eof()
    p:expect_end { reason = "eof", side = "upstream" }
  end)

  case("lets a server speak first", function(t)
    local p, server = start(t)
    local client, upstream = pair(t, p, server)
    upstream:send "220 ready\r\n"
    client:expect "220 ready\r\n"
  end)

  case("takes a ClientHello in any split", function(t)
    local p, server = start(t)
    local _, hello = client_hello(t, p)
    for at = 1, #hello - 1 do
      local client, bytes = client_hello(t, p)
      client.socket:send(bytes:sub(1, at))
      client.socket:wait_delivered()
      client.socket:send(bytes:sub(at + 1))
      client:handshake()
      local upstream = t:accept(server)
      client:send "x"
      upstream:expect "x"
      client:close()
      upstream:close()
    end
  end)

  case("takes every flight byte by byte", function(t)
    local p, server = start(t)
    for _, version in ipairs { "1.2", "1.3" } do
      local client = tls.client(t:connect(p), { version = version })
      local done = client:step()
      while not done do
        for byte in client:output():gmatch "." do client.socket:send(byte) end
        assert(client:wait_input())
        done = client:step()
      end
      for byte in client:output():gmatch "." do client.socket:send(byte) end
      client:send "y"
      t:accept(server):expect "y"
    end
  end)

  case("takes an end without close_notify for an abort, never for an end", function(t)
    local p, server = start(t)
    for i, version in ipairs { "1.2", "1.3" } do
      local client, upstream = pair(t, p, server, { version = version })
      client:send "half of it"
      upstream:expect "half of it"
      client.socket:finish()
      upstream:expect_reset()
      p:expect_end({ reason = "truncated", side = "client" }, i)
    end
  end)

  case("takes a reset of the client for a reset", function(t)
    local p, server = start(t)
    local client, upstream = pair(t, p, server)
    client:send "x"
    upstream:expect "x"
    client:reset()
    upstream:expect_reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("tells the client of an upstream that was aborted by an abort, without close_notify", function(t)
    local p, server = start(t)
    local client, upstream = pair(t, p, server)
    upstream:send "half"
    client:expect "half"
    upstream:reset()
    client:expect_end "ECONNRESET"
    p:expect_end { reason = "reset", side = "upstream" }
  end)

  case("turns away what is no TLS, before there is an upstream", function(t)
    local p, server = start(t)
    local wrong = {
      { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "plain HTTP on a TLS port" },
      { "SSH-2.0-x\r\n" .. ("x"):rep(100), "wrong version number" },
      { ("\0"):rep(100), "wrong version number" },
      { "\22\3\1\255\255" .. ("x"):rep(100), nil }, -- longer than a record may be
      { "\22\3\1\0\4\1\0\0\0", nil },
      { "\23\3\3\0\5hello", nil },
      { "\21\3\3\0\2\2\40", nil },
    }
    for i, one in ipairs(wrong) do
      local client = t:connect(p)
      client:offer(one[1])
      client:read_all() -- an alert, perhaps, and the end
      local line = p:expect_end({ reason = "tls", side = "client" }, i)
      if one[2] then assert.equal(one[2], line.detail) end
    end
    assert.is_nil(server:try_accept(0))
  end)

  case("tells a client that fails by an alert", function(t)
    local p = start(t, { "--tls-min", "1.3" })
    local good, why = tls.client(t:connect(p), { version = "1.2" }):try_handshake()
    assert.is_nil(good)
    assert.matches("alert protocol version", why)
    p:expect_end { reason = "tls", side = "client", detail = "unsupported protocol" }
  end)

  case("is not upset by clients that leave at any step of the handshake", function(t)
    local p, server = start(t)
    local n = 0
    for _, version in ipairs { "1.2", "1.3" } do
      for _, how in ipairs { "close", "reset" } do
        for steps = 0, 2 do
          local client = tls.client(t:connect(p), { version = version })
          for _ = 1, steps do
            client:step()
            client:flush()
            if steps < 2 then break end
            client:wait_input()
          end
          client[how](client)
          n = n + 1
          local line = p:access(n)
          assert.is_truthy(({ tls = true, reset = true, truncated = true })[line.reason], line.reason)
        end
      end
    end
    repeat until not server:try_accept(0) -- those that got that far
    local client, upstream = pair(t, p, server)
    client:send "fine"
    upstream:expect "fine"
  end)

  case("answers KeyUpdate in the midst of bytes", function(t)
    local p, server = start(t)
    local client, upstream = pair(t, p, server, { version = "1.3" })
    for i = 1, 20 do
      client:key_update(i % 2 == 0)
      client:send "a"
      upstream:expect("a"):send "b"
      client:expect "b"
    end
  end)

  case("does not renegotiate", function(t)
    local p, server = start(t)
    local client, upstream = pair(t, p, server, { version = "1.2" })
    client:send "before"
    upstream:expect "before"
    client:renegotiate()
    local part, why = client:receive()
    assert.is_nil(part)
    assert.matches("no renegotiation", why)
  end)

  case("gives up a handshake at its deadline, whatever trickles in", function(t)
    local p, server = start(t, { "--handshake-timeout", "400ms" })
    local client, hello = client_hello(t, p)
    for byte in hello:gmatch "." do
      if p:access_lines()[1] then break end
      client.socket:offer(byte)
      client.socket:ready("r", 0.02)
    end
    p:expect_end { reason = "timeout", detail = "tls" }
    assert.is_nil(server:try_accept(0))
  end)

  case("serves others while a thousand handshakes stall", function(t)
    local p, server = start(t, { "--handshake-timeout", "1h" })
    local _, hello = client_hello(t, p)
    for i = 1, 1000 do t:connect(p):send(hello:sub(1, i % #hello)) end
    local client, upstream = pair(t, p, server)
    client:send "x"
    upstream:expect "x"
  end)

  case("lets no more handshakes run at once than it is told", function(t)
    local p, server = start(t, { "--max-handshakes", "2" })
    local one, hello = client_hello(t, p)
    local two = t:connect(p)
    local busy = t:connect(p)
    busy:expect_reset()
    p:expect_end { reason = "limit", detail = "handshakes" }
    one.socket:send(hello)
    one:handshake()
    t:accept(server) -- so penstock, too, is behind it
    local client, upstream = pair(t, p, server)
    client:close()
    upstream:close()
    two:close()
  end)

  case("shows the certificate of the name, exact before wild before what certificates say", function(t)
    local folder = t:folder()
    local exact, wild = tls.certificate(folder, "x.b.lab"), tls.certificate(folder, "wild", { alt = "DNS:*.b.lab" })
    local inside = tls.certificate(folder, "c.lab", { alt = "DNS:c.lab,DNS:*.d.lab" })
    local p = start(t, { "--tls-cert", inside.cert, "--tls-key", inside.key,
      "--tls-sni", ("x.b.lab=%s,%s"):format(exact.cert, exact.key), "--tls-sni",
      ("*.b.lab=%s,%s"):format(wild.cert, wild.key) })
    local want = {
      ["a.lab"] = "a.lab", ["x.b.lab"] = "x.b.lab", ["X.B.Lab"] = "x.b.lab", ["y.b.lab"] = "wild", ["b.lab"] = "a.lab",
      ["z.y.b.lab"] = "a.lab", ["c.lab"] = "c.lab", ["q.d.lab"] = "c.lab", ["other.test"] = "a.lab",
    }
    for name, subject in pairs(want) do
      assert.same({ name, "/CN=" .. subject }, { name, connect(t, p, { name = name }):subject() })
    end
    assert.equal("/CN=a.lab", connect(t, p):subject())
  end)

  case("chooses the protocol by its own order, and refuses who offers none of them", function(t)
    local p = start(t, { "--tls-alpn", "h2,http/1.1" })
    assert.equal("h2", connect(t, p, { alpn = { "http/1.1", "h2" } }):alpn())
    assert.equal("http/1.1", connect(t, p, { alpn = { "spdy", "http/1.1" } }):alpn())
    assert.is_nil(connect(t, p):alpn())
    local good, why = tls.client(t:connect(p), { alpn = { "smtp" } }):try_handshake()
    assert.is_nil(good)
    assert.matches("no application protocol", why)
  end)

  case("asks for clients' certificates when it is told to, and takes those of its CA only", function(t)
    local ca, other = tls.ca(t:folder(), "ca"), tls.ca(t:folder(), "other")
    local alice = tls.certificate(t:folder(), "alice", { ca = ca })
    local mallory = tls.certificate(t:folder(), "mallory", { ca = other })
    -- A refusal comes behind the handshake of TLS 1.3: with the first read.
    local function outcome(p, server, cert)
      local options = { version = "1.2", cert = cert and cert.cert, key = cert and cert.key }
      if not tls.client(t:connect(p), options):try_handshake() then return "refused" end
      t:accept(server)
      return "taken"
    end
    local p, server = start(t, { "--tls-client-ca", ca.cert })
    assert.same({ "taken", "refused", "refused" },
      { outcome(p, server, alice), outcome(p, server, mallory), outcome(p, server) })
    local client = tls.client(t:connect(p), { cert = mallory.cert, key = mallory.key }):handshake()
    local _, why = client:receive()
    assert.matches("alert unknown ca", why)
    assert.is_nil(server:try_accept(0))
    p, server = start(t, { "--tls-client-ca", ca.cert, "--tls-client-cert", "request" }, { suffix = "2" })
    assert.same({ "taken", "refused", "taken" },
      { outcome(p, server, alice), outcome(p, server, mallory), outcome(p, server) })
  end)

  case("resumes sessions at any worker and after a reload, but not where more is asked", function(t)
    local ca = tls.ca(t:folder(), "ca")
    local server, cert = t:listen(), tls.certificate(t:folder(), "a.lab")
    local p = t:penstock { "--workers", "4", "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0",
      server.address }
    for _, version in ipairs { "1.2", "1.3" } do
      local first = connect(t, p, { version = version })
      t:accept(server):send "x"
      first:expect "x" -- and with it the ticket
      assert.is_false(first:is_resumed())
      local session = first:session()
      for i = 1, 12 do
        if i == 6 then
          local from = #p.err
          p:signal "HUP"
          p:log("version %d+ is in force", from)
        end
        local again = connect(t, p, { version = version, session = session })
        assert.is_true(again:is_resumed())
        t:accept(server):send "y"
        again:expect "y"
      end
    end
    local strict = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--tls-client-ca", ca.cert,
      "127.0.0.1:0", server.address }
    local session = connect(t, p, { version = "1.2" }):session()
    assert.is_nil((tls.client(t:connect(strict), { version = "1.2", session = session }):try_handshake()))
  end)

  case("takes new certificates on HUP, all or nothing", function(t)
    local p, server, cert = start(t)
    local old, on_old = pair(t, p, server)
    local fresh = tls.certificate(t:folder(), "fresh.lab")
    support.sys.write_file(cert.cert, support.sys.read_file(fresh.cert))
    local from = #p.err
    t:expect_error "is not that of the certificate"
    p:signal "HUP"
    p:log('version 1 stays in force: .*the key in ".*" is not that of the certificate', from)
    assert.equal("/CN=a.lab", connect(t, p):subject())
    support.sys.write_file(cert.key, support.sys.read_file(fresh.key))
    from = #p.err
    p:signal "HUP"
    p:log("version 2 is in force", from)
    assert.equal("/CN=fresh.lab", connect(t, p):subject())
    old:send "old ones live on"
    on_old:expect "old ones live on"
  end)

  -- Plain on both outer sides: every byte is compared, and each penstock has TLS on one of its sides.
  local function tunnel(t, version)
    local server = t:listen()
    local cert = tls.certificate(t:folder(), "a.lab")
    local far = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--tls-min", version, "127.0.0.1:0",
      server.address }
    local near = t:penstock { "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", far.address }
    return server, near, far
  end

  each_version("carries much in both directions at once, byte for byte, in chunks of any size", function(t, version)
    local server, near, far = tunnel(t, version)
    local client, upstream = t:pair(near, server)
    local random = bulk.random(7)
    local function size() return random(40000) end
    bulk.run {
      { from = client, to = upstream, bytes = 20e6, finish = true, chunk = size, read = size },
      { from = upstream, to = client, bytes = 20e6, finish = true, chunk = size, read = size },
    }
    near:expect_end { reason = "eof", up = 20e6, down = 20e6 }
    far:expect_end { reason = "eof", up = 20e6, down = 20e6 }
  end)

  case("ends behind the last byte when its buffers are full", function(t)
    local server, near = tunnel(t, "1.3")
    local client, upstream = t:pair(near, server)
    local down = { from = upstream, to = client, offset = 0 }
    down.bytes = bulk.fill(upstream, 70e6)
    down.put = down.bytes
    upstream:finish()
    client:finish()
    upstream:expect_eof()
    bulk.run { down }
    client:expect_eof()
    near:expect_end { reason = "eof" }
  end)

  case("delivers all that came before an abort, then aborts", function(t)
    local server, near = tunnel(t, "1.3")
    local client, upstream = t:pair(near, server)
    upstream:send(bulk.text(0, 300000))
    client:expect(bulk.text(0, 300000))
    upstream:send "last"
    client:expect "last"
    upstream:reset()
    client:expect_reset()
    near:expect_end { reason = "reset", side = "upstream" }
  end)

  case("holds little for a client that does not read", function(t)
    local server, near = tunnel(t, "1.3")
    local client, upstream = t:pair(near, server, { rcvbuf = 8192 })
    local n = bulk.fill(upstream, 30e6)
    bulk.run { { from = upstream, to = client, bytes = n, put = n, offset = 0 } }
  end)

  case("says what is wrong with certificates and options, and starts nothing", function(t)
    local folder = t:folder()
    local a, b = tls.certificate(folder, "a.lab"), tls.certificate(folder, "b.lab")
    local gone, soon = tls.expired(folder, "gone"), tls.certificate(folder, "soon", { days = 10 })
    local text = t:file("text.pem", "no certificate\n")
    tls.run(("openssl ec -aes128 -passout pass:x -in %s -out %s/locked.key"):format(a.key, folder))
    local wrong = {
      { { "--tls-cert", folder .. "/none.pem" }, 'cannot read ".*/none.pem": No such file or directory' },
      { { "--tls-cert", folder }, "Is a directory" },
      { { "--tls-cert", text }, "has no certificate, or a broken one" },
      { { "--tls-cert", a.cert }, "has no private key in PEM" },
      { { "--tls-cert", a.cert, "--tls-key", b.key }, "is not that of the certificate" },
      { { "--tls-cert", a.cert, "--tls-key", folder .. "/locked.key" }, "has a pass phrase" },
      { { "--tls-cert", gone.cert, "--tls-key", gone.key }, "has expired" },
      { { "--tls-key", a.key }, "is not the key of the %-%-tls%-cert before it" },
      { { "--tls-alpn", "h2" }, "there is no certificate: %-%-tls%-cert FILE goes with %-%-tls%-alpn" },
      { { "--tls-sni", "a.lab=x.pem" }, "give %-%-tls%-cert before %-%-tls%-sni" },
      { { "--tls-cert", a.cert, "--tls-key", a.key, "--tls-sni", "a.*.lab=" .. b.cert .. "," .. b.key },
        '"a.*.lab" is no server name' },
      { { "--tls-cert", a.cert, "--tls-key", a.key, "--tls-client-ca", text }, "has no certificates in PEM" },
      { { "--tls-cert", a.cert, "--tls-key", a.key, "--tls-client-cert", "require" }, "there is no CA" },
      { { "--tls-ca", a.cert }, "none is reached by TLS: add %-%-tls" },
      { { "--tls", "--tls-ca", text }, "has no trusted certificates" },
      { { "--tls", "--tls-pin", "ab" }, '"ab" is not a SHA%-256 fingerprint' },
      { { "--tls", "--tls-dial-key", a.key }, "without its certificate" },
    }
    t:expect_error "none is reached by TLS"
    for _, one in ipairs(wrong) do
      local args = {}
      for _, word in ipairs(one[1]) do args[#args + 1] = word end
      args[#args + 1], args[#args + 2] = "127.0.0.1:0", "127.0.0.1:1"
      local p = t:start(args)
      local status = p:wait()
      assert.same({ one[2], 2 }, { one[2], status })
      assert.matches(one[2], p.err)
      p.status = 0
    end
    local p = t:penstock { "--tls-cert", soon.cert, "--tls-key", soon.key, "127.0.0.1:0", "127.0.0.1:1" }
    p:log 'warn  the certificate in ".*soon.pem" expires in %d+ days'
    local dialling = t:penstock { "--tls-dial-cert", soon.cert, "--tls-dial-key", soon.key, "127.0.0.1:0",
      "tls://127.0.0.1:1" }
    dialling:log 'warn  the certificate in ".*soon.pem" expires in %d+ days'
  end)
end)
