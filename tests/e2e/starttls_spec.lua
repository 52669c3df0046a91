-- Routing by SNI behind STARTTLS, with the clients and servers of others: openssl s_client, psql, PostgreSQL.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local busted = require "busted"
local case, sys = e2e.case, e2e.sys

-- A certificate for this name in the test's folder. Returns the paths of it and of its key.
local function certificate(t, name)
  local base = t:folder() .. "/" .. name
  peers.run(t, { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-days", "2", "-subj", "/CN=" .. name, "-addext", "subjectAltName=DNS:" .. name,
    "-keyout", base .. ".key", "-out", base .. ".pem" })
  return base .. ".pem", base .. ".key"
end

local function start_server(t, protocol, name)
  local cert, key = certificate(t, name)
  local server = t:spawn { "python3", "tests/e2e/support/starttls_server.py", protocol, cert, key, name }
  local port = server:wait_for("out", "(%d+)\n")
  if not port then error("the server did not start: " .. server.err, 2) end
  return "127.0.0.1:" .. port, cert
end

local function policy(hook, protocol, routes)
  local list = {}
  for name, address in pairs(routes) do list[#list + 1] = ("[%q] = %q"):format(name, address) end
  return ([[local ps = require "penstock"
    local routes = { %s }
    return { %s = function(conn)
      local hello, why = conn:hello { starttls = %q }
      conn:tag("sni", hello and hello.sni)
      if not hello then return ps.deny { reason = why } end
      if %q == "connect" then return routes[hello.sni] or ps.deny { reason = "no_route" } end
    end }]]):format(table.concat(list, ", "), hook, protocol, hook)
end

-- Runs s_client against penstock, which must verify that it has reached the server of that name.
local function s_client(t, p, protocol, name, cert)
  return peers.run(t, { "openssl", "s_client", "-starttls", protocol, "-connect", p.address, "-servername", name,
    "-CAfile", cert, "-verify_hostname", name, "-verify_return_error", "-quiet" })
end

for _, protocol in ipairs { "postgres", "smtp", "imap", "xmpp", "ldap" } do
  describe("openssl s_client -starttls " .. protocol, function()
    peers.case_with("openssl python3", "reaches the server of the name it asks for, which ends the TLS", function(t)
      local a, a_cert = start_server(t, protocol, "a.lab")
      local b, b_cert = start_server(t, protocol, "b.lab")
      local text = policy("connect", protocol, { ["a.lab"] = a, ["b.lab"] = b })
      local p = t:penstock { "-p", t:file("policy.lua", text), "127.0.0.1:0", "-" }
      assert.equal("a.lab\n", s_client(t, p, protocol, "a.lab", a_cert))
      p:expect_end({ sni = "a.lab", upstream = a }, 1)
      assert.equal("b.lab\n", s_client(t, p, protocol, "b.lab", b_cert))
      p:expect_end({ sni = "b.lab", upstream = b }, 2)
    end)

    peers.case_with("openssl python3", "fails when the server does not begin TLS, and the log says so", function(t)
      local server = t:listen()
      local text = policy("connect", protocol, { ["a.lab"] = server.address })
      local p = t:penstock { "-p", t:file("policy.lua", text), "127.0.0.1:0", "-" }
      local client = t:spawn { "openssl", "s_client", "-starttls", protocol, "-connect", p.address,
        "-servername", "a.lab" }
      local upstream = t:accept(server)
      upstream:send "no\r\n"
      p:expect_end { reason = "tls", detail = "starttls", side = "upstream" }
      p:log("does not begin TLS %(STARTTLS, " .. protocol)
      assert.is_true(client:wait(20) ~= 0)
    end)
  end)
end

describe("openssl s_client -starttls mysql", function()
  peers.case_with("openssl python3", "passes a handshake hook that has looked at its hello", function(t)
    local a, cert = start_server(t, "mysql", "a.lab")
    local p = t:penstock { "-p", t:file("policy.lua", policy("handshake", "mysql", {})), "127.0.0.1:0", a }
    assert.equal("a.lab\n", s_client(t, p, "mysql", "a.lab", cert))
    p:expect_end { sni = "a.lab" }
  end)
end)

describe("a dialogue", function()
  local function byte_by_byte(socket, bytes)
    for i = 1, #bytes do
      socket:send(bytes:sub(i, i))
      socket:wait_delivered()
    end
  end

  case("may come byte by byte from both sides, and nothing of what follows is lost", function(t)
    local server = t:listen()
    local p = t:penstock { "-p", t:file("policy.lua", policy("connect", "smtp", { ["db.lab"] = server.address })),
      "127.0.0.1:0", "-" }
    -- A ClientHello for db.lab: record, message, version, random, no session, one cipher, no compression, server_name.
    local hello = "\22\3\1\0\62" .. "\1\0\0\58" .. "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\2\19\1" .. "\1\0"
      .. "\0\15" .. "\0\0\0\11" .. "\0\9" .. "\0\0\6db.lab"
    local client = t:connect(p)
    client:expect "220 localhost ESMTP\r\n"
    byte_by_byte(client, "EHLO me\r\n")
    client:expect "250-localhost\r\n250 STARTTLS\r\n"
    byte_by_byte(client, "STARTTLS\r\n")
    client:expect "220 2.0.0 Ready to start TLS\r\n"
    byte_by_byte(client, hello)
    client:send "and more"
    client:finish()
    local upstream = t:accept(server)
    byte_by_byte(upstream, "220 hi\r\n")
    upstream:expect "EHLO me\r\n"
    byte_by_byte(upstream, "250-hi\r\n250 STARTTLS\r\n")
    upstream:expect "STARTTLS\r\n"
    byte_by_byte(upstream, "220 go\r\n")
    upstream:expect(hello .. "and more"):expect_eof()
    upstream:send("answer"):finish()
    client:expect("answer"):expect_eof()
    p:expect_end { reason = "eof", sni = "db.lab" }
  end)

  for _, call in ipairs { "peek(1)", "peek_line()", "http_host()", "hello()", 'hello { starttls = "smtp" }' } do
    peers.case_with("openssl", "cannot take bytes from the TLS of its listener: conn:" .. call, function(t)
      local cert, key = certificate(t, "a.lab")
      local text = ("return { accept = function(conn) conn:%s end }"):format(call)
      local p = t:penstock { "-p", t:file("policy.lua", text), "--tls-cert", cert, "--tls-key", key,
        "127.0.0.1:0", "127.0.0.1:1" }
      t:expect_error "script error in the accept hook"
      t:connect(p):expect_reset()
      p:log "a TLS handshake stands before what the client sends"
    end)
  end

  case("ends with a client that aborts in the midst of it", function(t)
    local server = t:listen()
    local p = t:penstock { "-p", t:file("policy.lua", policy("connect", "smtp", {})), "127.0.0.1:0", server.address }
    local client = t:connect(p)
    client:expect "220 localhost ESMTP\r\n"
    client:send "EHLO"
    client:wait_delivered()
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
  end)
end)

-- ---- MariaDB ----

local function is_root() return io.popen("id -u"):read "*l" == "0" end

local function start_mariadb(t)
  local folder, cert, key = t:folder(), certificate(t, "a.lab")
  local data, port = folder .. "/mariadb", peers.free_port(t)
  local as = is_root() and { "--user=mysql" } or {}
  os.execute(("chmod 755 %s; chmod 644 %s; mkdir %s"):format(folder, key, data))
  if is_root() then os.execute("chown mysql " .. data) end
  peers.run(t, { "mariadb-install-db", "--no-defaults", "--skip-test-db", "--datadir=" .. data, as[1] })
  local init = t:file("init.sql", "delete from mysql.global_priv where user = '';\nflush privileges;\n" ..
    "create user bob identified by 'secret';\n")
  local server = t:spawn { "mariadbd", "--no-defaults", "--datadir=" .. data, "--socket=" .. data .. "/socket",
    "--port=" .. port, "--bind-address=127.0.0.1", "--ssl-cert=" .. cert, "--ssl-key=" .. key, "--init-file=" .. init,
    "--innodb-buffer-pool-size=8M", as[1] }
  local ready = server:wait_for("err", "ready for connections")
  if not ready then error("mariadbd did not start: " .. server.err, 2) end
  return "127.0.0.1:" .. port
end

describe("mariadb", function()
  peers.case_with("mariadb mariadbd mariadb-install-db openssl", "logs in by password over TLS and without", function(t)
    local address = start_mariadb(t)
    local p = t:penstock { "-p", t:file("policy.lua", [[return { handshake = function(conn)
      local hello, why = conn:hello { starttls = "mysql" }
      conn:tag("tls", hello and hello.versions[1] or why)
    end }]]), "127.0.0.1:0", address }
    local function mariadb(password, tls)
      return { "mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", tostring(p.port), "-u", "bob", tls,
        "-p" .. password,
        "-Ne", "select if(variable_value = '', 'plain', 'tls') from information_schema.session_status " ..
        "where variable_name = 'Ssl_cipher'" }
    end
    assert.equal("tls\n", peers.run(t, mariadb("secret", "--ssl")))
    p:expect_end({ tls = "1.3" }, 1)
    assert.equal("plain\n", peers.run(t, mariadb("secret", "--skip-ssl")))
    p:expect_end({ tls = "mismatch" }, 2)
    assert.is_true(t:spawn(mariadb("wrong", "--ssl")):wait(20) ~= 0)
    p:expect_end({ tls = "1.3" }, 3)
  end)
end)

-- ---- PostgreSQL ----

local function postgres_folder()
  for folder in io.popen "ls -d /usr/lib/postgresql/*/bin 2>/dev/null":lines() do
    if sys.read_file(folder .. "/initdb") then return folder end
  end
end

-- PostgreSQL does not run as root: then it runs as its own user.
local function as_user(argv)
  if not is_root() then return argv end
  local list = { "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups" }
  for _, word in ipairs(argv) do list[#list + 1] = word end
  return list
end

local function start_postgres(t, bin)
  local folder = t:folder()
  local cert, key = certificate(t, "db.lab")
  local data, port = folder .. "/data", peers.free_port(t)
  os.execute(("chmod 755 %s; mkdir %s; chmod 600 %s"):format(folder, data, key))
  if is_root() then os.execute(("chown -R postgres %s %s"):format(data, key)) end
  peers.run(t, as_user({ bin .. "/initdb", "-A", "trust", "-U", "bob", "-D", data, "--no-sync" }))
  local server = t:spawn(as_user({ bin .. "/postgres", "-D", data, "-p", tostring(port), "-h", "127.0.0.1", "-F",
    "-k", "", "-c", "ssl=on", "-c", "ssl_cert_file=" .. cert, "-c", "ssl_key_file=" .. key }))
  local ready = server:wait_for("err", "ready to accept connections")
  if not ready then error("postgres did not start: " .. server.err, 2) end
  return "127.0.0.1:" .. port, cert
end

describe("psql", function()
  local bin = postgres_folder()
  local function psql_case(name, run)
    if bin then return case(name, run) end
    busted.pending(name .. " (no PostgreSQL server)")
  end

  psql_case("reaches its server over TLS by its name, and without TLS goes where that is allowed", function(t)
    local address, cert = start_postgres(t, bin)
    local p = t:penstock { "-p", t:file("policy.lua", ([[local ps = require "penstock"
      return { connect = function(conn)
        local hello, why = conn:hello { starttls = "postgres" }
        conn:tag("name", hello and hello.sni or why)
        if not hello and why == "mismatch" then return %q end
        return hello and hello.sni == "db.lab" and %q or ps.deny { reason = "no_route" }
      end }]]):format(address, address)), "127.0.0.1:0", "-" }
    local function psql(options)
      local server = "hostaddr=127.0.0.1 port=%d user=bob dbname=postgres sslrootcert=%s %s"
      return { "psql", server:format(p.port, cert, options), "-Atc",
        "select ssl, repeat('x', 100000) from pg_stat_ssl where pid = pg_backend_pid()" }
    end
    assert.equal("t|" .. ("x"):rep(100000) .. "\n", peers.run(t, psql "host=db.lab sslmode=verify-full"))
    p:expect_end({ name = "db.lab", upstream = address }, 1)
    assert.equal("f|" .. ("x"):rep(100000) .. "\n", peers.run(t, psql "host=db.lab sslmode=disable"))
    p:expect_end({ name = "mismatch", upstream = address }, 2)
    local other = t:spawn(psql "host=other.lab sslmode=require")
    assert.is_true(other:wait(20) ~= 0)
    p:expect_end({ name = "other.lab", reason = "denied", detail = "no_route" }, 3)
  end)

  psql_case("is served by penstock's own certificate, and the server by a TLS of penstock's", function(t)
    local address, cert = start_postgres(t, bin)
    local ours, key = certificate(t, "front.lab")
    local p = t:penstock { "-p", t:file("policy.lua", ([[
      local REQUEST = "\0\0\0\8\4\210\22\47" -- SSLRequest
      return { handshake = function(conn, client, upstream)
        assert(client:exactly(8) == REQUEST)
        client:write "S"
        client:flush()
        assert(conn:starttls("client", { cert = %q, key = %q }))
        upstream:write(REQUEST)
        assert(upstream:exactly(1) == "S")
        assert(conn:starttls("upstream", { ca = %q, name = "db.lab" }))
        conn:tag("both", conn.tls.sni .. "/" .. conn.upstream.tls.peer.subject)
      end }]]):format(ours, key, cert)), "127.0.0.1:0", address }
    local server = "host=front.lab hostaddr=127.0.0.1 port=%d user=bob dbname=postgres sslrootcert=%s " ..
      "sslmode=verify-full"
    local out = peers.run(t, { "psql", server:format(p.port, ours), "-Atc",
      "select ssl, version, repeat('y', 100000) from pg_stat_ssl where pid = pg_backend_pid()" })
    assert.equal("t|TLSv1.3|" .. ("y"):rep(100000) .. "\n", out)
    p:expect_end { both = "front.lab/CN=db.lab" }
  end)
end)
