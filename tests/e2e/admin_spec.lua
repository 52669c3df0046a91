-- The admin over HTTP: what it tells, what it does, and whom it turns away.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local sockets = require "tests.e2e.support.sockets"
local case, case_as_root, sys = e2e.case, e2e.case_as_root, e2e.sys
local ask, conns, start = admin.ask, admin.conns, admin.penstock
local null = require("cjson").null

local function socket(t) return "unix:" .. t:folder() .. "/admin.sock" end

local token = "0123456789abcdef0123456789abcdef"

local function token_file(t, text, mode)
  local path = t:file("token", text or (token .. "\n"))
  assert(os.execute(("chmod %s %s"):format(mode or "600", path)))
  return path
end

-- The same on a TCP port of its own. Returns it and the address.
local function start_tcp(t, ...)
  local server = t:listen()
  local p = t:penstock { "--admin", "127.0.0.1:0", "127.0.0.1:0", server.address, ... }
  return p, p:log "admin listens on (%S+)"
end

describe("the admin tells", function()
  case("that it serves, and while it drains, that it does not any more", function(t)
    local server = t:listen()
    local p, at = start(t, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    local status, health = ask(t, at, "/v1/health")
    assert.equal(200, status)
    assert.same({ "serving", 1, 1 }, { health.status, health.connections, health.configuration })
    assert.equal(200, (ask(t, at, "/v1/ready")))
    p:signal "TERM"
    p:log "no new connections"
    status, health = ask(t, at, "/v1/health")
    assert.same({ 503, "draining" }, { status, health.status })
    assert.equal(503, (ask(t, at, "/v1/ready")))
    client:finish()
    upstream:finish()
    client:expect_eof()
    p:expect_exit(0)
  end)

  case("its version", function(t)
    local _, at = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    local status, body = ask(t, at, "/v1/version")
    assert.equal(200, status)
    assert.matches("^%d+%.%d+%.%d+$", body.version)
    assert.equal(1, body.api)
  end)

  case("its listeners with what they hold", function(t)
    local server = t:listen()
    local path = t:file("penstock.lua", ([[
      local ps = require "penstock"
      ps.listen { name = "one", bind = "127.0.0.1:0", to = %q, limits = { conns = 7, per_ip = 3 } }
      ps.listen { name = "two", bind = "127.0.0.1:0", policy = { connect = function() return %q end } }
    ]]):format(server.address, server.address))
    local p, at = start(t, { "run", path })
    t:expect_echo(p, server)
    local status, body = ask(t, at, "/v1/listeners")
    assert.equal(200, status)
    local one, two = body.listeners[1], body.listeners[2]
    assert.same({ "one", p.addresses[1], server.address, 1, 1, false },
      { one.name, one.address, one.to, one.connections, one.accepted, one.tls })
    assert.same({ 7, 3, 0 }, { one.limits.connections, one.limits.per_ip, one.limits.rate })
    assert.same({ "two", null, 0 }, { two.name, two.to, two.connections })
  end)

  case("the metrics of policies", function(t)
    local server = t:listen()
    local path = t:file("p.lua", [[
      local ps = require "penstock"
      local seen = ps.counter("seen_total")
      return { accept = function() seen:inc() end }
    ]])
    local p, at = start(t, { "-p", path, "127.0.0.1:0", server.address })
    t:expect_echo(p, server)
    local status, text = ask(t, at, "/metrics")
    assert.equal(200, status)
    assert.matches("\nseen_total 1\n", "\n" .. text, 1, true)
  end)

  case("connections with all that is known of them, on all workers", function(t)
    local server = t:listen()
    local path = t:file("p.lua", [[
      return { accept = function(conn) conn:tag("user", 'a"\27') end }
    ]])
    local p, at = start(t, { "--workers", "3", "-p", path, "127.0.0.1:0", server.address })
    for _ = 1, 9 do t:expect_echo(p, server) end
    local list, more = conns(t, at)
    assert.equal(9, #list)
    assert.equal(null, more)
    for i, c in ipairs(list) do
      assert.equal(i, c.id)
      assert.matches("^127%.0%.0%.1:%d+$", c.client)
      assert.same({ p.address, null, server.address, "relaying" }, { c.listener, c.proxy, c.upstream, c.state })
      local four = { bytes = 4, rate = null, mode = "copy" }
      assert.same({ four, four }, { c.up, c.down })
      assert.same({ user = 'a"\27' }, c.tags)
      assert.same({ client = null, upstream = null }, c.tls)
      assert.is_true(c.age_ms >= c.idle_ms)
    end
  end)

  case("connections page by page, in the order of their ids", function(t)
    local server = t:listen()
    local p, at = start(t, { "--workers", "2", "127.0.0.1:0", server.address })
    for _ = 1, 7 do t:expect_echo(p, server) end
    local seen, pages, after = {}, 0, 0
    repeat
      local list, more = conns(t, at, ("?limit=3&after=%d"):format(after))
      for _, c in ipairs(list) do seen[#seen + 1] = c.id end
      pages, after = pages + 1, more
    until after == null
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, seen)
    assert.equal(3, pages)
  end)

  case("only the connections that were asked for", function(t)
    local server = t:listen()
    local path = t:file("penstock.lua", ([[
      local ps = require "penstock"
      for _, name in ipairs { "a", "b" } do
        ps.listen { name = name, bind = "127.0.0.1:0", to = %q,
          policy = { accept = function(conn) conn:tag("of", name) end } }
      end
    ]]):format(server.address))
    local p, at = start(t, { "run", path })
    t:expect_echo(p, server)
    t:expect_echo({ address = p.addresses[2] }, server)
    local function ids(query)
      local list = {}
      for i, c in ipairs((conns(t, at, query))) do list[i] = c.id end
      return list
    end
    assert.same({ 1 }, ids "?listener=a")
    assert.same({ 2 }, ids "?tag=of%3Db")
    assert.same({ 1, 2 }, ids "?tag=of")
    assert.same({}, ids "?tag=other")
    assert.same({ 1, 2 }, ids "?client=127.0.0.0/8,10.0.0.0/8")
    assert.same({}, ids "?client=10.0.0.0/8")
    local many = ("10.0.0.0/8,"):rep(63) .. "127.0.0.1"
    assert.same({ 1, 2 }, ids("?client=" .. many))
    local too_many, why = ask(t, at, "/v1/connections?client=" .. many .. ",unix")
    assert.same({ 400, true }, { too_many, why.error:find("up to 64", 1, true) ~= nil })
    assert.same({}, ids "?min_age=1h")
    assert.same({ 1 }, ids "?min_age=0&listener=a&client=127.0.0.1")
    for _, query in ipairs { "?client=x", "?min_age=-1", "?limit=0", "?limit=1001", "?listner=a", "?all=true",
      "?tag==x" } do
      local status, body = ask(t, at, "/v1/connections" .. query)
      assert.equal(400, status)
      assert.is_string(body.error)
    end
  end)
end)

describe("the admin does", function()
  case("kill a connection while it relays, and no other", function(t)
    local server = t:listen()
    local p, at = start(t, { "127.0.0.1:0", server.address })
    local victim, its_upstream = t:expect_echo(p, server)
    local other, other_upstream = t:expect_echo(p, server)
    local feed = ("x"):rep(65536)
    its_upstream:send(feed)
    local status, body = ask(t, at, "/v1/connections/1/kill", { method = "POST" })
    assert.same({ 200, 1 }, { status, body.killed })
    its_upstream:expect_reset()
    p:expect_end { id = 1, reason = "killed", detail = "admin", side = "-" }
    other:send "still"
    other_upstream:expect "still"
    assert.equal(404, (ask(t, at, "/v1/connections/1/kill", { method = "POST" })))
    victim:close()
  end)

  case("kill those that fit a filter, and none without one", function(t)
    local server = t:listen()
    local path = t:file("p.lua", [[
      return { accept = function(conn) conn:tag("odd", conn.seq % 2 == 1) end }
    ]])
    local p, at = start(t, { "--workers", "2", "-p", path, "127.0.0.1:0", server.address })
    local clients = {}
    for i = 1, 6 do clients[i] = t:expect_echo(p, server) end
    local status, body
    for _, query in ipairs { "", "?min_age=0", "?min_rate=0", "?min_age=0s&min_rate=0" } do
      status, body = ask(t, at, "/v1/connections/kill" .. query, { method = "POST" })
      assert.equal(400, status, query)
      assert.matches("which ones%?", body.error)
    end
    assert.equal(6, #conns(t, at))
    status, body = ask(t, at, "/v1/connections/kill?tag=odd%3Dtrue", { method = "POST" })
    assert.same({ 200, 3 }, { status, body.killed })
    for i = 1, 6, 2 do clients[i]:expect_reset() end
    assert.equal(3, #conns(t, at))
    status, body = ask(t, at, "/v1/connections/kill?all=true", { method = "POST" })
    assert.same({ 200, 3 }, { status, body.killed })
  end)

  case("kill more than it does in one go", function(t)
    local server = t:listen()
    local p, at = start(t, { "--access-log", "off", "127.0.0.1:0", server.address })
    local first = t:expect_echo(p, server)
    for _ = 1, 599 do t:pair(p, server) end
    local status, body = ask(t, at, "/v1/connections/kill?all=true", { method = "POST" })
    assert.same({ 200, 600 }, { status, body.killed })
    first:expect_reset()
    assert.equal(0, #conns(t, at))
    t:expect_echo(p, server)
  end)

  case("kill a connection whose hook waits", function(t)
    local path = t:file("p.lua", [[
      local ps = require "penstock"
      return { connect = function(conn) conn.log.info("waits") ps.sleep(3600) end }
    ]])
    local p, at = start(t, { "-p", path, "127.0.0.1:0", "-" })
    local client = t:connect(p)
    p:log "(waits)"
    local c = conns(t, at)[1]
    assert.same({ "connect hook", null }, { c.state, c.upstream })
    assert.equal(200, (ask(t, at, "/v1/connections/1/kill", { method = "POST" })))
    client:expect_reset()
  end)

  case("reload, and waits for what comes of it", function(t)
    local server = t:listen()
    t:expect_error "admin: version 2 stays in force"
    local function write(text) return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text) end
    local good = ('ps.listen { name = "%%s", bind = "127.0.0.1:0", to = %q }'):format(server.address)
    local p, at = start(t, { "--workers", "2", "run", write(good:format "one") })
    write(good:format "two")
    local status, body = ask(t, at, "/v1/reload", { method = "POST" })
    assert.same({ 200, 2 }, { status, body.configuration })
    assert.is_nil(body.error)
    assert.equal("two", select(2, ask(t, at, "/v1/listeners")).listeners[1].name)
    write "ps.listen { bind = 5 }"
    status, body = ask(t, at, "/v1/reload", { method = "POST" })
    assert.same({ 422, 2 }, { status, body.configuration })
    assert.matches("penstock.lua:2: ps.listen: bind is a number", body.error)
    t:expect_echo(p, server)
  end)

  case("answer all who ask for a reload at once, also together with HUP", function(t)
    local server = t:listen()
    local p, at = start(t, { "--workers", "2", "run", t:file("penstock.lua",
      ('require("penstock").listen { bind = "127.0.0.1:0", to = %q }'):format(server.address)) })
    local all = {}
    p:signal "HUP"
    for i = 1, 12 do all[i] = admin.start(t, at, "/v1/reload", { method = "POST" }) end
    p:signal "HUP"
    for i = 1, 12 do assert.equal(200, (admin.finish(all[i]))) end
    t:expect_echo(p, server)
  end)

  case("not keep it from ending in the midst of reloads and queries", function(t)
    local server = t:listen()
    local p, at = start(t, { "--workers", "3", "-p", t:file("p.lua", "return {}"), "127.0.0.1:0", server.address })
    for _ = 1, 10 do t:expect_echo(p, server) end
    local all = {}
    for i = 1, 10 do
      all[#all + 1] = admin.start(t, at, "/v1/reload", { method = "POST" })
      all[#all + 1] = admin.start(t, at, "/v1/connections")
      if i == 5 then p:log "version (%d+) is in force" end
    end
    p:signal "TERM"
    p:signal "INT"
    p:expect_exit(0)
    for _, curl in ipairs(all) do assert.is_truthy(curl:wait()) end -- answered or cut, not left waiting
  end)

  case("say that there is nothing to load", function(t)
    local _, at = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    local status, body = ask(t, at, "/v1/reload", { method = "POST" })
    assert.equal(409, status)
    assert.matches("nothing to load again", body.error)
  end)

  case("refuse a reload while it drains", function(t)
    local server = t:listen()
    local p, at = start(t, { "-p", t:file("p.lua", "return {}"), "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    p:signal "TERM"
    p:log "no new connections"
    assert.equal(503, (ask(t, at, "/v1/reload", { method = "POST" })))
    assert.equal(1, #conns(t, at))
    client:finish()
    upstream:finish()
    p:expect_exit(0)
  end)

  case("change the log level", function(t)
    local server = t:listen()
    local p, at = start(t, { "--log", "error", "--access-log", "off", "--workers", "1", "-p", t:file("p.lua", [[
      return { accept = function(conn) conn.log.debug("seen %d", conn.seq) end }
    ]]), "--log", "info", "127.0.0.1:0", server.address })
    t:expect_echo(p, server)
    assert.is_nil(p.err:find "seen 1")
    local status, body = ask(t, at, "/v1/log-level", { method = "PUT", body = "debug" })
    assert.same({ 200, "debug" }, { status, body.level })
    t:expect_echo(p, server)
    p:log "(seen 2)"
    for _, bad in ipairs { "loud", "", "debug " } do
      assert.equal(400, (ask(t, at, "/v1/log-level", { method = "PUT", body = bad })))
    end
    assert.equal(413, (ask(t, at, "/v1/log-level", { method = "PUT", body = ("x"):rep(64) })))
  end)

  case("what ps.options says", function(t)
    local at = socket(t)
    t:penstock { "run", t:file("penstock.lua", ([[
      local ps = require "penstock"
      ps.options { admin = %q }
      ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]]):format(at)) }
    assert.equal(200, (ask(t, at, "/v1/health")))
  end)
end)

describe("the admin turns away", function()
  case("other users of the host: its UNIX socket has mode 0600, and goes at the end", function(t)
    local p, at = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    local path = at:match "unix:(.*)"
    local stat = t:spawn { "stat", "-c", "%a", path }
    stat:wait()
    assert.equal("600\n", stat.out)
    p:stop()
    assert.is_nil(require("lfs").attributes(path))
  end)

  case_as_root("all but the user that penstock has become", function(t)
    local p, at = start(t, { "--user", "nobody", "127.0.0.1:0", "127.0.0.1:1" })
    local path = at:match "unix:(.*)"
    local stat = t:spawn { "stat", "-c", "%a %U", path }
    stat:wait()
    assert.equal("600 nobody\n", stat.out)
    assert.equal(200, (ask(t, at, "/v1/health")))
    p:stop()
  end)

  case("paths and methods that it does not have", function(t)
    local _, at = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    for _, path in ipairs { "/", "/v1", "/v1/health/", "/v2/health", "/v1/connections/x/kill", "/v1/connections//kill",
      "/v1/connections/0/kill", "/v1/connections/99999999999999999999/kill", "/v1/connections/1" } do
      local method = path:find "kill" and "POST" or "GET"
      assert.equal(404, (ask(t, at, path, { method = method })))
    end
    assert.equal(405, (ask(t, at, "/v1/health", { method = "POST" })))
    assert.equal(405, (ask(t, at, "/v1/reload")))
    assert.equal(405, (ask(t, at, "/v1/connections/1/kill")))
  end)

  case("arguments that a route does not have, and does nothing then", function(t)
    local p, at = start(t, { "-p", t:file("p.lua", "return {}"), "127.0.0.1:0", "127.0.0.1:1" })
    for _, route in ipairs { "GET /v1/health", "GET /v1/ready", "GET /v1/version", "GET /v1/listeners",
      "POST /v1/connections/1/kill", "GET /v1/pools", "GET /v1/stores", "GET /v1/buckets",
      "GET /v1/stats", "GET /v1/config", "POST /v1/reload", "POST /v1/upgrade", "PUT /v1/log-level", "GET /metrics" } do
      local method, path = route:match "(%u+) (.*)"
      local sent = method == "PUT" and "error" or nil
      local status, body = ask(t, at, path .. "?dry=true", { method = method, body = sent })
      assert.equal(400, status, route)
      assert.equal("it has no arguments, so no dry", body.error)
    end
    assert.equal(1, select(2, ask(t, at, "/v1/version")).configuration)
    assert.equal("info", select(2, ask(t, at, "/v1/config")).log_level)
    p:stop()
  end)

  case("who has not the token", function(t)
    local p, at = start_tcp(t, "--admin-token-file", token_file(t))
    local function with(...) return (ask(t, at, "/v1/health", { headers = { ... } })) end
    assert.equal(200, with("Authorization: Bearer " .. token))
    assert.equal(200, with("authorization: bearer " .. token))
    for _, wrong in ipairs { "Bearer " .. token .. "x", "Bearer " .. token:sub(1, -2), "Bearer ", "Bearer", token,
      "Basic " .. token, "Bearer x" .. token:sub(2), "Bearer " .. token .. token } do
      assert.equal(401, with("Authorization: " .. wrong))
    end
    assert.equal(401, with())
    assert.equal(401, (ask(t, at, "/metrics")))
    assert.equal(401, (ask(t, at, "/nothing")))
    assert.is_nil(p.err:find(token, 1, true))
  end)

  case("web pages: a foreign Host, or an Origin", function(t)
    local _, at = start_tcp(t, "--admin-no-token")
    local port = at:match ":(%d+)$"
    local function with(...) return (ask(t, at, "/v1/health", { headers = { ... } })) end
    assert.equal(200, with())
    assert.equal(200, with("Host: localhost:" .. port))
    assert.equal(200, with("Host: LOCALHOST:" .. port))
    for _, host in ipairs { "evil.example", "evil.example:" .. port, "localhost", "127.0.0.1", "127.0.0.2:" .. port,
      "localhost.evil.example:" .. port, "localhost:" .. port .. "x", "[::1]:" .. port, "localhost:1", ":" .. port } do
      assert.equal(403, with("Host: " .. host), host)
    end
    assert.equal(403, with "Origin: http://evil.example")
    assert.equal(403, with("Origin: http://127.0.0.1:" .. port))
    assert.equal(403, with "Origin: null")
    assert.equal(403, (ask(t, at, "/v1/connections/kill?all=true", { method = "POST", headers = { "Origin: null" } })))
  end)

  case("names, where it listens on all addresses", function(t)
    local p = t:penstock { "--admin", "[::]:0", "--admin-token-file", token_file(t), "127.0.0.1:0", "127.0.0.1:1" }
    local port = p:log "admin listens on %[::%]:(%d+)"
    local function with(host)
      return (ask(t, "127.0.0.1:" .. port, "/v1/health",
        { headers = { "Authorization: Bearer " .. token, "Host: " .. host .. ":" .. port } }))
    end
    for _, host in ipairs { "127.0.0.1", "192.0.2.1", "[::1]", "[2001:db8::1]", "localhost" } do
      assert.equal(200, with(host), host)
    end
    for _, host in ipairs { "evil.example", "1.2.3", "[::1", "::1", "[]" } do assert.equal(403, with(host), host) end
  end)

  case("command lines that would open it to others", function(t)
    local function refused(pattern, ...)
      local args = { ... }
      args[#args + 1] = "127.0.0.1:0"
      args[#args + 1] = "127.0.0.1:1"
      t:expect_error(pattern)
      local status, err = t:run(args)
      assert.equal(2, status)
      assert.matches(pattern, err)
    end
    refused("needs %-%-admin%-token%-file FILE, or %-%-admin%-no%-token", "--admin", "127.0.0.1:0")
    refused("others can reach needs %-%-admin%-token%-file", "--admin", ":0", "--admin-no-token")
    refused("others can reach needs %-%-admin%-token%-file", "--admin", "0.0.0.0:9180")
    refused("contradict", "--admin", "127.0.0.1:0", "--admin-no-token", "--admin-token-file", "x")
    refused("abstract socket", "--admin", "unix:@penstock")
    refused("one port", "--admin", "127.0.0.1:9000-9001", "--admin-no-token")
    refused("%-%-admin takes unix:", "--admin", "fd:3")
    refused("%-%-admin: ", "--admin", "example.com:80")
    refused("belong to %-%-admin", "--admin-no-token")
  end)

  case("files of tokens that others may read, or that hold none", function(t)
    local function refused(pattern, path)
      t:expect_error(pattern)
      local status, err = t:run { "--admin", "127.0.0.1:0", "--admin-token-file", path, "127.0.0.1:0", "127.0.0.1:1" }
      assert.equal(1, status)
      assert.matches(pattern, err)
    end
    refused("open to everybody: chmod 600", token_file(t, nil, "644"))
    refused("no token of 16 to 512", token_file(t, "short\n"))
    refused("no token of 16 to 512", token_file(t, "0123456789 abcdef\n"))
    refused("no token of 16 to 512", token_file(t, ""))
    refused("no token of 16 to 512", token_file(t, ("x"):rep(600)))
    refused("cannot read", t:folder() .. "/missing")
    refused("is no file", t:folder())
  end)

  case("an address that is taken", function(t)
    local taken = t:listen()
    t:expect_error "admin: cannot listen on"
    local status, err = t:run { "--admin", taken.address, "--admin-no-token", "127.0.0.1:0", "127.0.0.1:1" }
    assert.equal(1, status)
    assert.matches("another process listens there", err)
  end)

  case("requests that are too big or none", function(t)
    local _, at = start_tcp(t, "--admin-no-token")
    local function answer(bytes)
      local c = t:connect(at)
      c:offer(bytes)
      local text = ""
      while true do
        local more = c:receive()
        if not more then break end
        text = text .. more
      end
      return tonumber(text:match "^HTTP/1.[01] (%d+)") or text
    end
    local host = "Host: " .. at .. "\r\n"
    assert.equal(431, answer("GET /v1/health HTTP/1.1\r\n" .. host .. "X: " .. ("x"):rep(20000) .. "\r\n\r\n"))
    assert.equal(414, answer("GET /" .. ("x"):rep(20000) .. " HTTP/1.1\r\n" .. host .. "\r\n"))
    assert.equal(400, answer("GET /v1/health HTTP/1.1\r\n\r\n"))
    assert.equal(403, answer("GET /v1/health HTTP/1.0\r\n\r\n"))
    assert.not_equal(200, answer("\22\3\1\2\0\1\0\1\252\3\3\r\n\r\n"))
    assert.equal(200, answer("GET /v1/health HTTP/1.1\r\n" .. host .. "\r\n"))
  end)
end)

describe("clients of the admin that do nothing", function()
  case("hold up neither the forwarding nor the next client for ever", function(t)
    local server = t:listen()
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-no-token", "127.0.0.1:0", server.address }
    local at = p:log "admin listens on (%S+)"
    local lazy = {}
    for i = 1, 40 do
      lazy[i] = t:connect(at)
      lazy[i]:send "GET /v1/health HTTP/1.1\r\nHost: "
    end
    t:expect_echo(p, server)
    local curl = admin.start(t, at, "/v1/health")
    -- A byte now and then gains nothing.
    local gone = sys.wait_until(function()
      lazy[1]:offer "x"
      return lazy[1]:ready("r", 0.2)
    end)
    assert.is_true(gone, "it is still there")
    assert.equal(200, (admin.finish(curl)))
  end)

  case("do not keep it from ending", function(t)
    local server = t:listen()
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-no-token", "127.0.0.1:0", server.address }
    local at = p:log "admin listens on (%S+)"
    local idle, half = t:connect(at), t:connect(at)
    half:send "POST /v1/reload HTTP/1.1\r\nContent-Length: 5\r\n"
    t:expect_echo(p, server)
    p:signal "TERM"
    p:signal "INT"
    p:expect_exit(0)
    assert.is_nil((idle:receive()))
  end)
end)

describe("the admin is served", function()
  case("while a client does not read its answer", function(t)
    local server = t:listen()
    -- The answer is longer than what the kernel takes by some MB: 900 series of 4 KB a counter.
    local taken = tonumber(sys.read_file("/proc/sys/net/ipv4/tcp_wmem"):match "(%d+)%s*$")
    local path = t:file("p.lua", ([[
      local ps = require "penstock"
      local names, values = {}, {}
      for i = 1, 16 do names[i], values[i] = "n" .. i, ("x"):rep(250) end
      for n = 1, %d do
        local c = ps.counter("many_total_" .. n, names)
        for i = 1, 900 do
          values[1] = ("x"):rep(200) .. i
          c:inc(1, unpack(values))
        end
      end
      return {}
    ]]):format(math.ceil((taken + 5e6) / 3.6e6)))
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-no-token", "-p", path, "127.0.0.1:0", server.address }
    local at = p:log "admin listens on (%S+)"
    local deaf = t:connect(at, { rcvbuf = 4096 })
    deaf:send("GET /metrics HTTP/1.1\r\nHost: " .. at .. "\r\n\r\n")
    local head = ""
    while not head:find("\r\n\r\n", 1, true) do head = head .. deaf:read(1) end
    local length = tonumber(head:match "^HTTP/1.1 200 .-\r\nContent%-Length: (%d+)\r\n")
    assert.equal(200, (ask(t, at, "/v1/health")))
    t:expect_echo(p, server)
    local in_kernel = sockets.find(p, at, deaf.own).unsent + deaf:unread()
    assert.is_true(in_kernel < length, ("%d of %d bytes are with the kernel"):format(in_kernel, length))
  end)
end)
