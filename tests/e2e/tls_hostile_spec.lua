-- TLS peers that mean no good, and honest ones at the wrong moment.
local ffi = require "ffi"
local support = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"

local case, sys = support.case, support.sys

ffi.cdef [[
int SSL_SESSION_set1_ticket_appdata(SSL_SESSION *ss, const void *data, size_t len);
typedef int (*made_fn)(SSL *s, void *arg);
typedef int (*read_fn)(SSL *, SSL_SESSION *, const unsigned char *, size_t, int, void *);
int SSL_CTX_set_session_ticket_cb(SSL_CTX *ctx, made_fn made, read_fn read, void *arg);
SSL_SESSION *SSL_get_session(const SSL *ssl);
]]
local ssl = ffi.load "ssl.so.3"

-- penstock that ends TLS before a plain upstream.
local function start(t, args, options)
  local server = t:listen()
  local cert = tls.certificate(t:folder(), "a.lab", options)
  local line = { "--tls-cert", cert.cert, "--tls-key", cert.key }
  for _, word in ipairs(args or {}) do line[#line + 1] = word end
  line[#line + 1], line[#line + 2] = "127.0.0.1:0", server.address
  return t:penstock(line), server, cert
end

describe("TLS", function()
  for _, rsa in ipairs { false, true } do
    case("shows the certificate of the name whatever kind its key is of, and the default's " ..
      (rsa and "RSA" or "ECDSA"), function(t)
      local other = tls.certificate(t:folder(), "other.lab", { rsa = not rsa })
      local p = start(t, { "--tls-sni", ("other.lab=%s,%s"):format(other.cert, other.key) }, { rsa = rsa })
      for _, version in ipairs { "1.2", "1.3" } do
        local client = tls.client(t:connect(p), { name = "other.lab", version = version }):handshake()
        assert.equal("/CN=other.lab", client:subject())
      end
    end)
  end

  case("is refused to a UNIX socket without a name, on the command line and from hooks", function(t)
    local p = t:start { "127.0.0.1:0", "tls://unix:/run/x" }
    assert.equal(2, p:wait())
    assert.matches("needs the name that its certificate is for", p.err)
    p.status = 0
    t:expect_error "needs the name that its certificate is for"
    p = t:penstock { "-p", t:file("p.lua", 'return { connect = function() return "tls://unix:/run/x" end }'),
      "127.0.0.1:0", "127.0.0.1:1" }
    t:connect(p):expect_reset()
    p:expect_end { reason = "script" }
  end)

  -- A TLS server whose session ticket comes in several records, of which some are kept back.
  local function split_ticket(t)
    local server, cert = t:listen(), tls.certificate(t:folder(), "localhost")
    local p = t:penstock { "--tls", "--tls-ca", cert.cert, "127.0.0.1:0", "localhost:" .. server.port }
    local client = t:connect(p)
    local upstream = tls.server(t:accept(server), { cert = cert.cert, key = cert.key, version = "1.3" })
    ssl.SSL_ctrl(upstream.ssl, 52, 512, nil) -- records of 512 bytes
    local big = ("x"):rep(3000)
    local made = ffi.cast("made_fn", function(s)
      ssl.SSL_SESSION_set1_ticket_appdata(ssl.SSL_get_session(s), big, #big)
      return 1
    end)
    local read = ffi.cast("read_fn", function() return 2 end)
    ssl.SSL_CTX_set_session_ticket_cb(upstream.ctx, made, read, nil)
    local done = upstream:step()
    while not done do
      upstream:flush()
      assert(upstream:wait_input())
      done = upstream:step()
    end
    local tickets = upstream:output()
    upstream.socket:send(tickets:sub(1, 600))
    upstream.socket:wait_delivered()
    upstream.keep = { made, read }
    return p, client, upstream, tickets:sub(601)
  end

  case("is not upset by a client that sends while half a session ticket has come", function(t)
    local _, client, upstream, rest = split_ticket(t)
    client:send "hello"
    client:wait_delivered()
    upstream.socket:send(rest)
    upstream:expect("hello"):send "back"
    client:expect "back"
  end)

  case("says goodbye behind such a ticket", function(t)
    local p, client, upstream, rest = split_ticket(t)
    client:finish()
    client:wait_delivered()
    upstream.socket:send(rest)
    upstream:expect_end "close_notify"
    upstream:send("late"):goodbye(true)
    client:expect("late"):expect_eof()
    p:expect_end { reason = "eof" }
  end)

  case("delivers what a script has flushed before it closes, however little the socket takes", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    local p = t:penstock { "--sndbuf", "32768", "-p", t:file("p.lua", [[
      return { serve = function(conn, client)
        for _ = 1, tonumber((client:line())) do
          client:write(("x"):rep(8000))
          client:flush()
        end
        conn:close()
      end }]]), "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", "-" }
    for n = 1, 30 do
      local client = tls.client(t:connect(p, { rcvbuf = 4096 })):handshake()
      client:send(n .. "\n")
      client.socket:ready("r")
      client:expect(("x"):rep(8000 * n)) -- a close_notify that the socket does not take is not waited for
    end
  end)

  case("that was given up half-way ends the connection", function(t)
    local cert, server = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = t:penstock { "--half-close-timeout", "0", "-p", t:file("p.lua", ([[
      local ps = require "penstock"
      return { handshake = function(conn)
        ps.race(function() return conn:starttls("upstream", { ca = %q, name = "localhost" }) end,
          function() ps.sleep(0.02) end)
      end }]]):format(cert.cert)), "127.0.0.1:0", server.address }
    for i = 1, 4 do
      local client, upstream = t:connect(p), t:accept(server)
      client:expect_reset()
      p:expect_end({ reason = "tls", side = "upstream", detail = "the handshake was given up" }, i)
      upstream:close()
    end
  end)

  case("of a flood of KeyUpdate messages ends that connection", function(t)
    local p, server = start(t)
    local bad = tls.client(t:connect(p), { version = "1.3" }):handshake()
    t:accept(server)
    for _ = 1, 20000 do
      ssl.SSL_key_update(bad.ssl, 0)
      ssl.SSL_do_handshake(bad.ssl)
    end
    local flood, at = bad:output(), 1
    while at <= #flood do
      local n = bad.socket:send_from(ffi.cast("const uint8_t *", flood) + at - 1, #flood - at + 1)
      if not n then break end
      at = at + n
      if n == 0 then bad.socket:ready("w", 0.1) end
      if p:access_lines()[1] then break end
    end
    p:expect_end { reason = "tls", side = "client", detail = "messages without end" }
  end)

  case("lets an expired certificate in by no old session", function(t)
    local folder = t:folder()
    local ca, cert = tls.ca(folder, "ca"), tls.certificate(folder, "a.lab")
    tls.run(([[cd %s && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout alice.key \
      -out alice.csr -subj /CN=alice && touch index.txt && echo 01 > serial && printf \
      '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\npolicy=p\ndefault_md=sha256\n[p]\n'\
'commonName=supplied\n' \
      > ca.cnf && openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in alice.csr -out alice.pem \
      -startdate $(date -u -d '-1 hour' +%%Y%%m%%d%%H%%M%%SZ) -enddate $(date -u -d '+15 sec' +%%Y%%m%%d%%H%%M%%SZ) \
      -notext]]):format(folder))
    local server = t:listen()
    local p = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "--tls-client-ca", ca.cert, "127.0.0.1:0",
      server.address }
    local sessions, alice = {}, { cert = folder .. "/alice.pem", key = folder .. "/alice.key" }
    local tries = 0
    -- A client of TLS 1.3 is done before the server has looked at its certificate.
    local function ended()
      for _, line in ipairs(p:access_lines()) do
        if line.id == tries then return true end
      end
    end
    local function try(version, session)
      tries = tries + 1
      local client = tls.client(t:connect(p), { version = version, session = session, cert = alice.cert,
        key = alice.key })
      if not client:try_handshake() then return "refused" end
      local upstream
      assert.is_truthy(sys.wait_until(function()
        upstream = server:try_accept(0)
        return upstream or ended()
      end))
      if not upstream then return "refused" end
      upstream:send "x"
      client:expect "x"
      sessions[version] = client:session()
      upstream:close()
      return client:is_resumed() and "resumed" or "whole"
    end
    for _, version in ipairs { "1.2", "1.3" } do
      assert.equal("whole", try(version))
      assert.equal("resumed", try(version, sessions[version]))
    end
    assert.is_truthy(sys.wait_until(function()
      return os.execute(("openssl x509 -checkend 0 -noout -in %s >/dev/null"):format(alice.cert)) ~= 0
    end))
    for _, version in ipairs { "1.2", "1.3" } do assert.equal("refused", try(version, sessions[version])) end
  end)

  case("resumes nothing under another certificate", function(t)
    local p, server, cert = start(t)
    local client = tls.client(t:connect(p), { version = "1.2" }):handshake()
    t:accept(server)
    local session, fresh = client:session(), tls.certificate(t:folder(), "fresh.lab")
    sys.write_file(cert.cert, sys.read_file(fresh.cert))
    sys.write_file(cert.key, sys.read_file(fresh.key))
    p:signal "HUP"
    p:log "version 2 is in force"
    client = tls.client(t:connect(p), { version = "1.2", session = session }):handshake()
    assert.is_false(client:is_resumed())
  end)

  case("tells policies of host names only", function(t)
    local cert, server = tls.certificate(t:folder(), "a.lab"), t:listen()
    local p = t:penstock { "-p", t:file("p.lua", [[return {
      sni = function(conn, name) conn:tag("asked", "<" .. name .. ">") end,
      connect = function(conn) conn:tag("sni", conn.tls.sni) end }]]), "--tls-cert", cert.cert, "--tls-key", cert.key,
      "127.0.0.1:0", server.address }
    local names = { "127.0.0.1:1,127.0.0.1", "unix:/run/x", "a\nb", ".a", "a b" }
    for i, name in ipairs(names) do
      local client = tls.client(t:connect(p), { name = name }):handshake()
      client:close()
      local line = p:access(i)
      assert.same({ name, "<>", "-" }, { name, line.asked, line.sni })
    end
  end)

  case("of scripts is warned of, too, where SSLKEYLOGFILE is set", function(t)
    local cert, server = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = t:penstock({ "-p", t:file("p.lua", ([[return { connect = function()
      return { "localhost:%d", tls = { ca = %q } } end }]]):format(server.port, cert.cert)), "127.0.0.1:0",
      "127.0.0.1:1" }, { env = { SSLKEYLOGFILE = t:folder() .. "/keys" } })
    local client = t:connect(p)
    tls.server(t:accept(server), cert):handshake():send "x"
    client:expect "x"
    p:log "warn  SSLKEYLOGFILE: the secrets of ALL TLS sessions"
  end)

  case("of a kept socket is used again by who asks for the same, and by nobody else", function(t)
    local cert, server = tls.certificate(t:folder(), "localhost"), t:listen()
    local p = t:penstock { "-p", t:file("p.lua", ([[
      local ps = require "penstock"
      local function ask(client, secure, say)
        local s = ps.tcp.new()
        assert(s:connect("127.0.0.1", %d))
        if secure then assert(s:sslhandshake(nil, { ca = %q, name = "localhost" })) end
        s:send(say .. "\n")
        client:write(s:receive(), " ", s:getreusedtimes(), "\n")
        client:flush()
        s:setkeepalive(10000)
      end
      return { serve = function(conn, client)
        ask(client, true, "one")
        ask(client, false, "two")
        ask(client, true, "three")
      end }]]):format(server.port, cert.cert)), "127.0.0.1:0", "-" }
    local client = t:connect(p)
    local secure = tls.server(t:accept(server), cert):handshake()
    secure:expect("one\n"):send "1\n"
    client:expect "1 0\n"
    local plain = t:accept(server)
    plain:expect("two\n"):send "2\n"
    client:expect "2 0\n"
    secure:expect("three\n"):send "3\n"
    client:expect "3 1\n"

  end)
end)
