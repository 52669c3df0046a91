-- The admin while a worker does not answer, or answers late: it stays there for everybody else.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case, sys = e2e.case, e2e.sys

local HELD_MAX, CLIENTS_MAX = 16, 32

-- penstock whose only worker is held by a hook that opens a pipe without a writer. Returns it, the address of the
-- admin, and a function that lets the worker go.
local function start_held(t)
  local at, pipe = "unix:" .. t:folder() .. "/admin.sock", t:folder() .. "/pipe"
  assert(os.execute("mkfifo " .. pipe) == 0)
  local policy = t:file("p.lua", ([[
    local ps = require "penstock"
    ps.pool { name = "web", servers = { "127.0.0.1:1" } }
    return { accept = function(conn)
      ps.log.info "held"
      io.open(%q):close()
      ps.log.info "let go"
    end }
  ]]):format(pipe))
  local p = t:penstock { "--admin", at, "--admin-lua", "--unsafe-lua", "--workers", "1", "-p", policy,
    "127.0.0.1:0", "127.0.0.1:1" }
  t:allow_error "serves nobody meanwhile"
  local client = t:connect(p)
  p:log "held"
  return p, at, function()
    local f = assert(io.open(pipe, "w"))
    p:log "let go"
    f:close()
    client:close()
  end
end

local function send(t, at, request)
  local c = t:connect(at)
  c:send(request .. " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
  return c
end

local function expect_others(t, at)
  for _, path in ipairs { "/v1/health", "/v1/ready", "/v1/version", "/metrics" } do
    assert.equal(200, (admin.ask(t, at, path)), path)
  end
end

local function expect_connections(t, at)
  assert.is_true(sys.wait_until(function() return admin.ask(t, at, "/v1/connections") == 200 end))
end

describe("while a worker does not answer, the admin", function()
  case("answers others, and keeps no slot for clients that hang up", function(t)
    local _, at, let_go = start_held(t)
    for _ = 1, 2 do
      local all = {}
      for i = 1, CLIENTS_MAX - 1 do all[i] = send(t, at, "GET /v1/connections") end
      expect_others(t, at) -- all have been taken before
      for i = 1, #all do all[i]:close() end
    end
    expect_others(t, at)
    let_go()
    expect_connections(t, at)
  end)

  case("refuses at once what exceeds 16 waiting requests", function(t)
    local p, at, let_go = start_held(t)
    local all = {}
    for i = 1, HELD_MAX do
      all[i] = send(t, at, i % 2 == 0 and "GET /v1/connections" or "POST /v1/lua?timeout=60")
    end
    for _, path in ipairs { "/v1/connections/1/kill", "/v1/reload", "/v1/lua" } do
      local status, body = admin.ask(t, at, path, { method = "POST" })
      assert.equal(503, status)
      assert.matches("16 requests wait for the workers", body.error)
    end
    expect_others(t, at)
    let_go()
    for i = 1, HELD_MAX do assert.matches("^HTTP/1.1 200 ", (all[i]:read_all())) end
    expect_connections(t, at)
    p:stop()
  end)

  case("says so after 8 s, and takes no harm when the worker answers then", function(t)
    local p, at, let_go = start_held(t)
    local asked = {
      admin.start(t, at, "/v1/connections"),
      admin.start(t, at, "/v1/connections/1/kill", { method = "POST" }),
      admin.start(t, at, "/v1/connections?rates=true"),
      admin.start(t, at, "/v1/pools/web/servers/127.0.0.1%3A1/drain?over=1h", { method = "POST" }),
      admin.start(t, at, "/v1/lua?timeout=1ms", { method = "POST", body = "1" }),
    }
    for _, curl in ipairs(asked) do
      local status, body = admin.finish(curl)
      assert.equal(503, status)
      assert.matches("^worker 0 does not answer", body.error)
    end
    let_go()
    expect_connections(t, at)
    p:stop()
  end)

  case("ends when penstock does", function(t)
    local p, at, let_go = start_held(t)
    send(t, at, "GET /v1/connections"):close()
    local reload = send(t, at, "POST /v1/reload")
    expect_others(t, at)
    reload:close()
    expect_others(t, at)
    let_go()
    p:signal "INT"
    p:stop()
  end)
end)

describe("chunks of Lua that wait", function()
  case("leave the admin to others", function(t)
    local at = "unix:" .. t:folder() .. "/admin.sock"
    local p = t:penstock { "--admin", at, "--admin-lua", "-p", t:file("p.lua", "return {}"), "127.0.0.1:0",
      "127.0.0.1:1" }
    local all = {}
    for i = 1, CLIENTS_MAX do
      all[i] = admin.start(t, at, "/v1/lua?timeout=60", { method = "POST", body = "ps.sleep(59)" })
    end
    local function count_refused()
      local n = 0
      for _, curl in ipairs(all) do n = n + (curl.out:find "\n503$" and 1 or 0) end
      return n
    end
    assert.is_true(sys.wait_until(function()
      all[1]:wait(0.02)
      return count_refused() == CLIENTS_MAX - HELD_MAX
    end))
    expect_others(t, at)
    for _, curl in ipairs(all) do curl:kill() end
    assert.is_true(sys.wait_until(function()
      return admin.ask(t, at, "/v1/lua", { method = "POST", body = "1" }) == 200
    end))
    p:stop()
  end)
end)

describe("a client that ends its sending after the request", function()
  case("gets its answer over a UNIX socket, also when that takes its time", function(t)
    local at = "unix:" .. t:folder() .. "/admin.sock"
    local p = t:penstock { "--admin", at, "--admin-lua", "-p", t:file("p.lua", "return {}"), "127.0.0.1:0",
      "127.0.0.1:1" }
    local c = t:connect(at)
    local code = 'ps.log.info "begun" signal = ps.signal() return signal:wait(60)'
    c:send(("POST /v1/lua?timeout=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"):format(#code, code))
    c:finish()
    p:log "begun"
    expect_others(t, at) -- it is looked at meanwhile
    assert.equal(200, (admin.ask(t, at, "/v1/lua", { method = "POST", body = "signal:set(42)" })))
    assert.matches('"result":"42"', c:read_all(), 1, true)
  end)

  case("has hung up, over TCP: its chunk is cancelled, and it is told so", function(t)
    local token = ("s"):rep(32)
    local path = t:file("token", token .. "\n")
    assert(os.execute("chmod 600 " .. path) == 0)
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-token-file", path, "--admin-lua", "-p",
      t:file("p.lua", "return {}"), "127.0.0.1:0", "127.0.0.1:1" }
    local at = p:log "admin listens on (%S+)"
    local code = 'ps.log.info "begun" pcall(ps.sleep, 60) ps.log.info "ended"'
    local c = t:connect(at)
    c:send(("POST /v1/lua?timeout=60 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s")
      :format(at, token, #code, code))
    p:log "info  begun"
    c:finish()
    p:log "info  ended"
    assert.matches("^HTTP/1.1 503 .*its client has hung up", (c:read_all()))
  end)
end)
