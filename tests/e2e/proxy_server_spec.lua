-- penstock socks and penstock connect: as real clients use them, and as hops of other penstocks.
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local case, bulk, sys = e2e.case, e2e.bulk, e2e.sys
local case_with, run = peers.case_with, peers.run

local MB = 1024 * 1024
local OPEN = "\5\1\0"
local BOUND = "\0\1\0\0\0\0\0\0"
local CONNECTED = "HTTP/1.1 200 Connection established\r\n\r\n"

local function plain(text) return (text:gsub("%p", "%%%0")) end

-- A file of users that others may not read.
local function users_file(t, text)
  local path = t:file("users", text or "alice:won:der\n# nobody else\n")
  run(t, { "chmod", "600", path })
  return path
end

-- `penstock socks` or `connect`, for everything on this host unless the arguments say otherwise.
local function start(t, command, ...)
  local args = { command, ... }
  if not table.concat(args, " "):find "%-%-allow" then
    args[#args + 1], args[#args + 2] = "--allow", "127.0.0.0/8:*,localhost:*"
  end
  args[#args + 1] = "127.0.0.1:0"
  return t:penstock(args)
end

local function socks_request(listener)
  local port = listener.port
  return "\5\1\0\1\127\0\0\1" .. string.char(math.floor(port / 256), port % 256)
end

local function http_request(listener) return ("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(listener.address) end

-- Both protocols: the bytes of a whole request, and those of a success.
local protocols = {
  socks = { request = function(l) return OPEN .. socks_request(l) end, success = "\5\0\5\0" .. BOUND },
  connect = { request = http_request, success = CONNECTED },
}

-- All that is answered to these bytes.
local function answer(t, p, bytes)
  local client = t:connect(p):send(bytes)
  local text = client:read_all()
  client:close()
  return text
end

-- A client that has a way to the listener.
local function tunnel(t, p, command, listener)
  local client = t:connect(p):send(protocols[command].request(listener))
  local upstream = t:accept(listener)
  client:expect(protocols[command].success)
  return client, upstream
end

for command, protocol in pairs(protocols) do
  describe("penstock " .. command .. ":", function()
    case("bulk goes both ways at once, by splice", function(t)
      local server, p = t:listen(), start(t, command)
      local client, upstream = tunnel(t, p, command, server)
      bulk.run {
        { from = client, to = upstream, bytes = 20 * MB },
        { from = upstream, to = client, bytes = 20 * MB },
      }
      client:finish()
      upstream:finish()
      p:expect_end { reason = "eof", upstream = server.address, to = server.address }
    end)

    case("half-close passes in either direction", function(t)
      local server, p = t:listen(), start(t, command)
      local client, upstream = tunnel(t, p, command, server)
      client:send("question"):finish()
      upstream:expect "question"
      upstream:expect_eof()
      upstream:send("answer"):finish()
      client:expect "answer"
      client:expect_eof()
      client, upstream = tunnel(t, p, command, server)
      upstream:send("greeting"):finish()
      client:expect "greeting"
      client:expect_eof()
      client:send("thanks"):finish()
      upstream:expect "thanks"
      upstream:expect_eof()
    end)

    case("requests in single bytes are understood, and what follows is kept for the upstream", function(t)
      local server, p = t:listen(), start(t, command)
      local client = t:connect(p)
      local bytes = protocol.request(server) .. "early"
      for i = 1, #bytes do client:send(bytes:sub(i, i)) end
      t:accept(server):expect "early"
      client:expect(protocol.success)
    end)

    case("what the upstream says first comes behind the answer, in each of many connections", function(t)
      local server, p = t:listen(), start(t, command, "--workers", "2")
      for _ = 1, 20 do
        local client = t:connect(p):send(protocol.request(server))
        t:accept(server):send "220 hello\r\n"
        client:expect(protocol.success .. "220 hello\r\n")
      end
    end)

    case("the answer reaches a client that has sent more already", function(t)
      local p, nobody = start(t, command), t:refusing()
      local text = answer(t, p, protocol.request(nobody) .. ("x"):rep(30000))
      assert.matches(command == "socks" and "^\5%z\5\5" or "^HTTP/1.1 502 ", text)
      p:expect_end { reason = "denied", detail = "refused", upstream = nobody.address }
    end)

    case("a client that leaves in the midst of its request costs nothing more", function(t)
      local server, p = t:listen(), start(t, command)
      local bytes = protocol.request(server)
      local n = 0
      for i = 1, #bytes - 1, 3 do
        t:connect(p):send(bytes:sub(1, i)):finish()
        t:connect(p):send(bytes:sub(1, i)):reset()
        n = n + 2
      end
      p:access(n)
      for _, line in ipairs(p:access_lines()) do assert.is_true(line.reason == "denied" or line.reason == "reset") end
      assert.is_nil(server:try_accept(0))
    end)

    case("a client that stalls is ended by the handshake timeout", function(t)
      local p = start(t, command, "--handshake-timeout", "200ms")
      answer(t, p, protocol.request(t:listen()):sub(1, 2))
      p:expect_end { reason = "denied", detail = "timeout" }
    end)

    case("what no rule names is refused, and so is what a name leads to", function(t)
      local server = t:listen()
      local p = start(t, command, "--allow", ("localhost:%d,*:443"):format(server.port), "--allow", "127.0.0.9:1")
      answer(t, p, protocol.request(server))
      p:expect_end { reason = "denied", detail = "not_allowed", upstream = "-" }
      local name = command == "socks" and OPEN .. "\5\1\0\3\9localhost" .. socks_request(server):sub(-2) or
        ("CONNECT localhost:%d HTTP/1.0\r\n\r\n"):format(server.port)
      assert.matches(command == "socks" and "^\5%z\5\2" or "^HTTP/1.1 403 ", answer(t, p, name))
      p:expect_end({ reason = "denied", detail = "private", to = "localhost:" .. server.port }, 2)
      p:log "refused: localhost leads to .*127%.0%.0%.1 %(loopback%).*, and no rule names that network"
      assert.is_nil(server:try_accept(0))
    end)

    case("a reload takes other users, and keeps the old ones when the file is wrong", function(t)
      local server, path = t:listen(), users_file(t)
      local p = start(t, command, "--auth", path)
      local scheme = command == "socks" and "socks5" or "http"
      local function expect(user, detail)
        local q = t:penstock { "--via", ("%s://%s@%s"):format(scheme, user, p.address), "127.0.0.1:0", server.address }
        if detail then
          t:connect(q):expect_reset()
          q:log(detail)
        else
          local client, upstream = t:expect_echo(q, server)
          client:close()
          upstream:close()
        end
        q:stop()
      end
      expect "alice:won%3Ader"
      sys.write_file(path, "bob:builder\n")
      p:signal "HUP"
      p:log "version 2 is in force"
      expect "bob:builder"
      expect("alice:won%3Ader", command == "socks" and "wrong user or password" or "407")
      sys.write_file(path, "nonsense\n")
      local from = #p.err
      t:expect_error "line 1: write user:password"
      p:signal "HUP"
      p:log("line 1: write user:password", from)
      assert.is_nil(p.err:find("nonsense", 1, true))
      expect "bob:builder"
    end)
  end)
end

describe("an open proxy", function()
  case("is warned of when others can reach it", function(t)
    local p = t:penstock { "socks", "--allow", "any", "0.0.0.0:0" }
    p:log "warn .*0%.0%.0%.0:0 is open: who can connect can use it"
    p = t:penstock { "socks", "--allow", "any", "127.0.0.1:0" }
    assert.is_nil(p.err:find("is open", 1, true))
  end)

  case("is not made of a file of users that everybody can read", function(t)
    local path = users_file(t)
    run(t, { "chmod", "604", path })
    t:allow_error "."
    local status, err = t:run { "socks", "--allow", "any", "--auth", path, "127.0.0.1:0" }
    assert.equal(2, status)
    assert.matches("--auth: " .. path .. " can be read or written by everybody: chmod o= " .. path, err, 1, true)
  end)
end)

-- ---- real clients ----

-- A server of HTTP behind a listener of the test's own is enough for curl: it answers each connection once.
local function answer_http(t, server, text)
  local upstream = t:accept(server)
  local head = ""
  while not head:find("\r\n\r\n", 1, true) do head = head .. upstream:read(1) end
  upstream:send(("HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text)):finish()
  return head
end

-- Runs curl with these words against the server; returns its output.
local function curl(t, server, host, ...)
  local argv = { "curl", "-sS", "--max-time", "20", "--noproxy", "", ... }
  argv[#argv + 1] = ("http://%s:%d/x"):format(host, server.port)
  local child = t:spawn(argv)
  local head = answer_http(t, server, "hello\n")
  assert.matches("^GET /x HTTP/1.1\r\n", head)
  assert.is_nil((head:find "[Pp]roxy%-Authorization"))
  assert.equal(0, child:wait(20), child.err)
  return child.out
end

describe("curl:", function()
  case_with("curl", "speaks SOCKS5 with names and addresses, with a login and without", function(t)
    local server = t:listen()
    local open, closed = start(t, "socks"), start(t, "socks", "--auth", users_file(t))
    assert.equal("hello\n", curl(t, server, "localhost", "--socks5-hostname", open.address))
    open:expect_end { to = "localhost:" .. server.port, upstream = server.address }
    assert.equal("hello\n", curl(t, server, "127.0.0.1", "--socks5", open.address))
    open:expect_end({ to = server.address }, 2)
    assert.equal("hello\n", curl(t, server, "localhost", "-x", "socks5h://alice:won%3Ader@" .. closed.address))
    closed:expect_end { user = "alice" }
  end)

  case_with("curl", "makes tunnels through CONNECT, with a login and without", function(t)
    local server = t:listen()
    local open, closed = start(t, "connect"), start(t, "connect", "--auth", users_file(t))
    assert.equal("hello\n", curl(t, server, "localhost", "-p", "-x", "http://" .. open.address))
    assert.equal("hello\n", curl(t, server, "127.0.0.1", "-p", "-x", "http://alice:won%3Ader@" .. closed.address))
    closed:expect_end { user = "alice" }
    assert.equal("hello\n", curl(t, server, "localhost", "-p", "--proxy-anyauth", "-U", "alice:won:der", "-x",
      "http://" .. closed.address))
  end)

  case_with("curl", "tells why it was turned away", function(t)
    local server = t:listen()
    local socks, http = start(t, "socks", "--auth", users_file(t)), start(t, "connect", "--auth", users_file(t))
    local function fails(...)
      local child = t:spawn { "curl", "-sS", "--max-time", "20", "--noproxy", "", ... }
      assert.is_true(child:wait(20) ~= 0)
      return child.err .. child.out
    end
    local url = "http://" .. server.address
    assert.matches("User was rejected", fails("-x", "socks5h://alice:no@" .. socks.address, url))
    assert.matches("407", fails("-p", "-x", "http://alice:no@" .. http.address, url))
    assert.matches("403", fails("-p", "-x", "http://alice:won%3Ader@" .. http.address, "http://192.0.2.1:99"))
    local child = t:spawn { "curl", "-sS", "--noproxy", "", "-x", "http://" .. http.address, url }
    assert.equal(0, child:wait(20))
    assert.matches("This is a proxy for tunnels: it takes CONNECT host:port", child.out)
  end)

  case_with("curl nginx", "a file of 20 MB comes byte for byte, twenty at once", function(t)
    local folder, port = t:folder(), peers.free_port(t)
    os.execute("mkdir " .. folder .. "/www")
    sys.write_file(folder .. "/www/big", bulk.text(0, 20 * MB))
    sys.write_file(folder .. "/www/small", "small\n")
    local config = t:file("nginx.conf", ([[
daemon off; user root; worker_processes 1; pid FOLDER/nginx.pid; error_log stderr warn;
events { worker_connections 256; }
http { access_log off; client_body_temp_path FOLDER/b; proxy_temp_path FOLDER/p; fastcgi_temp_path FOLDER/f;
  uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s; server { listen 127.0.0.1:PORT; root FOLDER/www; } }
]]):gsub("FOLDER", folder):gsub("PORT", port))
    local nginx = t:spawn { "nginx", "-c", config, "-p", folder, "-e", "stderr" }
    peers.wait_for_listener(t, "127.0.0.1:" .. port, nginx)
    for _, proxy in ipairs { "socks5h://" .. start(t, "socks").address, "http://" .. start(t, "connect").address } do
      local words = { "curl", "-sS", "--max-time", "60", "--noproxy", "", "-p", "-x", proxy }
      local function with(...)
        local argv = { unpack(words) }
        for _, word in ipairs { ... } do argv[#argv + 1] = word end
        return run(t, argv)
      end
      with("-o", folder .. "/got", ("http://localhost:%d/big"):format(port))
      assert.is_true(sys.read_file(folder .. "/got") == bulk.text(0, 20 * MB))
      local url = ("http://127.0.0.1:%d/small?[1-40]"):format(port)
      assert.equal(("small\n"):rep(40), with("-Z", "--parallel-max", "20", url))
    end
  end)
end)

describe("nc:", function()
  for version, command in pairs { ["5"] = "socks", connect = "connect" } do
    case_with("nc", "nc -X " .. version .. " goes through penstock " .. command, function(t)
      local server, p = t:listen(), start(t, command)
      local child = t:spawn { "nc", "-X", version, "-x", p.address, "127.0.0.1", tostring(server.port) }
      t:accept(server):send("hello\n"):finish()
      assert.equal("hello\n", child:wait_for("out", "(hello\n)"))
    end)
  end
end)

describe("ssh:", function()
  -- An sshd of the test's own; returns its port and the words of a client that it lets in.
  local function start_sshd(t)
    local folder, port = t:folder(), peers.free_port(t)
    for _, name in ipairs { "host", "user" } do
      run(t, { "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder .. "/" .. name })
    end
    run(t, { "cp", folder .. "/user.pub", folder .. "/authorized" })
    os.execute "mkdir -p /run/sshd"
    local config = t:file("sshd_config", ([[
ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
]]):format(port, folder, folder))
    local sshd = t:spawn { "/usr/sbin/sshd", "-D", "-e", "-f", config }
    peers.wait_for_listener(t, "127.0.0.1:" .. port, sshd)
    return port, {
      "ssh", "-F", "none", "-i", folder .. "/user", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
      "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", tostring(port),
    }
  end

  for version, command in pairs { ["5"] = "socks", connect = "connect" } do
    local name = "a ProxyCommand of nc -X " .. version .. " carries a session"
    case_with("ssh nc ssh-keygen /usr/sbin/sshd", name, function(t)
      local port, argv = start_sshd(t)
      local p = start(t, command, "--allow", "127.0.0.0/8:" .. port)
      for _, word in ipairs { "-o", ("ProxyCommand=nc -X %s -x %s %%h %%p"):format(version, p.address), "127.0.0.1",
        "echo through; head -c 3000000 /dev/zero | wc -c" } do
        argv[#argv + 1] = word
      end
      assert.equal("through\n3000000\n", run(t, argv))
      p:expect_end { upstream = "127.0.0.1:" .. port }
    end)
  end
end)

-- ---- chains ----

describe("a chain of penstocks", function()
  -- Three hops; the second asks for a login.
  local function hops(t)
    local users = users_file(t)
    local one, two, three = start(t, "socks"), start(t, "connect", "--auth", users), start(t, "socks", "--auth", users)
    return { one, two, three }, {
      "socks5://" .. one.address, "http://alice:won%3Ader@" .. two.address,
      "socks5://alice:won%3Ader@" .. three.address,
    }
  end

  case("of one, two and three hops carries bytes, and each hop tells of the next", function(t)
    local server = t:listen()
    local all, urls = hops(t)
    for n = 1, 3 do
      local p = t:penstock { "--via", table.concat(urls, ",", 1, n), "127.0.0.1:0", server.address }
      local client, upstream = t:pair(p, server)
      upstream:send "220 first\r\n"
      client:expect "220 first\r\n"
      bulk.run { { from = client, to = upstream, bytes = MB }, { from = upstream, to = client, bytes = MB } }
      client:finish()
      upstream:finish()
      local line = p:access()
      assert.same({ "eof", server.address }, { line.reason, line.upstream })
      p:stop()
    end
    for i = 1, 3 do
      for n = i, 3 do
        local want = n == i and server.address or all[i + 1].address
        all[i]:expect_end({ reason = "eof", to = want, upstream = want }, n - i + 1)
      end
    end
    assert.equal("alice", all[2]:access().user)
  end)

  case("resolves the name at its last hop", function(t)
    local server = t:listen()
    local all, urls = hops(t)
    local p = t:penstock { "--via", table.concat(urls, ","), "127.0.0.1:0", "localhost:" .. server.port }
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:finish()
    all[3]:expect_end { to = "localhost:" .. server.port, upstream = server.address }
  end)

  -- What is said at the first penstock when the hop `urls` says is wrong.
  local function expect_failure(t, urls, target, reason, message)
    local p = t:penstock { "--via", table.concat(urls, ","), "127.0.0.1:0", target }
    t:connect(p):expect_reset()
    p:expect_end { reason = reason, side = "upstream", detail = "hop" }
    p:log(message)
    assert.is_nil(p.err:find("won", 1, true))
    p:stop()
  end

  case("names the hop that fails, and why", function(t)
    local server = t:listen()
    local all, urls = hops(t)
    local function is(hop) return (hop == 2 and "http " or "socks5 ") .. plain(all[hop].address) .. ": " end
    local function without_login(hop)
      local changed = { unpack(urls) }
      changed[hop] = changed[hop]:gsub("alice:won%%3Ader@", "")
      return changed
    end
    local function wrong_password(hop)
      local changed = { unpack(urls) }
      changed[hop] = changed[hop]:gsub("3Ader", "3Awrong")
      return changed
    end
    expect_failure(t, without_login(3), server.address, "refused", is(3) .. "it asks for a login")
    expect_failure(t, without_login(2), server.address, "refused", is(2) .. "407")
    expect_failure(t, wrong_password(3), server.address, "refused", is(3) .. "wrong user or password")
    expect_failure(t, wrong_password(2), server.address, "refused", is(2) .. "407")
    expect_failure(t, urls, "192.0.2.1:1", "refused", is(3) .. "not allowed by its rules")
    local nobody = t:refusing().address
    expect_failure(t, urls, nobody, "refused", is(3) .. "connection refused")
    urls[3] = "socks5://" .. nobody
    expect_failure(t, urls, server.address, "unreachable", is(2) .. "502")
    urls[2] = "http://" .. nobody
    expect_failure(t, urls, server.address, "refused", is(1) .. "connection refused")
    urls[1] = "socks5://" .. nobody
    expect_failure(t, urls, server.address, "refused", "socks5 " .. plain(nobody) .. ": connection refused")
  end)

  case("of hops that cannot speak each other's protocol fails at the right one", function(t)
    local server = t:listen()
    local socks, http = start(t, "socks"), start(t, "connect")
    expect_failure(t, { "http://" .. socks.address }, server.address, "reset", "http " .. plain(socks.address))
    expect_failure(t, { "socks5://" .. http.address }, server.address, "refused", "socks5 " .. plain(http.address))
  end)
end)

describe("over TLS:", function()
  -- A certificate for localhost and 127.0.0.1 that is its own authority; its key stands in the same file.
  local function certificate(t)
    local path = t:folder() .. "/both.pem"
    local cert, key = t:folder() .. "/cert.pem", t:folder() .. "/key.pem"
    run(t, {
      "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
      "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert,
    })
    sys.write_file(path, sys.read_file(cert) .. sys.read_file(key))
    run(t, { "chmod", "600", path })
    return path
  end

  -- Hops of these kinds, each with a login, and penstock as their client.
  local function chain(t, pem, server, ...)
    local users, urls = users_file(t), {}
    for i, scheme in ipairs { ... } do
      local args = { "--auth", users }
      if scheme:find "tls" or scheme == "https" then args[3], args[4] = "--tls-cert", pem end
      local hop = start(t, scheme:find "socks" and "socks" or "connect", unpack(args))
      urls[i] = ("%s://alice:won%%3Ader@%s"):format(scheme, hop.address)
    end
    return t:penstock { "--tls-via-ca", pem, "--via", table.concat(urls, ","), "127.0.0.1:0", server.address }
  end

  -- What the upstream says first, bytes both ways, and half-close come through.
  local function expect_way(t, p, server)
    local client, upstream = t:pair(p, server)
    upstream:send "220 first\r\n"
    client:expect "220 first\r\n"
    bulk.run { { from = client, to = upstream, bytes = MB }, { from = upstream, to = client, bytes = MB } }
    client:finish()
    upstream:expect_eof()
    upstream:send("last"):finish()
    client:expect "last"
    client:expect_eof()
    p:expect_end { reason = "eof", upstream = server.address }
  end

  for _, hops in ipairs {
    "socks5+tls http socks5", "socks5 https socks5", "http socks5 socks5+tls", "https socks5+tls",
    "socks5+tls https socks5+tls",
  } do
    case_with("openssl", "the hops " .. hops .. " carry bytes and half-close", function(t)
      local server, schemes = t:listen(), {}
      for scheme in hops:gmatch "%S+" do schemes[#schemes + 1] = scheme end
      expect_way(t, chain(t, certificate(t), server, unpack(schemes)), server)
    end)
  end

  case_with("openssl", "a hop whose certificate nobody vouches for is named", function(t)
    local hop, server = start(t, "socks", "--tls-cert", certificate(t)), t:listen()
    local p = t:penstock { "--via", "socks5+tls://" .. hop.address, "127.0.0.1:0", server.address }
    t:connect(p):expect_reset()
    p:expect_end { side = "upstream", detail = "hop" }
    p:log("socks5%+tls " .. plain(hop.address) .. ": ")
  end)

  case_with("openssl", "a proxy that asks for certificates is not said to be open", function(t)
    local pem = certificate(t)
    local p = t:penstock { "connect", "--allow", "any", "--tls-cert", pem, "--tls-client-ca", pem, "0.0.0.0:0" }
    assert.is_nil(p.err:find("is open", 1, true))
    p = t:penstock { "connect", "--allow", "any", "--tls-cert", pem, "--tls-client-ca", pem, "--tls-client-cert",
      "request", "0.0.0.0:0" }
    p:log "is open: who can connect can use it"
  end)

  case_with("openssl curl", "curl goes through an HTTPS proxy", function(t)
    local pem, server = certificate(t), t:listen()
    local p = start(t, "connect", "--tls-cert", pem, "--auth", users_file(t))
    assert.equal("hello\n", curl(t, server, "127.0.0.1", "-p", "--proxy-cacert", pem, "-x",
      "https://alice:won%3Ader@localhost:" .. p.port))
    p:expect_end { user = "alice" }
  end)

  case_with("openssl", "ps.deny{ reply = } says nothing in the clear before the handshake", function(t)
    local policy = t:file("deny.lua", [[
      return { accept = function() return require "penstock".deny { reply = "plain" } end, serve = function() end }]])
    local p = t:penstock { "--tls-cert", certificate(t), "-p", policy, "127.0.0.1:0", "-" }
    t:expect_error "nothing can be said before the TLS handshake; return it from the connect hook"
    t:connect(p):expect_reset()
  end)
end)
